"""Measure how well passages are found: by vectors, by words and by both, each question against its own documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.mode import Mode
from rag.schema import corpus_hash
from rag.store import KnowledgeBase
from rag.types import Document, Encoder
from rag.write import Writer
from training.grounding.retrieval_rows import Query, RetrievalSet
from training.intervals import interval, mean

_PASSAGES = 50  # looked at for a question; its documents are in the order of their best passage
_DEEP = 10  # documents that count
_BATCH = 64  # documents in a commit
_NAMES = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")

Orders = Mapping[str, Sequence[Sequence[str]]]  # kind of search to the documents found for each question, best first
Told = Callable[[int], object]


def build_base(documents: Sequence[Document], work: Path, encoder: Encoder, told: Told | None = None) -> Path:
    """A knowledge base of the documents below `work`; one that is there already is gone on with.

    Args:
        documents: of a set.
        work: a folder, made if it is not there.
        encoder: of the base.
        told: hears how many more documents are stored.
    """
    corpus = corpus_hash((document.id, document.version) for document in documents)
    folder = work / f"{corpus[:16]}-{encoder.fingerprint[:16]}"
    work.mkdir(parents=True, exist_ok=True)
    with Writer(folder, encoder) as writer:
        for at in range(0, len(documents), _BATCH):
            writer.change(documents[at : at + _BATCH])
            if told:
                told(len(documents[at : at + _BATCH]))
    return folder


def search_all(knowledge: KnowledgeBase, queries: Sequence[Query]) -> Orders:
    """The ten best documents for each question in each mode, from the same search that an answer begins with."""
    with knowledge.view() as view:
        return {
            mode.value: [
                list(dict.fromkeys(found.passage.document for found in view.search(query.text, _PASSAGES, mode=mode)))[
                    :_DEEP
                ]
                for query in queries
            ]
            for mode in Mode
        }


def evaluate_retrieval(part: RetrievalSet, knowledge: KnowledgeBase, *, seed: int) -> dict[str, Any]:
    """Figures ready for JSON, over the half of the questions that settings are chosen on and the one that is reported.

    Of each half: recall@1, 5 and 10, MRR@10 and nDCG@10 for each mode, paired differences of the hybrid order and its
    parts, and two controls: documents in random order, and the hybrid order held against another question's documents.
    By language and by source where there are several. Intervals are over samples of documents with their questions.
    """
    orders = search_all(knowledge, part.queries)
    manifest = knowledge.manifest
    found: dict[str, Any] = {
        "documents": manifest.documents,
        "passages": manifest.passages,
        "corpus": manifest.corpus,
        "encoder": manifest.encoder,
    }
    names = [document.id for document in part.documents]
    for half, chosen in (("chosen_on", True), ("reported_on", False)):
        at = [place for place, query in enumerate(part.queries) if query.chosen_on is chosen]
        if at:
            found[half] = _half([part.queries[place] for place in at], _of(orders, at), names, seed)
    return found


def scores(order: Sequence[str], relevant: frozenset[str]) -> list[float]:
    """recall@1, recall@5, recall@10, MRR@10 and nDCG@10 (binary gains) of one order of documents."""
    hits = [name in relevant for name in order[:_DEEP]]
    recalls = [sum(hits[:depth]) / len(relevant) for depth in (1, 5, 10)]
    reciprocal = next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
    gain = sum(1 / np.log2(rank + 1) for rank, hit in enumerate(hits, 1) if hit)
    ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(relevant), _DEEP) + 1))
    return [*recalls, reciprocal, float(gain / ideal)]


def _half(queries: Sequence[Query], orders: Orders, names: Sequence[str], seed: int) -> dict[str, Any]:
    groups = [min(query.relevant) for query in queries]
    measured = {kind: _scores(found, queries) for kind, found in orders.items()}
    rng = np.random.default_rng(seed)
    randomly = [[names[place] for place in rng.permutation(len(names))[:_DEEP]] for _ in queries]
    others = [queries[place] for place in _elsewhere(groups)]
    controls = {
        "random_order": _scores(randomly, queries),
        "shuffled_relevance": _scores(orders[Mode.HYBRID.value], others),
    }
    hybrid = measured[Mode.HYBRID.value]
    said: dict[str, Any] = {"queries": len(queries)}
    said |= {kind: _figures(values, groups, seed) for kind, values in measured.items()}
    for kind in (Mode.DENSE.value, Mode.BM25.value):
        said[f"hybrid_minus_{kind}"] = _figures(hybrid - measured[kind], groups, seed)
    said["controls"] = {kind: _figures(values, groups, seed) for kind, values in controls.items()}
    for name, of_each in (("by_language", [q.language for q in queries]), ("by_source", [q.source for q in queries])):
        if len(set(of_each)) > 1:
            said[name] = {value: _brief(measured, [v == value for v in of_each]) for value in sorted(set(of_each))}
    return said


def _scores(orders: Iterable[Sequence[str]], queries: Sequence[Query]) -> NDArray[np.float64]:
    return np.array([scores(order, query.relevant) for order, query in zip(orders, queries, strict=True)])


def _figures(values: NDArray[np.float64], groups: Sequence[str], seed: int) -> dict[str, Any]:
    return {
        name: interval(mean(values[:, place]), len(values), seed=seed, groups=groups)
        for place, name in enumerate(_NAMES)
    }


def _brief(measured: Mapping[str, NDArray[np.float64]], at: Sequence[bool]) -> dict[str, Any]:
    """Without intervals."""
    means = {kind: values[np.array(at)].mean(axis=0) for kind, values in measured.items()}
    return {
        "queries": sum(at),
        **{kind: {n: round(float(v), 4) for n, v in zip(_NAMES, found, strict=True)} for kind, found in means.items()},
    }


def _elsewhere(groups: Sequence[str]) -> list[int]:
    """For each question the place of another, which is about another document unless half of all are about one."""
    order = sorted(range(len(groups)), key=lambda place: groups[place])
    half = len(order) // 2
    return [other for _, other in sorted(zip(order, order[half:] + order[:half], strict=True))]


def _of(orders: Orders, at: Sequence[int]) -> Orders:
    return {kind: [found[place] for place in at] for kind, found in orders.items()}
