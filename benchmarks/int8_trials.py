"""How far int8 moves the verdicts of the shipped classifier, by what is rounded and how: rounding is simulated.

Weights of the encoder's matrices are rounded with one scale an output, activations in one of four ways, with and
without moving outliers into the weights (SmoothQuant, Xiao et al., arXiv 2211.10438), in all layers or in one kind
alone. Writes `results/classifier_int8.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifier.encoder import load_encoder
from classifier.export import compare, merged
from classifier.model import TierClassifier
from classifier.network import TorchRuntime, network_of
from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_MODEL
from guard.cli.export import AUTHORED
from training.manifest import adapter_sha256, command, provenance, write_json

ACTIVATIONS = ("token", "block", "batch", "calibrated")
BLOCK = 32


class Rounded:
    """A matrix product whose weights and inputs are rounded as asked; as it was until then.

    Args:
        layer: the product.
        kind: which of an encoder layer's: ``qkv``, ``attention``, ``up`` or ``down``.
    """

    def __init__(self, layer: nn.Linear, kind: str) -> None:
        self.layer, self.kind = layer, kind
        self._exact = layer.weight.detach().clone()
        self.most = torch.zeros(layer.in_features)  # of each input, over calibration texts
        self._activations: str | None = None
        self._smooth: Tensor | None = None
        self.calibrating = False
        layer.register_forward_pre_hook(self._inputs)

    def set(self, activations: str | None, smooth: float | None, levels: int) -> None:
        """Round from now on: weights to whole numbers up to `levels`, activations in one of the ways, or not."""
        self._activations, self._smooth = activations, None
        if smooth is not None:
            weights = self._exact.abs().amax(0).clamp(min=1e-5)
            self._smooth = self.most.clamp(min=1e-5) ** smooth / weights ** (1 - smooth)
        moved = self._exact if self._smooth is None else self._exact * self._smooth
        whole = _round(moved, moved.abs().amax(1, keepdim=True) / levels, levels)
        self.layer.weight.copy_(whole if self._smooth is None else whole / self._smooth)

    def reset(self) -> None:
        """No rounding."""
        self._activations = None
        self.layer.weight.copy_(self._exact)

    def _inputs(self, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        values = given[0]
        if self.calibrating:
            self.most = torch.maximum(self.most, values.flatten(0, -2).abs().amax(0))
        if self._activations is None:
            return None
        smooth = torch.ones(()) if self._smooth is None else self._smooth
        values = values / smooth
        if self._activations == "block":
            blocks = values.unflatten(-1, (-1, BLOCK))
            values = _round(blocks, blocks.abs().amax(-1, keepdim=True) / 127).flatten(-2)
        else:
            largest = {
                "token": lambda: values.abs().amax(-1, keepdim=True),
                "batch": lambda: values.abs().max(),
                "calibrated": lambda: (self.most / smooth).max(),
            }[self._activations]()
            values = _round(values, largest / 127)
        return (values * smooth,)


def _round(values: Tensor, scale: Tensor, levels: int = 127) -> Tensor:
    scale = scale.clamp(min=1e-12)
    return torch.clamp(torch.round(values / scale), -levels, levels) * scale


def _kind(name: str) -> str | None:
    if ".layer." not in name:
        return None
    parts = {"attention.self": "qkv", "attention.output": "attention", "intermediate": "up", "output": "down"}
    return next(kind for part, kind in parts.items() if part in name)


@torch.no_grad()
def trials(classifier: TierClassifier, texts: Sequence[str], calibration: Sequence[str]) -> list[dict[str, Any]]:
    """Each way of rounding with what it moves."""
    found: list[dict[str, Any]] = []
    exact = classifier.classify(texts)
    layers = [
        Rounded(module, kind)
        for name, module in network_of(classifier.runtime).named_modules()
        if isinstance(module, nn.Linear) and (kind := _kind(name))
    ]
    for layer in layers:
        layer.calibrating = True
    classifier.classify(calibration)
    for layer in layers:
        layer.calibrating = False

    def tried(kind: str, activations: str | None, smooth: float | None = None, levels: int = 127) -> None:
        for layer in layers:
            if kind in ("all", layer.kind):
                layer.set(activations, smooth, levels)
            else:
                layer.reset()
        drift = compare(exact, classifier.classify(texts))
        row = {"layers": kind, "levels": levels, "activations": activations or "exact", "smoothquant": smooth}
        found.append({**row, "largest": drift.largest, "p99": drift.p99, "tiers_changed": drift.tiers_changed})
        print(json.dumps(found[-1]), flush=True)

    tried("all", None)
    tried("all", None, levels=63)
    for activations in ACTIVATIONS:
        for smooth in (None, 0.5):
            tried("all", activations, smooth)
    for kind in ("qkv", "attention", "up", "down"):
        for activations, smooth in (("token", None), ("token", 0.5), ("calibrated", 0.5)):
            tried(kind, activations, smooth)
    return found


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/classifier_int8.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = sorted({json.loads(line)["text"] for line in AUTHORED.read_text(encoding="utf-8").splitlines()})
    random.Random(options.seed).shuffle(texts)
    encoder = load_encoder(ClassifierSettings.load(SHIPPED_MODEL).encoder)
    shipped = TierClassifier.load(SHIPPED_MODEL, encoder)
    runtime = TorchRuntime(merged(network_of(shipped.runtime)), encoder)
    classifier = TierClassifier(runtime, encoder, shipped.taxonomy, shipped.settings)
    found = trials(classifier, texts[: options.texts], texts[options.texts : options.texts + 160])
    write_json(
        options.out,
        {
            "command": command("python benchmarks/int8_trials.py"),
            "adapter_sha256": adapter_sha256(SHIPPED_MODEL),
            "texts": options.texts,
            "trials": found,
            **provenance(seed=options.seed, data=[AUTHORED]),
        },
    )


if __name__ == "__main__":
    main()
