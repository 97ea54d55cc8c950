"""Keep what is not a matrix product in single precision where an OpenVINO graph runs in bf16.

In bf16 a value has eight binary digits. Products bear that, sums over a whole text's layers less: with the residual
stream, biases and normalizations in single precision too, probabilities move a third less (docs/decisions/0027).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

_KEPT = frozenset({"Add", "Multiply", "MVN", "Subtract", "Divide"})


def in_single_precision(graph: Path) -> str:
    """Mark the sums, scalings and normalizations of a graph file: no precision that is asked for holds for them.

    Returns:
        What was done, in words.
    """
    tree = ElementTree.parse(graph)
    for layer in tree.getroot().iterfind("layers/layer"):
        if layer.get("type") in _KEPT:
            told = layer.find("rt_info")
            if told is None:
                told = ElementTree.Element("rt_info")
                layer.insert(1 if layer.find("data") is not None else 0, told)
            ElementTree.SubElement(told, "attribute", name="precise", version="0")
    tree.write(graph)
    return "matrix products in bf16, sums and normalizations in fp32"
