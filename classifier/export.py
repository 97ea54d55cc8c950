"""Export a classifier: merge its adapter, write the graph, compare it with PyTorch, and keep it only if they agree."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as TokenizerFile
from torch import Tensor, nn

from classifier.encoder import Encoder
from classifier.exported import (
    INPUTS,
    LIBRARY,
    PRECISIONS,
    Drift,
    ExportCache,
    Kind,
    Precision,
    RuntimeManifest,
)
from classifier.graph import EMBEDDED, LOGITS, MASK, ONNX_GRAPH, OPENVINO_GRAPH, open_graph
from classifier.inputs import PIECES, SCORES, SPECIAL, TOKENIZER, Embeddings, ExportedTokenizer
from classifier.mixed import in_single_precision
from classifier.model import TierClassifier
from classifier.network import TierModel, network_of
from classifier.processor import features
from classifier.quantize import quantized
from classifier.types import ClassifierError, Verdict

FEWEST_TEXTS = 200  # below, half a percent of changed tiers is not even one text
_OPSET = 18
_TIMED_TOKENS = 28  # 30 with the special ones
_TIMED_RUNS = 30
_ROWS = 8
_WEIGHT_BYTES = 4096
_CALIBRATED = 48


class Exporter:
    """Exports one classifier to the runtimes asked for.

    Args:
        classifier: runs in PyTorch; is left as it is.
        encoder: that it sits on.
        cache: takes the exports.
        texts: on which a runtime has to agree with PyTorch.
        calibration: other texts; int8 is fitted to those that the model is least sure of.
        threads: that a runtime is timed with.
    """

    def __init__(
        self,
        classifier: TierClassifier,
        encoder: Encoder,
        cache: ExportCache,
        *,
        texts: Sequence[str],
        calibration: Sequence[str],
        threads: int = 1,
    ) -> None:
        if len(texts) < FEWEST_TEXTS:
            raise ClassifierError(
                f"{len(texts)} texts to compare on; an export needs at least {FEWEST_TEXTS}: give more by `--data` and "
                "`--texts`"
            )
        self._classifier = classifier
        self._encoder = encoder
        self._cache = cache
        self._texts = texts
        self._calibration = calibration
        self._threads = threads
        self._expected: list[Verdict] = []
        self._graphs: dict[str, tuple[bytes, str]] = {}

    def inputs(self) -> Path:
        """Write tokenizer and embedding table, unless they are there and sound.

        Raises:
            ClassifierError: the exported tokenizer reads a text in another way than the encoder's own.
        """
        try:
            return self._cache.inputs()
        except ClassifierError:
            with self._cache.writing(INPUTS, ("tokenizers",), {}) as folder:
                write_tokenizer(self._encoder, folder)
                table = _table(self._encoder.model).detach().half().numpy()
                Embeddings.write(table, folder)
                tokenizer = ExportedTokenizer.load(folder, self._encoder.name)
                for text in self._texts:
                    if tokenizer.split(text) != tuple(self._encoder.split(text)):
                        raise ClassifierError(
                            f"the tokenizer of encoder {self._encoder.name!r} cannot be exported: it reads a text "
                            "in another way there; set `classifier.runtime: torch`"
                        ) from None
        return self._cache.folder / INPUTS

    def export(self, kind: Kind, precision: Precision) -> RuntimeManifest:
        """Write one runtime and compare it with PyTorch.

        Returns:
            What is known of it; also in a JSON file in its folder, with the graph only if the drift is bearable.

        Raises:
            ClassifierError: the graph cannot be written or opened, there is no such runtime, or int8 has no texts.
        """
        if precision not in PRECISIONS[kind]:
            raise ClassifierError(f"{kind} has no {precision}; it has {' and '.join(PRECISIONS[kind])}")
        if precision == "int8" and not self._calibration:
            raise ClassifierError(
                f"int8 is fitted to other texts than the {len(self._texts)} compared on, and there are no others; give "
                "more by `--data`, or the precisions without it by `--precision`"
            )
        tokenizer = ExportedTokenizer.load(self.inputs(), self._encoder.name)
        embeddings = Embeddings(self._cache.folder / INPUTS, tokenizer)
        said: dict[str, Any] = {}
        with self._cache.writing(f"{kind}-{precision}", (LIBRARY[kind],), said) as folder:
            method = self._write(kind, precision, folder, tokenizer, embeddings)
            runtime = open_graph(kind, precision, folder, embeddings, tokenizer.longest, self._threads)
            settings, taxonomy = self._classifier.settings, self._classifier.taxonomy
            exported = TierClassifier(runtime, tokenizer, taxonomy, settings)
            drift = compare(self._by_torch(), exported.classify(self._texts))
            row = [tokenizer.pad] * _TIMED_TOKENS
            milliseconds = _milliseconds(lambda: runtime.logits([row]))
            manifest = RuntimeManifest(kind, precision, method, drift, milliseconds, self._threads, features())
            said |= asdict(manifest)
            if not drift.bearable:
                for path in folder.iterdir():
                    path.unlink()
        return manifest

    def _by_torch(self) -> list[Verdict]:
        if not self._expected:
            self._expected = self._classifier.classify(self._texts)
        return self._expected

    def _least_sure(self) -> list[str]:
        """The calibration texts whose likeliest category is least likely: what is in doubt is moved most."""
        verdicts = self._classifier.classify(self._calibration)
        sureness = [max(verdict.categories.values()) for verdict in verdicts]
        order = sorted(range(len(verdicts)), key=sureness.__getitem__)
        return [self._calibration[at] for at in order[:_CALIBRATED]]

    def _write(
        self, kind: Kind, precision: Precision, folder: Path, tokenizer: ExportedTokenizer, embeddings: Embeddings
    ) -> str:
        graph, stored = folder / ONNX_GRAPH, "int8" if precision == "int8" else "fp32"
        if stored not in self._graphs:
            write_onnx(network_of(self._classifier.runtime), graph)
            method = "adapter merged, embeddings in half precision"
            if stored == "int8":
                settings = self._classifier.settings
                batches = _batches(self._least_sure(), tokenizer, embeddings, settings.window)
                method += "; " + quantized(graph, batches, settings.calibration)
            self._graphs[stored] = graph.read_bytes(), method
        content, method = self._graphs[stored]
        graph.write_bytes(content)
        if kind == "openvino":
            _to_openvino(graph, folder / OPENVINO_GRAPH)
            graph.unlink()
            if precision == "bf16":
                method += "; " + in_single_precision(folder / OPENVINO_GRAPH)
        else:
            _weights_apart(graph)
        return method


def compare(expected: Sequence[Verdict], found: Sequence[Verdict]) -> Drift:
    """How far verdicts are from others on the same texts; NaN counts as a drift of 1."""
    moved = np.array(
        [
            max(abs(one.categories[name] - other.categories[name]) for name in one.categories)
            for one, other in zip(expected, found, strict=True)
        ]
    )
    moved = np.nan_to_num(moved, nan=1.0)
    changed = [one.tier is not other.tier for one, other in zip(expected, found, strict=True)]
    return Drift(
        texts=len(moved),
        largest=round(float(moved.max()), 5),
        p99=round(float(np.quantile(moved, 0.99)), 5),
        mean=round(float(moved.mean()), 6),
        tiers_changed=round(sum(changed) / len(changed), 5),
    )


def write_onnx(model: TierModel, path: Path) -> None:
    """Write a network, adapter merged, as an ONNX graph that reads embeddings: ``(rows, tokens, hidden)`` and mask.

    Raises:
        ClassifierError: it cannot be traced.
    """
    network = _Embedded(merged(model)).eval()
    example = torch.zeros(2, 5, _table(model.encoder).shape[1])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    axes = {EMBEDDED: {0: "rows", 1: "tokens"}, MASK: {0: "rows", 1: "tokens"}, LOGITS: {0: "rows"}}
    try:
        with _quietly(), torch.no_grad():
            torch.onnx.export(
                network,
                (example, mask),
                str(path),
                dynamo=False,
                input_names=[EMBEDDED, MASK],
                output_names=[LOGITS],
                dynamic_axes=axes,
                opset_version=_OPSET,
            )
    except ModuleNotFoundError as exc:
        raise ClassifierError(
            f"an export needs {exc.name}; run `pip install 'llm-airlock[onnx]'` or `[openvino]`"
        ) from exc
    except (RuntimeError, ValueError, TypeError, IndexError) as exc:
        raise ClassifierError(
            f"an encoder of type {model.encoder.config.model_type!r} cannot be exported: {exc}; set "
            "`classifier.runtime: torch`"
        ) from exc


class _Embedded(nn.Module):
    """A network that is given embeddings in place of ids."""

    def __init__(self, model: TierModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(mask, inputs_embeds=embedded)
        return logits


def merged(model: TierModel) -> TierModel:
    """A copy with the adapter added to weights of its own; the table of embeddings, which is not read, stays shared."""
    table = _table(model.encoder)
    copied = copy.deepcopy(model, memo={id(table): table})
    copied.encoder = copied.encoder.merge_and_unload()
    copied.encoder.set_attn_implementation("eager")
    return copied


def _table(encoder: nn.Module) -> Tensor:
    """The embeddings of the vocabulary, ``(vocabulary, hidden)``."""
    table: Tensor = encoder.get_input_embeddings().weight  # type: ignore[operator]
    return table


def _to_openvino(graph: Path, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(str(graph)), str(path), compress_to_fp16=False)


def _weights_apart(graph: Path) -> None:
    """Move weights into a file of their own, which is mapped in place of read: half the memory at the start."""
    import onnx

    model = onnx.load(str(graph))
    graph.unlink()
    onnx.save(
        model, str(graph), save_as_external_data=True, location=f"{graph.stem}.data", size_threshold=_WEIGHT_BYTES
    )


def write_tokenizer(encoder: Encoder, folder: Path) -> None:
    """Write the files that `ExportedTokenizer.load` reads; a unigram vocabulary as lists, all else as it is."""
    whole: TokenizerFile = encoder.tokenizer.backend_tokenizer
    described: dict[str, Any] = json.loads(whole.to_str())
    model = described["model"]
    plain = all(token["special"] for token in described["added_tokens"])
    if model["type"] == "Unigram" and not model.get("byte_fallback") and plain:
        pieces = [piece for piece, _ in model["vocab"]]
        if not any("\n" in piece or "\r" in piece for piece in pieces):
            (folder / PIECES).write_text("\n".join(pieces), encoding="utf-8", newline="")
            np.save(folder / SCORES, np.array([score for _, score in model["vocab"]], dtype=np.float64))
            model |= {"vocab": [["", 0.0]], "unk_id": 0}  # the frame alone
            described |= {"added_tokens": [], "post_processor": None}
    (folder / TOKENIZER).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    special = {
        "before": encoder.before,
        "after": encoder.after,
        "unknown": encoder.unknown,
        "pad": encoder.tokenizer.pad_token_id,
        "longest": getattr(encoder.model.config, "max_position_embeddings", None),
    }
    (folder / SPECIAL).write_text(json.dumps(special) + "\n", encoding="utf-8")


def _batches(
    texts: Sequence[str], tokenizer: ExportedTokenizer, embeddings: Embeddings, window: int
) -> list[dict[str, Any]]:
    """Inputs of the graph for texts of like length, each cut to a window."""
    longest = window - len(tokenizer.before) - len(tokenizer.after)
    rows = sorted((tokenizer.split(text)[0][:longest] for text in texts), key=len)
    pairs = (embeddings.collate(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS))
    return [{EMBEDDED: embedded, MASK: mask} for embedded, mask in pairs]


def _milliseconds(call: Any) -> float:  # noqa: ANN401 - whatever it returns
    for _ in range(3):
        call()
    times = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return round(min(times) * 1000, 3)  # what else runs on the machine only adds


@contextmanager
def _quietly() -> Iterator[None]:
    """Tracing warns of each shape that Python reads; what is wrong with a graph shows when it is compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
