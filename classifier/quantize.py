"""Store the weights of an exported graph in int8 where the verdicts bear it; activations stay in single precision.

Int8 activations move the probabilities of the shipped model by 0.07 and more however they are scaled (docs/log.md), so
only weights are rounded: symmetric, one scale for each output. How much each matrix moves the probabilities when it
alone is rounded is measured on calibration texts; then as many as possible are rounded, the harmless ones first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.calibration import Calibration
from classifier.graph import LOGITS

_LEVELS = 127
_BEARABLE = 0.007  # on a few texts that are easily moved, so that a thousand stay below `MAX_DRIFT`
Weights = NDArray[np.float32]


def quantized(graph: Path, batches: Sequence[Mapping[str, Any]], calibration: Calibration) -> str:
    """Rewrite a graph with int8 weights.

    Args:
        graph: the file, which is replaced.
        batches: inputs of the graph, of calibration texts; best such as the model is least sure of.
        calibration: makes logits probabilities.

    Returns:
        What was done, in words.
    """
    import onnx

    model = onnx.load(str(graph))
    weights = _weights(model)
    rounded = {name: _rounded(value) for name, value in weights.items()}
    probe = _Probe(model, weights, batches, calibration)
    chosen = _bearable(probe, {name: whole * scales for name, (whole, scales) in rounded.items()})
    _replace(model, {name: rounded[name] for name in chosen})
    onnx.save(model, str(graph))
    return f"weights of {len(chosen)} of {len(weights)} matrices in int8, one scale an output, activations in fp32"


def _weights(model: Any) -> dict[str, Weights]:  # noqa: ANN401 - an onnx.ModelProto
    """The constant matrices that something is multiplied with, ``(inputs, outputs)``."""
    from onnx import numpy_helper

    constant = {each.name: each for each in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constant]
    found = {name: numpy_helper.to_array(constant[name]) for name in names}
    return {name: value for name, value in found.items() if value.ndim == 2}


def _rounded(weight: Weights) -> tuple[NDArray[np.int8], Weights]:
    """Whole numbers, and the scale of each output."""
    scales = np.abs(weight).max(axis=0) / _LEVELS
    scales[scales == 0] = 1.0
    return np.round(weight / scales).astype(np.int8), scales.astype(np.float32)


def _bearable(run: _Probe, rounded: Mapping[str, Weights]) -> list[str]:
    """The matrices that may be rounded together."""
    exact = run({})

    def moved(names: Sequence[str]) -> float:
        return float(np.abs(run({name: rounded[name] for name in names}) - exact).max())

    order = sorted(rounded, key=lambda name: moved([name]))
    fits, fails = 0, len(order) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if moved(order[:middle]) <= _BEARABLE:
            fits = middle
        else:
            fails = middle
    return order[:fits]


class _Probe:
    """Probabilities of calibration texts under other weights; one session, which is given its weights with each run."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - an onnx.ModelProto
        weights: Mapping[str, Weights],
        batches: Sequence[Mapping[str, Any]],
        calibration: Calibration,
    ) -> None:
        import onnx
        import onnxruntime

        open_ended = onnx.ModelProto()
        open_ended.CopyFrom(model)
        kept = [each for each in open_ended.graph.initializer if each.name not in weights]
        del open_ended.graph.initializer[:]
        open_ended.graph.initializer.extend(kept)
        for name, value in weights.items():
            kind = onnx.TensorProto.FLOAT
            open_ended.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            open_ended.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._weights = weights
        self._batches = batches
        self._calibration = calibration

    def __call__(self, other: Mapping[str, Weights]) -> NDArray[np.float64]:
        weights = {**self._weights, **other}
        found = [self._session.run([LOGITS], {**batch, **weights})[0] for batch in self._batches]
        return self._calibration.probabilities(np.concatenate(found).astype(np.float64))


def _replace(model: Any, rounded: Mapping[str, tuple[NDArray[np.int8], Weights]]) -> None:  # noqa: ANN401
    """Put integers and scales into the graph in place of weights; what multiplies them reads ``NAME``, as before."""
    from onnx import helper, numpy_helper

    kept = [each for each in model.graph.initializer if each.name not in rounded]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    opened = []
    for name, (whole, scales) in rounded.items():
        model.graph.initializer.append(numpy_helper.from_array(whole, f"{name}.int8"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scale"))
        opened.append(helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=1))
    nodes = [*opened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
