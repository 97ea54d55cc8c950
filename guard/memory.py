"""Remember verdicts, so that each turn of a long conversation is judged once and not with every request."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

from classifier.types import Verdict
from guard.sound import sound_verdicts
from guard.types import Classifier


class RememberingClassifier:
    """A classifier that keeps its latest verdicts by the SHA-256 of the text; safe to call from several threads.

    Args:
        classifier: the one that judges.
        capacity: verdicts kept; the one unused for longest goes first.
    """

    def __init__(self, classifier: Classifier, capacity: int) -> None:
        self._classifier = classifier
        self._capacity = capacity
        self._known: OrderedDict[bytes, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order; only unknown texts are judged, and only sound verdicts kept."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new:
            found.update(zip(new, sound_verdicts(self._classifier.classify(list(new.values())), len(new)), strict=True))
        with self._lock:
            for key in keys:
                self._known[key] = found[key]
                self._known.move_to_end(key)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return [found[key] for key in keys]
