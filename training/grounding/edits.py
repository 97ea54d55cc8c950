"""Pairs of passage and claim that differ in one fact, or not at all, built out of real passages from a seed.

An edit changes a sentence in one place: a number, a date, a name, a negation. Of a sentence and its edited twin come
pairs that agree (both as they were, or both edited) and pairs that do not (either one edited). So the claim alone tells
nothing, nor does an odd name: only the comparison does. Other pairs set a claim against a passage that does not state
it: another one that is like it, or its own without that sentence. Some claims are reworded without harm, whatever they
are compared with.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.chunking import passages, sentences, sentences_inside
from rag.documents import read_documents
from training.datasets import TrainingError
from training.grounding.rows import ClaimRow, Label, cut, lines

SOURCE = "edits"
SAME, SWAPPED, REMOVED = "same", "swapped", "removed"
_CHARACTERS = 600  # of a built passage
_LIKE = 20  # passages among which the most similar one is taken for a swap
_REWORDED = 0.4  # share of English claims
_SAID_AGAIN = 0.6  # share of a sentence's words that another one may hold and not say the same

_NUMBER = re.compile(r"(?<![0-9A-Za-z.,:/-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![0-9A-Za-z/-]|[.,:]\d)")
_YEAR = re.compile(r"(?<![0-9A-Za-z.,/-])(?:1[0-9]|20)\d\d(?![0-9A-Za-z/-]|[.,]\d)")
_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_CALENDAR = re.compile(rf"\b(?:{'|'.join(_MONTHS[:4] + _MONTHS[5:] + _DAYS)})\b")  # without May, which is a verb too
_NAME = re.compile(r"(?<=[a-zà-ÿ,;] )[A-ZÀ-Þ][a-zà-ÿ]{2,}(?: [A-ZÀ-Þ][a-zà-ÿ]{2,}){0,2}(?![\w'’-])")
_WORDS = "two three four five six seven eight nine ten eleven twelve".split()
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b")
_AFFIRMED = re.compile(r"\b(?:is|are|was|were|will|must|should|(?:has|have|had)(?= been\b))\b(?! not\b| never\b)")
_DENIED = re.compile(r"\b(is|are|was|were|will|must|should|has|have|had|can|could|did) ?not (?!only\b)")
_UNSURE = re.compile(r"\b(?:if|whether|or not|not only|until|unless)\b|\?", re.IGNORECASE)
_LEAD = re.compile(r"^(?:However|Moreover|Furthermore|In addition|Therefore|Thus|Also|Nevertheless), (\w)")
_ASIDE = re.compile(r" \([^()]{3,80}\)")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A passage to build pairs of.

    Attributes:
        sentences: in order.
        source: the data set or folder it came from.
        licence: of that.
        lang: ISO 639-1 code.
        split: `train`, `dev` or `test`.
    """

    sentences: tuple[str, ...]
    source: str
    licence: str = ""
    lang: str = "en"
    split: str = "train"

    @property
    def passage(self) -> str:
        """The sentences, joined."""
        return _joined(self.sentences, self.lang)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a sentence: at the characters from `start` to `end`, `new` takes the place of what stood there."""

    kind: str
    start: int
    end: int
    new: str

    def apply(self, sentence: str) -> str:
        """The sentence with the change."""
        return sentence[: self.start] + self.new + sentence[self.end :]

    def fact(self, twins: tuple[str, str], which: int) -> str:
        """What stands at the place of the change, and a little around it, in the sentence or in its edited twin."""
        end = self.start + len(self.new) if which else self.end
        return twins[which][max(0, self.start - 4) : end + 2].strip(" .")


def read_paragraphs(paths: Sequence[Path]) -> list[Paragraph]:
    """Passages of evidence rows, of retrieval rows (with their ``.corpus.jsonl``), or of folders of documents.

    Those of documents get a split by the hash of the document's id: a tenth `test`, a tenth `dev`.

    Raises:
        TrainingError: a file or folder cannot be read, or holds neither.
    """
    found: dict[tuple[str, str], Paragraph] = {}
    for path in paths:
        read = _of_documents(path) if path.is_dir() else _of_rows(path)
        for paragraph in read:
            found.setdefault((paragraph.source, paragraph.passage), paragraph)
    return list(found.values())


def build_edits(paragraphs: Sequence[Paragraph], *, seed: int) -> list[ClaimRow]:
    """Up to six pairs of each paragraph, half of them supported; the same for the same paragraphs and seed.

    A paragraph that is in several sources is one of the first.
    """
    paragraphs = list({paragraph.passage: paragraph for paragraph in reversed(paragraphs)}.values())[::-1]
    groups: dict[tuple[str, str], list[Paragraph]] = defaultdict(list)
    for paragraph in paragraphs:
        groups[paragraph.source, paragraph.split].append(paragraph)
    names = {key: names_of(each.passage for each in group) for key, group in groups.items()}
    return [
        row
        for paragraph in paragraphs
        for row in _Builder(
            paragraph, groups[paragraph.source, paragraph.split], names[paragraph.source, paragraph.split], seed
        ).rows()
    ]


class _Builder:
    """The pairs of one paragraph."""

    def __init__(self, paragraph: Paragraph, group: Sequence[Paragraph], names: Sequence[str], seed: int) -> None:
        self._paragraph = paragraph
        self._group = group
        self._names = names
        self._rng = random.Random(f"{seed}/{paragraph.passage}")

    def rows(self) -> Iterator[ClaimRow]:
        usable = [at for at, sentence in enumerate(self._paragraph.sentences) if _usable(sentence)]
        self._rng.shuffle(usable)
        done: set[str] = set()
        for at in usable:
            edit = self._edit(at, done) if len(done) < 2 else None
            if edit:
                done.add(edit.kind)
                yield from self._contrast(at, edit)
        if usable:
            yield from self._absent(usable[-1])

    def _edit(self, at: int, done: set[str]) -> Edit | None:
        """An edit of a kind that was not yet made, of a fact that the context states once."""
        kinds = [kind for kind in EDITS if kind not in done]
        return one_edit(
            self._paragraph.sentences[at],
            self._text(self._context(at)),
            self._names,
            lang=self._paragraph.lang,
            kinds=kinds,
            rng=self._rng,
        )

    def _contrast(self, at: int, edit: Edit) -> Iterator[ClaimRow]:
        """A pair that agrees and one that does not."""
        span = self._context(at)
        texts = (self._paragraph.sentences[at], edit.apply(self._paragraph.sentences[at]))
        contexts = [self._text(span, {at: text}) for text in texts]
        label = Label.NOT_SUPPORTED if edit.kind == "name" else Label.CONTRADICTED
        side, other = self._rng.randrange(2), self._rng.randrange(2)
        yield self._row(contexts[side], texts[side], Label.SUPPORTED, SAME)
        yield self._row(contexts[other], texts[1 - other], label, edit.kind, edit.fact(texts, 1 - other))

    def _absent(self, at: int) -> Iterator[ClaimRow]:
        """A pair that agrees, and the claim against a passage without it."""
        span, claim = self._context(at), self._paragraph.sentences[at]
        others = [n for n in span if n != at]
        again = max((overlap(claim, self._paragraph.sentences[n]) for n in others), default=1.0)
        if len(others) > 1 and again < _SAID_AGAIN and self._rng.random() < 0.5:
            passage, kind = self._text(others), REMOVED
        else:
            some = self._rng.sample(self._group, min(_LIKE, len(self._group)))
            strangers = [each for each in some if each is not self._paragraph and claim not in each.passage]
            nearest = max(strangers, key=lambda each: overlap(claim, each.passage), default=None)
            if nearest is None or overlap(claim, nearest.passage) >= _SAID_AGAIN + 0.2:
                return
            passage, kind = _joined(_cropped(nearest.sentences), nearest.lang), SWAPPED
        yield self._row(self._text(span), claim, Label.SUPPORTED, SAME)
        yield self._row(passage, claim, Label.NOT_STATED, kind)

    def _row(self, passage: str, claim: str, label: Label, kind: str, fact: str = "") -> ClaimRow:
        """The row, its claim reworded at times, but for the fact that was edited."""
        paragraph = self._paragraph
        if paragraph.lang == "en" and self._rng.random() < _REWORDED:
            changed = reworded(claim, self._rng)
            claim = changed if fact.lower() in changed.lower() else claim
        about = (SOURCE, paragraph.licence, paragraph.lang, paragraph.split, paragraph.source, paragraph.passage)
        return ClaimRow(passage, claim, label, kind, *about)

    def _context(self, at: int) -> list[int]:
        """The sentence and those around it, as many as there is room for."""
        found, room = [at], _CHARACTERS - len(self._paragraph.sentences[at])
        for distance in range(1, len(self._paragraph.sentences)):
            for n in (at - distance, at + distance):
                if 0 <= n < len(self._paragraph.sentences):
                    room -= len(self._paragraph.sentences[n])
                    if room < 0:
                        return sorted(found)
                    found.append(n)
        return sorted(found)

    def _text(self, span: Sequence[int], changed: dict[int, str] | None = None) -> str:
        return _joined([(changed or {}).get(n, self._paragraph.sentences[n]) for n in span], self._paragraph.lang)


def one_edit(
    sentence: str, context: str, names: Sequence[str], *, lang: str, kinds: Sequence[str], rng: random.Random
) -> Edit | None:
    """An edit of one of these kinds, of a fact that the context states in one place only; None where there is none.

    Args:
        sentence: to be changed.
        context: the passage that it stands in.
        names: of the source, to put in the place of others.
        lang: ISO 639-1 code; some kinds are for some languages.
        kinds: keys of `EDITS`.
        rng: chooses.
    """
    kinds = list(kinds)
    rng.shuffle(kinds)
    for kind in kinds:
        possible = EDITS[kind](sentence, context, names, rng)
        known = kind in _LANGUAGES.get(lang, ("number", "date"))
        stated_once = [edit for edit in possible if known and (kind == "negation" or _once(sentence, edit, context))]
        if stated_once:
            return rng.choice(stated_once)
    return None


def numbers(sentence: str, context: str, names: Sequence[str], rng: random.Random) -> list[Edit]:
    """Another value for each number that is no year."""
    edits = []
    for match in _NUMBER.finditer(sentence):
        if not _YEAR.fullmatch(match[0]):
            others = [n for n in _NUMBER.findall(context) if not _YEAR.fullmatch(n) and _value(n) != _value(match[0])]
            new = rng.choice(others) if others and rng.random() < 0.5 else _other_number(match[0], rng)
            edits.append(Edit("number", *match.span(), new))
    for match in _WORD.finditer(sentence):
        edits.append(Edit("number", *match.span(), rng.choice([word for word in _WORDS if word != match[0]])))
    return edits


def dates(sentence: str, context: str, names: Sequence[str], rng: random.Random) -> list[Edit]:
    """Another year, month or day of the week."""
    edits = []
    for match in _YEAR.finditer(sentence):
        others = [year for year in _YEAR.findall(context) if year != match[0]]
        moved = str(int(match[0]) + rng.choice([-1, 1]) * rng.randint(1, 30))
        edits.append(Edit("date", *match.span(), rng.choice(others) if others and rng.random() < 0.5 else moved))
    for match in _CALENDAR.finditer(sentence):
        kin = _MONTHS if match[0] in _MONTHS else _DAYS
        edits.append(Edit("date", *match.span(), rng.choice([name for name in kin if name != match[0]])))
    return edits


def other_names(sentence: str, context: str, names: Sequence[str], rng: random.Random) -> list[Edit]:
    """Another name of as many words, from the context or from anywhere in the source."""
    edits = []
    for match in _NAME.finditer(sentence):
        if not _CALENDAR.search(match[0]) and match[0].split()[0] != "May":
            words = len(match[0].split())
            near = [name for name in _names(context) if _apart(name, match[0]) and name not in sentence]
            if len(names) and (not near or rng.random() < 0.5):
                near = [name for name in rng.sample(names, min(50, len(names))) if len(name.split()) == words]
                near = [name for name in near if _apart(name, match[0]) and name not in context]
            if near:
                edits.append(Edit("name", *match.span(), rng.choice(near)))
    return edits


def negations(sentence: str, context: str, names: Sequence[str], rng: random.Random) -> list[Edit]:
    """A `not` put in or taken out, in a sentence that is sure of itself."""
    if _UNSURE.search(sentence):
        return []
    denied = [Edit("negation", *match.span(), match[1] + " ") for match in _DENIED.finditer(sentence)]
    if denied or " not " in sentence or "n't" in sentence or " no " in sentence:
        return denied if len(denied) == 1 else []
    match = _AFFIRMED.search(sentence)
    return [Edit("negation", *match.span(), match[0] + " not")] if match else []


EDITS: dict[str, Callable[[str, str, Sequence[str], random.Random], list[Edit]]] = {
    "number": numbers,
    "date": dates,
    "name": other_names,
    "negation": negations,
}
_LANGUAGES = {"en": tuple(EDITS), "es": ("number", "date", "name")}


def reworded(sentence: str, rng: random.Random) -> str:
    """The same in slightly other words: nothing that it says is changed, and something may be left out."""
    changes: list[Callable[[str], str]] = [
        lambda text: _LEAD.sub(lambda match: match[1].upper(), text),
        lambda text: _ASIDE.sub("", text),
        lambda text: re.sub(r"(?<=\d),(?=\d{3})", "", text),
        lambda text: re.sub(r"\b(is|are|was|were|has|have|does|do|did) not\b", r"\1n't", text),
        lambda text: text.rstrip(".").lower(),
        lambda text: text.split("; ")[0] if len(text.split("; ")[0].split()) > 5 else text,
    ]
    possible = [changed for change in changes if (changed := change(sentence)) != sentence and changed.strip()]
    return rng.choice(possible) if possible else sentence


def _of_rows(path: Path) -> Iterator[Paragraph]:
    entries = lines(path)
    try:
        if all("sentence_starts" in entry for entry in entries):
            for entry in entries:
                yield _paragraph(cut(entry["passage"], entry["sentence_starts"]), entry)
            return
        corpus = {row["id"]: row["text"] for row in lines(path.with_name(f"{path.stem}.corpus.jsonl"))}
        for entry in entries:
            for key in entry["positive_passages"]:
                text = corpus[key]
                found = tuple(" ".join(text[each.start : each.end].split()) for each in sentences(text))
                if found:
                    yield _paragraph(found, {**entry, "lang": _language(text)})
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainingError(
            f"{path}: neither evidence rows (`passage`, `sentence_starts`) nor retrieval rows (`positive_passages`, "
            f"ids in {path.stem}.corpus.jsonl): {exc!r}"
        ) from exc


def _paragraph(found: tuple[str, ...], entry: dict[str, str]) -> Paragraph:
    return Paragraph(
        tuple(filter(None, found)), entry["source"], entry.get("licence", ""), entry.get("lang", "en"), entry["split"]
    )


def _of_documents(folder: Path) -> Iterator[Paragraph]:
    for document in read_documents(folder).documents:
        split, lang = split_of(document.id), _language(document.text)
        for passage in passages(document):
            found = tuple(
                " ".join(document.text[each.start : each.end].split()) for each in sentences_inside(passage, document)
            )
            yield Paragraph(found, folder.name, str(document.metadata.get("licence", "")), lang, split)


def split_of(name: str) -> str:
    """The split of what has no other than by its name: a tenth each are `test` and `dev`."""
    return {0: "test", 1: "dev"}.get(int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10, "train")


def _language(text: str) -> str:
    """Chinese or English: the language of a passage need not be its question's."""
    return "zh" if sum("\u4e00" <= char <= "\u9fff" for char in text) > len(text) / 4 else "en"


def _usable(sentence: str) -> bool:
    return 25 <= len(sentence) <= 350 and (not sentence.isascii() or len(sentence.split()) >= 5)


def _joined(parts: Sequence[str], lang: str) -> str:
    return ("" if lang in ("zh", "ja") else " ").join(parts)


def _cropped(parts: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for part in parts:
        if chosen and sum(map(len, chosen)) + len(part) > _CHARACTERS:
            break
        chosen.append(part)
    return chosen


def _once(sentence: str, edit: Edit, context: str) -> bool:
    """Whether the context states the fact in one place only: edited there, it is stated nowhere else."""
    old = re.escape(sentence[edit.start : edit.end])
    return len(re.findall(rf"(?<![0-9A-Za-z]){old}(?![0-9A-Za-z])", context)) == 1


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _other_number(number: str, rng: random.Random) -> str:
    """Of the same form, with another value: a little or far off."""
    value = _value(number)
    decimals = len(number.partition(".")[2])
    if decimals:
        return (
            f"{max(0.0, value + rng.choice([-1, 1]) * rng.randint(1, 50) / 10**decimals) or value * 3 + 1:.{decimals}f}"
        )
    size = max(1, int(value // 10))
    moved = int(value) + rng.choice([-1, 1]) * rng.randint(size, 5 * size)
    moved = moved if moved > 0 else int(value) + rng.randint(1, 9)
    return f"{moved:,}" if "," in number else str(moved)


def names_of(texts: Iterable[str]) -> list[str]:
    """The names of persons, places and the like in some texts, in alphabetical order."""
    return sorted({name for text in texts for name in _names(text)})


def _names(text: str) -> list[str]:
    return [name for name in dict.fromkeys(_NAME.findall(text)) if not _CALENDAR.search(name)]


def _apart(one: str, other: str) -> bool:
    return not set(one.split()) & set(other.split())


def overlap(claim: str, text: str) -> float:
    """The share of a claim's words that a text holds; of its characters where words are not written apart."""
    mine, theirs = _units(claim), _units(text)
    return len(mine & theirs) / len(mine) if mine else 0.0


def _units(text: str) -> set[str]:
    return set(re.findall(r"[0-9a-zà-ÿ]+|[^\W0-9a-zà-ÿ]", text.lower()))
