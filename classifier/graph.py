"""Run an exported graph in ONNX Runtime or OpenVINO, without PyTorch."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.exported import EXPORT_AGAIN, Kind, Precision
from classifier.inputs import Embeddings
from classifier.runtime import Runtime
from classifier.types import ClassifierError

ONNX_GRAPH, OPENVINO_GRAPH = "graph.onnx", "graph.xml"
EMBEDDED, MASK, LOGITS = "inputs_embeds", "attention_mask", "logits"


class _Graph(ABC):
    """An exported graph in a library that runs it (`classifier.runtime.Runtime`); safe to call from several threads.

    Args:
        folder: with the graph.
        precision: that its products are asked for in.
        embeddings: of the same export.
        longest: tokens of the longest row.
        threads: that one call uses.
    """

    def __init__(
        self, folder: Path, precision: Precision, embeddings: Embeddings, longest: int | None, threads: int
    ) -> None:
        self.name = folder.name
        self.longest = longest
        self.categories = self._open(folder, precision, threads)
        self._embeddings = embeddings

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Category logits of rows of token ids."""
        embedded, mask = self._embeddings.collate(rows)
        return np.asarray(self._run({EMBEDDED: embedded, MASK: mask}), dtype=np.float64)

    @abstractmethod
    def _open(self, folder: Path, precision: Precision, threads: int) -> int:
        """Load the graph; returns how many categories it tells apart."""

    @abstractmethod
    def _run(self, inputs: dict[str, NDArray[Any]]) -> ArrayLike:
        """The logits of a batch."""


class OnnxRuntime(_Graph):
    """A graph in ONNX Runtime."""

    def _open(self, folder: Path, precision: Precision, threads: int) -> int:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / ONNX_GRAPH), options, providers=["CPUExecutionProvider"]
        )
        return int(self._session.get_outputs()[0].shape[1])

    def _run(self, inputs: dict[str, NDArray[Any]]) -> ArrayLike:
        (logits,) = self._session.run([LOGITS], inputs)
        return logits  # type: ignore[no-any-return]


class OpenVinoRuntime(_Graph):
    """A graph in OpenVINO; each thread that calls has a request of its own."""

    def _open(self, folder: Path, precision: Precision, threads: int) -> int:
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Elsewhere activations stay as they were in training, on any machine.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        self._model = openvino.Core().compile_model(str(folder / OPENVINO_GRAPH), "CPU", settings)
        self._of_thread = threading.local()
        return int(self._model.output(0).get_partial_shape()[1].get_length())

    def _run(self, inputs: dict[str, NDArray[Any]]) -> ArrayLike:
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._model.create_infer_request()
        return self._of_thread.request.infer(inputs)[0]  # type: ignore[no-any-return]


def open_graph(
    kind: Kind, precision: Precision, folder: Path, embeddings: Embeddings, longest: int | None, threads: int
) -> Runtime:
    """The runtime of an exported graph.

    Raises:
        ClassifierError: the library cannot read it.
    """
    runtime = OnnxRuntime if kind == "onnx" else OpenVinoRuntime
    try:
        return runtime(folder, precision, embeddings, longest, threads)
    except Exception as exc:
        raise ClassifierError(f"{folder} cannot be opened by {kind}: {exc}; {EXPORT_AGAIN}") from exc
