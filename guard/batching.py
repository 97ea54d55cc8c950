"""Short texts of requests that wait at the same time are judged together, which takes less time than one by one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from classifier.pace import paced
from classifier.types import Verdict
from guard.runner import Runner

log = logging.getLogger("airlock")

SHORT = 600  # characters of a request that may share a batch
TOGETHER = 2_000  # characters of a batch: about what one slice of a long text costs


class Batches:
    """Classifies requests in a runner; a short one takes along the short ones that wait when its turn comes.

    Nobody waits for a batch to fill: a request alone is judged at once. Where a batch fails, each of its requests is
    judged alone, so that one text does no harm to others.

    Args:
        runner: whose turn it is, and until when.
        classify: one verdict for each text, in order; called in the runner's threads.
    """

    def __init__(self, runner: Runner, classify: Callable[[Sequence[str]], list[Verdict]]) -> None:
        self._runner = runner
        self._classify = classify
        self._lock = threading.Lock()
        self._waiting: dict[_Request, None] = {}  # in order

    async def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order.

        Raises:
            PartFailure: the classifier failed or was late.
            BadRequest: the texts are too long.
        """
        work = sum(map(len, texts))
        if work > SHORT:
            return await self._runner.run(self._classify, texts, work=work)
        request = _Request(texts, work)
        with self._lock:
            self._waiting[request] = None
        try:
            return await self._runner.run(self._judge, request, work=work)
        finally:
            with self._lock:
                self._waiting.pop(request, None)

    def _judge(self, request: _Request) -> list[Verdict]:
        """In the thread of a request whose turn has come."""
        with self._lock:
            batch = self._batch(request)
        if not batch:  # another has taken it along
            request.settled.wait()
        elif len(batch) > 1:
            self._judge_together(batch)
        return self._classify(request.texts) if request.verdicts is None else request.verdicts

    def _batch(self, request: _Request) -> list[_Request]:
        if request not in self._waiting:
            return []
        del self._waiting[request]
        batch, size = [request], request.work
        for other in list(self._waiting):
            if size + other.work <= TOGETHER:
                del self._waiting[other]
                batch.append(other)
                size += other.work
        return batch

    def _judge_together(self, batch: Sequence[_Request]) -> None:
        try:
            with paced(None):  # a turn given up between two slices could go to one that waits for this very batch
                verdicts = self._classify([text for request in batch for text in request.texts])
            for request in batch:
                request.verdicts, verdicts = verdicts[: len(request.texts)], verdicts[len(request.texts) :]
        except Exception as exc:  # noqa: BLE001 - each is judged alone then, and fails by its own fault or not at all
            log.info("a batch of %d requests is judged one by one: %s", len(batch), type(exc).__name__)
        finally:
            for request in batch:
                request.settled.set()


class _Request:
    """A short request on its way; hashed by identity."""

    __slots__ = ("settled", "texts", "verdicts", "work")

    def __init__(self, texts: Sequence[str], work: int) -> None:
        self.texts = texts
        self.work = work
        self.verdicts: list[Verdict] | None = None
        self.settled = threading.Event()
