"""The whole store at one size: how fast it takes documents and answers queries, and that no commit tears a query."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import percentiles

from rag.documents import version
from rag.index import reindex
from rag.mode import Mode
from rag.store import KnowledgeBase
from rag.types import Document, KnowledgeError
from rag.write import Writer

_BATCH = 64  # documents in a commit, as `kb sync` stores those of a list
_SINGLE = 50  # commits of one document each
_PAIR = ("pair/one", "pair/two")  # are changed together, always


@dataclass(frozen=True, slots=True)
class Table:
    """An `rag.types.Encoder` that looks vectors up, so that only the store is measured.

    Attributes:
        vectors: unit vectors; a document titled N has the Nth.
        questions: the vector of each question.
    """

    vectors: NDArray[np.float32]
    questions: Mapping[str, NDArray[np.float32]]
    fingerprint: str = "table"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def floor(self) -> float:
        """Cosines as they are."""
        return 0.0

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same as for passages."""
        return self.encode(texts)

    encode_asks = encode_queries

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Shape ``(texts, dimension)``."""
        found = [self.questions[text] if text in self.questions else self.of(text) for text in texts]
        return np.array(found, dtype=np.float32).reshape(len(texts), self.dimension)

    def of(self, text: str) -> NDArray[np.float32]:
        """The vector that a text's first line names; the first one for other texts."""
        number = text.partition("\n")[0]
        return np.asarray(self.vectors[int(number) % len(self.vectors) if number.isdecimal() else 0])


def measure_store(
    folder: Path, table: Table, texts: Sequence[str], size: int, *, seconds: float, readers: int
) -> dict[str, Any]:
    """Figures ready for JSON of a store of `size` documents, each of about one passage.

    Args:
        folder: where nothing is.
        table: has the vectors.
        texts: of passages; taken again from the first when there are too few.
        size: how many documents.
        seconds: that readers query while a writer commits.
        readers: threads.
    """
    taken = []
    with Writer(folder, table) as writer:
        for at in range(0, size, _BATCH):
            documents = [_document(f"d{n}", n, texts[n % len(texts)]) for n in range(at, min(at + _BATCH, size))]
            taken.append((len(documents), _timed(lambda some=documents: writer.change(some))))  # type: ignore[misc]
        single = [
            _timed(lambda n=n: writer.change([_document(f"d{n}", n, texts[n % len(texts)])]))  # type: ignore[misc]
            for n in range(size, size + _SINGLE)
        ]
    started = time.perf_counter()
    reindex(folder)
    indexed = time.perf_counter() - started
    started = time.perf_counter()
    knowledge = KnowledgeBase.open(folder, table)
    opened = time.perf_counter() - started
    statistics = knowledge.statistics()
    found = {
        "documents": statistics.documents,
        "passages": statistics.passages,
        "index": statistics.index,
        "megabytes_on_disk": round(statistics.bytes / 1e6, 2),
        "documents_per_s": _rate(taken),
        "documents_per_s_of_each_tenth": [_rate(part) for part in _tenths(taken)],
        "commit_of_one_ms": _spread(single),
        "reindex_s": round(indexed, 3),
        "open_s": round(opened, 3),
        "search_ms": {mode.value: _searches(knowledge, list(table.questions), mode) for mode in Mode},
        "swap": _swap(knowledge, table, seconds=seconds, readers=readers),
    }
    knowledge.close()
    return found


def _swap(knowledge: KnowledgeBase, table: Table, *, seconds: float, readers: int) -> dict[str, Any]:
    """Readers check that texts, words and vectors of a view are of one commit, while a writer changes two documents."""
    questions = list(table.questions)
    with Writer(knowledge.folder, table) as writer:
        first = writer.change([_state(name, 0) for name in _PAIR]).generation
    stop = threading.Event()
    failures: list[str] = []
    latencies: list[float] = []
    fresh: list[float] = []
    commits = 0

    def write() -> None:
        nonlocal commits
        with Writer(knowledge.folder, table) as writer:
            while not stop.is_set():
                writer.change([_state(name, commits + 1) for name in _PAIR])
                committed = time.perf_counter()
                commits += 1
                if not knowledge.search(f"{commits}", 1, document=_PAIR[0])[0].score > 1 - 1e-5:
                    failures.append(f"commit {commits} was not found at once")
                fresh.append(time.perf_counter() - committed)

    def read(number: int) -> None:
        at = number
        while not stop.is_set():
            started = time.perf_counter()
            with knowledge.view() as view:
                found = view.search(questions[at % len(questions)], 10)
                latencies.append(time.perf_counter() - started)
                state = view.generation - first
                texts = {view.document(name).text for name in _PAIR}
                nearest = view.search(f"{state}", 1, document=_PAIR[0])[0]
                words = view.search(f"state{state}", 1, document=_PAIR[1], mode=Mode.BM25)
                torn = (
                    texts != {_state(_PAIR[0], state).text}
                    or nearest.score < 1 - 1e-5
                    or not words
                    or len(found) < 10
                    or any(view.document(item.passage.document).version != item.passage.version for item in found)
                )
            if torn:
                failures.append(f"torn at state {state}")
            at += readers

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except (KnowledgeError, AttributeError, IndexError, ValueError) as exc:
            failures.append(repr(exc))

    threads = [threading.Thread(target=guarded, args=(write,))]
    threads += [threading.Thread(target=guarded, args=(lambda n=n: read(n),)) for n in range(readers)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return {
        "readers": readers,
        "seconds": seconds,
        "commits": commits,
        "queries": len(latencies),
        "failed_or_torn": len(failures),
        "examples": failures[:3],
        "search_ms": _spread(latencies),
        "commit_to_found_ms": _spread(fresh),
    }


def _searches(knowledge: KnowledgeBase, questions: Sequence[str], mode: Mode) -> dict[str, float]:
    """Median and 99th percentile of a search in milliseconds, and the median of the processor's time."""
    for question in questions[:10]:
        knowledge.search(question, 10, mode=mode)
    wall, cpu = [], []
    for question in questions:
        busy = time.thread_time()
        wall.append(_timed(lambda question=question: knowledge.search(question, 10, mode=mode)))  # type: ignore[misc]
        cpu.append(time.thread_time() - busy)
    return {**_spread(wall), "cpu_p50": round(float(np.median(cpu)) * 1000, 3)}


def _state(name: str, number: int) -> Document:
    return _document(name, number, f"This is state{number} of the pair.")


def _document(name: str, number: int, text: str) -> Document:
    title = str(number)
    return Document(name, version(title, {}, text), title, text, {})


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _tenths(taken: Sequence[tuple[int, float]]) -> list[Sequence[tuple[int, float]]]:
    cuts = [len(taken) * part // 10 for part in range(11)]
    return [taken[start:end] for start, end in itertools.pairwise(cuts) if end > start]


def _rate(taken: Sequence[tuple[int, float]]) -> float:
    return round(sum(count for count, _ in taken) / sum(seconds for _, seconds in taken), 1)


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds; nothing of nothing."""
    return percentiles([1000 * each for each in seconds], 3) if seconds else {}
