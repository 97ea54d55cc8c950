"""Check the sample knowledge base and its question set; exits 1 with a list of problems.

python data/questions/check_sample_knowledge.py
"""

import collections
import datetime
import json
import pathlib
import re
import sys

import yaml

DATA = pathlib.Path(__file__).resolve().parents[1]
KEYS = ["title", "publisher", "topic", "categories", "licence", "retrieved", "stance"]
TIERS = {"safe", "unsafe", "conditionally_safe", "focused_attention"}
DANGLING = re.compile(r"^(This|That|These|Those|It|Its|They|Their|He|She|His|Her|Such|However|But|And|Also|Here)\b")
LONGEST = 35


def sentences(body):
    """Every sentence of the prose and the bullets, headings left out."""
    for line in body.splitlines():
        line = re.sub(r"^- ", "", line.strip())
        if line and not line.startswith("#"):
            yield from re.split(r"(?<=[.?!])\"?\s+(?=[A-Z0-9\"])", line)


def main():
    problems, bodies, topics = [], {}, collections.Counter()
    for path in sorted((DATA / "knowledge").glob("*/*.md")):
        ident = path.relative_to(DATA / "knowledge").with_suffix("").as_posix()
        match = re.match(r"---\n(.*?)\n---\n\n(.*)\Z", path.read_text(encoding="utf-8"), re.S)
        if not match:
            problems.append(f"{ident}: no front matter")
            continue
        front, body = yaml.safe_load(match[1]), match[2]
        if front.get("publisher") != "Airlock sample knowledge base":
            continue
        if list(front) != KEYS:
            problems.append(f"{ident}: front matter keys {list(front)}")
        if front["topic"] != path.parent.name or front["licence"] != "Apache-2.0":
            problems.append(f"{ident}: topic or licence")
        if not isinstance(front["retrieved"], datetime.date) or front["stance"] not in (None, "several positions"):
            problems.append(f"{ident}: retrieved or stance")
        if not front["categories"] or not all(re.match(r"[ucfs]_\w+$", c) for c in front["categories"]):
            problems.append(f"{ident}: categories {front['categories']}")
        if not body.startswith(f"# {front['title']}\n"):
            problems.append(f"{ident}: the heading is not the title")
        words = len(re.findall(r"\S+", re.sub(r"(?m)^#.*$|^- ", "", body)))
        if not 120 <= words <= 260:
            problems.append(f"{ident}: {words} words")
        for sentence in sentences(body):
            if len(sentence.split()) > LONGEST:
                problems.append(f"{ident}: {len(sentence.split())} words in one sentence: {sentence}")
            if DANGLING.match(sentence):
                problems.append(f"{ident}: dangling start: {sentence}")
            if not re.search(r"[.?!]\"?$", sentence):
                problems.append(f"{ident}: unfinished sentence: {sentence}")
        bodies[ident] = body
        topics[path.parent.name] += 1

    rows = [
        json.loads(line)
        for line in (DATA / "questions/sample_knowledge.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    per_document, kinds, seen = collections.Counter(), collections.Counter(), set()
    for number, row in enumerate(rows, 1):
        if set(row) != {"question", "answerable", "document", "tier", "answer_contains"} or row["tier"] not in TIERS:
            problems.append(f"row {number}: keys or tier")
        if row["question"].lower() in seen:
            problems.append(f"row {number}: repeated question")
        seen.add(row["question"].lower())
        kinds["answerable" if row["answerable"] else "unanswerable", row["tier"]] += 1
        if not row["answerable"]:
            if row["document"] is not None or row["answer_contains"] is not None:
                problems.append(f"row {number}: unanswerable with a document")
        elif row["document"] not in bodies:
            problems.append(f"row {number}: no document {row['document']}")
        else:
            per_document[row["document"]] += 1
            if not any(row["answer_contains"] in s for s in sentences(bodies[row["document"]])):
                problems.append(f"row {number}: not verbatim in {row['document']}: {row['answer_contains']}")
    problems += [f"{ident}: {per_document[ident]} questions" for ident in bodies if per_document[ident] < 2]

    print(f"{len(bodies)} documents", dict(topics))
    print(f"{len(rows)} questions", {" ".join(k): n for k, n in sorted(kinds.items())})
    print("\n".join(problems) or "no problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
