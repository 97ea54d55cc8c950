"""Search by vectors at sizes from a thousand to a million passages, one thread. Writes `results/rag_scale.json`.

For each size, in a process of its own: building the index with the code of the knowledge base, its file and memory,
search at recall@10 of at least 0.95, and exact search beside it; up to `--store-up-to` passages also the whole store:
ingest, all modes of search, and readers that query while a writer commits. Vectors are embeddings of real passages,
extended as `rag_vectors.py` says; queries are embeddings of real questions. A size that was measured before stays in
the file, so that large ones can be added later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray
from rag_store import Table, measure_store
from rag_vectors import Extension, choose_residual, likeness, share_found
from timing import percentiles

from rag.cache import IndexSettings, build_cached, load_cached, read_note
from rag.index import Segment
from rag.schema import FORMAT, Manifest
from training.manifest import command, provenance, write_json

SHARED = Path("../shared/datasets")
DATA = [
    SHARED / "rag_medquad.jsonl",
    SHARED / "covid_faq.jsonl",
    SHARED / "dolly_closed_qa.jsonl",
    SHARED / "grounding/squad2_retrieval.jsonl",
    SHARED / "grounding/pubmedqa_retrieval.jsonl",
    SHARED / "grounding/check_covid_retrieval.jsonl",
]
_LEAST = 0.95
_ROUNDS = 2  # over the questions
_BREADTHS = (64, 128, 256, 512, 1024)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=lambda text: [int(float(word)) for word in text.split(",")], default=[1000, 10_000, 100_000]
    )
    parser.add_argument("--data", type=Path, nargs="+", default=DATA, help="sets of `airlock eval retrieval`")
    parser.add_argument("--work", type=Path, default=Path("runs/retrieval"), help="folder of the embeddings")
    parser.add_argument("--known", action="store_true", help="take the embeddings that are there, and make none")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--store-up-to", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="that readers query while a writer commits")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/rag_scale.json"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--residual", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if options.one:
        print(json.dumps(_measure(options, options.one)))
        return
    real, _, questions, _ = _embedded(options)
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    about = _about(options, real, questions, known.get("embeddings", {}))
    sizes = known.get("sizes", {}) if about == known.get("embeddings") else {}
    for size in sorted(options.sizes):
        print(f"{size} passages", flush=True)
        one = [*sys.argv[1:], "--one", str(size), "--residual", str(about["residual"])]
        run = subprocess.run([sys.executable, __file__, *one], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            raise SystemExit(f"the measurement of {size} passages ended with status {run.returncode}")
        sizes[str(size)] = json.loads(run.stdout.splitlines()[-1])
        sizes = dict(sorted(sizes.items(), key=lambda item: int(item[0])))
        said = {
            "command": command("python benchmarks/rag_scale.py"),
            "embeddings": about,
            "sizes": sizes,
            "growth": growth(sizes),
        }
        write_json(options.out, {**said, **provenance(seed=options.seed, data=options.data)})
        print(json.dumps(sizes[str(size)], indent=2), flush=True)


def growth(sizes: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Between each size and the next, the power of the size that a figure grows with: 1 is as fast as the size."""
    ordered = sorted(sizes, key=int)
    figures: dict[str, Callable[[dict[str, Any]], float]] = {
        "build_cpu_s": lambda size: size["build_cpu_s"],
        "megabytes_of_file": lambda size: size["megabytes_of_file"],
        "megabytes_to_search": lambda size: size["megabytes_to_search"],
        "search_cpu_p50": lambda size: size["search_ms"]["cpu_p50"],
        "exact_cpu_p50": lambda size: size["exact_ms"]["cpu_p50"],
        "s_per_document": lambda size: 1 / size["store"]["documents_per_s"],
    }
    found: dict[str, dict[str, float]] = {}
    for small, large in itertools.pairwise(ordered):
        powers = {}
        for name, of in figures.items():
            if name == "s_per_document" and not all("store" in sizes[size] for size in (small, large)):
                continue
            ratio = of(sizes[large]) / max(of(sizes[small]), 1e-9)
            powers[name] = round(math.log(max(ratio, 1e-9)) / math.log(int(large) / int(small)), 2)
        found[f"{small} to {large}"] = powers
    return found


def _about(
    options: argparse.Namespace, real: NDArray[np.float32], questions: NDArray[np.float32], known: dict[str, Any]
) -> dict[str, Any]:
    """How the vectors are made, and how like real ones they are; taken from what is known if it is of the same ones."""
    named = {"real": len(real), "seed": options.seed, "sum": round(float(np.abs(real).sum()), 1)}
    if {name: known.get(name) for name in named} == named:
        return known
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(real))
    ours, others = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
    residual = choose_residual(ours, rng)
    return {**named, "residual": residual, "likeness": likeness(others, questions, residual, rng)}


def _measure(options: argparse.Namespace, size: int) -> dict[str, Any]:
    real, texts, questions, asked = _embedded(options)
    rng = np.random.default_rng(options.seed + 1)
    vectors = np.empty((size, real.shape[1]), dtype=np.float32)
    vectors[: len(real)] = real[rng.permutation(len(real))[:size]]
    if size > len(real):
        vectors[len(real) :] = Extension.of(real, options.residual).draw(size - len(real), rng)
    with tempfile.TemporaryDirectory(dir=options.work, prefix=".scale-") as work:
        folder = Path(work)
        found = {"real": round(min(len(real) / size, 1.0), 4), **_index(folder / "index", vectors, questions)}
        if size <= options.store_up_to:
            table = Table(vectors, dict(zip(asked, questions, strict=True)))
            found["store"] = measure_store(
                folder / "kb", table, texts, size, seconds=options.seconds, readers=options.readers
            )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {**found, "time": datetime.now(UTC).isoformat(timespec="seconds"), "load": load}


def _index(folder: Path, vectors: NDArray[np.float32], questions: NDArray[np.float32]) -> dict[str, Any]:
    """The graph that a large knowledge base of these vectors has, and exact search beside it."""
    folder.mkdir()
    size, dimension = vectors.shape
    rows = np.arange(1, size + 1, dtype=np.int64)
    manifest = Manifest(FORMAT, "scale", "table", dimension, 80, 1, 0, "0", size, size)
    wall, cpu = time.perf_counter(), time.process_time()
    build_cached(folder, manifest, rows, vectors, IndexSettings(flat=0))
    built = {"build_s": round(time.perf_counter() - wall, 2), "build_cpu_s": round(time.process_time() - cpu, 2)}
    note = read_note(folder)
    del vectors
    before = psutil.Process().memory_info().rss
    cached = load_cached(folder, manifest)
    if cached is None:
        return {**built, "note": note, "index": "none: recall stays below what is asked"}
    graph = Segment(cached.index, rows, rows)
    storage: Any = faiss
    exact = Segment(storage.downcast_index(cached.index.storage), rows, rows)
    nearest = _scores(exact, questions)
    found = {
        **built,
        "megabytes_of_file": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 2),
        "megabytes_to_search": round((psutil.Process().memory_info().rss - before) / 1e6, 1),
        "megabytes_at_most": _peak(),
        "ef_search": cached.breadth,
        "recall_at_10_of_stored": cached.recall,
        "recall_at_10_of_questions": round(share_found(nearest, _scores(graph, questions)), 4),
        "search_ms": _searched(graph, questions),
        "exact_ms": _searched(exact, questions),
    }
    if found["recall_at_10_of_questions"] < _LEAST:
        for breadth in _BREADTHS:
            cached.index.hnsw.efSearch = breadth
            recall = share_found(nearest, _scores(graph, questions))
            if recall >= _LEAST:
                break
        found["broad_enough_for_questions"] = {
            "ef_search": breadth,
            "recall_at_10_of_questions": round(recall, 4),
            "search_ms": _searched(graph, questions),
        }
    shutil.rmtree(folder)
    return found


def _peak() -> float | None:
    """The most memory that this process has had; what `getrusage` says would be of its parent too."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) * 1024 / 1e6, 1) for line in lines if line.startswith("VmHWM")), None)


def _scores(segment: Segment, questions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The similarities of the ten best of each question, best first."""
    found = [sorted((score for _, score in segment.search(question, 10, None)), reverse=True) for question in questions]
    return np.array([scores + [-1.0] * (10 - len(scores)) for scores in found], dtype=np.float32)


def _searched(segment: Segment, questions: NDArray[np.float32]) -> dict[str, float]:
    """Median and 99th percentile of a search in milliseconds, and the median of the processor's time."""
    times = []
    for question in np.tile(questions, (_ROUNDS, 1)):
        wall, cpu = time.perf_counter(), time.thread_time()
        segment.search(question, 10, None)
        times.append((time.perf_counter() - wall, time.thread_time() - cpu))
    measured = np.array(times) * 1000
    return {**percentiles(measured[:, 0], 3), "cpu_p50": round(float(np.median(measured[:, 1])), 3)}


def _embedded(options: argparse.Namespace) -> tuple[NDArray[np.float32], list[str], NDArray[np.float32], list[str]]:
    """Vectors and texts of passages, each once, and of questions, evenly out of all sets."""
    from classifier.encoder import load_encoder
    from classifier.types import MINILM
    from rag.chunking import embedding_text, passages
    from rag.encoders import SentenceEncoder
    from training.grounding.embedding_cache import CachedEncoder
    from training.grounding.retrieval_rows import read_retrieval

    saved = options.work / "scale.npz"
    if options.one:
        found = np.load(saved)
        return found["real"], found["texts"].tolist(), found["questions"], found["asked"].tolist()
    sets = [read_retrieval(path) for path in options.data]
    cut = {
        embedding_text(document, passage): passage.text
        for part in sets
        for document in part.documents
        for passage in passages(document)
    }
    asked = list(dict.fromkeys(query.text for part in sets for query in part.queries))
    base = load_encoder(MINILM)
    sentences = SentenceEncoder.load(base.path, sha256=base.sha256, model=base.lend())
    encoder = CachedEncoder(sentences, options.work / "embeddings.db")
    if options.known:
        cut = {read: text for read, text in cut.items() if encoder.has(read)}
        asked = [question for question in asked if encoder.has(question, asks=True)]
        if len(cut) < 100 or not asked:
            raise SystemExit(f"{options.work} holds too few embeddings; leave --known out")
    count = min(options.questions, len(asked))
    asked = [asked[place * len(asked) // count] for place in range(count)]
    every = encoder.encode(list(cut))
    unlike = np.sort(np.unique(every, axis=0, return_index=True)[1])
    real, texts = every[unlike], np.array(list(cut.values()))[unlike]
    questions = encoder.encode_queries(asked)
    np.savez(saved, real=real, texts=texts, questions=questions, asked=np.array(asked))
    return real, texts.tolist(), questions, asked


if __name__ == "__main__":
    main()
