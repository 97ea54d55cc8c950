"""What became of a checkpoint since it was signed: the same, or drifted, and in which way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attribution.fingerprint import (
    Fingerprint,
    Profile,
    TensorPrint,
    agreement,
    fingerprint,
    identity,
    profile_at,
    profile_of,
)
from attribution.report import AuditReport, Head, Natural, Part
from attribution.types import HeadId, ReportError

Kind = Literal[
    "other_model", "quantized", "cast", "ablated_heads", "abliterated", "fine_tuned", "config", "tokenizer", "ships"
]
_INTEGER = ("int8", "uint8", "int16", "int32", "int64", "float8")
_WIDTH = {"float64": 4, "float32": 3, "float16": 2, "bfloat16": 1}
_ROUNDING = {
    "float64": 1e-12,
    "float32": 3e-7,
    "float16": 6e-4,
    "bfloat16": 3e-3,
}  # relative, with room for the estimate
_SCALED_AWAY = 0.1  # a head's weights shrank below this: it was taken out
_ONE_DIRECTION = 0.9  # share of the writers' joint change that one direction explains
_LOW_RANK, _EXPLAINED = 4, 0.999
_SPEARMAN = 0.9


class TensorDrift(Part):
    """A tensor that changed: by how much of its norm, estimated from the sketch; null if it has no number."""

    name: str
    relative: float | None


class Drift(Part):
    """What became of a checkpoint.

    Attributes:
        same: Whether nothing drifted.
        kinds: In which ways it drifted.
        says: The same in words, a sentence each.
        changed: Tensors whose values are others; `tensors` of all.
        largest: The most changed ones, largest first.
        heads: Heads that were taken out of the weights.
        one_direction: Share of the change of the matrices that write the residual stream that one direction explains.
        low_rank: Share of the changed matrices whose change has a rank of at most 4, as a merged LoRA's has.
        missing: Tensors that are gone; `extra` that are new.
        spearman: Of Ships before and now, where a report was given; `overlap` of the top heads.
    """

    same: bool
    kinds: tuple[Kind, ...] = ()
    says: tuple[str, ...]
    changed: Natural = 0
    tensors: Natural
    largest: tuple[TensorDrift, ...] = ()
    heads: tuple[Head, ...] = ()
    one_direction: float | None = None
    low_rank: float | None = None
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    spearman: float | None = None
    overlap: float | None = None


def verify(pinned: Fingerprint, now: Path | None = None, report: AuditReport | None = None) -> Drift:
    """Hold a checkpoint, an audit of it, or both against a fingerprint.

    Args:
        pinned: The fingerprint.
        now: The checkpoint's folder. Hashes are compared first; only if they differ is it sketched.
        report: An audit of the checkpoint, or without a folder of whatever model is meant now; its Ships are compared
            with the fingerprint's.

    Raises:
        CheckpointError: the folder cannot be read.
        ReportError: the report cannot be compared with the fingerprint, or is of other weights than the folder holds.
    """
    drift = Drift(same=True, says=(), tensors=len(pinned.tensors))
    profile = None
    if report is not None:
        profile = profile_of(report) if now is None else profile_at(now, report)
    if now is not None:
        own = identity(now)
        hashes = (own.root, own.config_sha256, own.tokenizer_sha256)
        if hashes != (pinned.root, pinned.config_sha256, pinned.tokenizer_sha256):
            drift = classify(pinned, fingerprint(now, seed=pinned.seed))
    if profile is not None:
        drift = _with_ships(pinned, profile, drift)
    return drift if drift.says else drift.model_copy(update={"says": ("Nothing drifted.",)})


def classify(before: Fingerprint, now: Fingerprint) -> Drift:
    """In which way a checkpoint differs from its earlier self."""
    kinds: list[Kind] = []
    says: list[str] = []
    drift = _weights(before, now)
    kinds += drift.kinds
    says += drift.says
    if before.config_sha256 != now.config_sha256 and "other_model" not in kinds:
        kinds.append("config")
        says.append("The configuration computes something else.")
    if before.tokenizer_sha256 != now.tokenizer_sha256:
        kinds.append("tokenizer")
        says.append("The tokenizer or its chat template is another.")
    return drift.model_copy(update={"same": not kinds, "kinds": tuple(kinds), "says": tuple(says)})


def _weights(before: Fingerprint, now: Fingerprint) -> Drift:
    total = len(before.tensors)
    if before.root == now.root:
        return Drift(same=True, says=(), tensors=total)
    shared = [name for name in before.tensors if name in now.tensors]
    pairs = {name: (before.tensors[name], now.tensors[name]) for name in shared}
    missing = tuple(name for name in before.tensors if name not in now.tensors)
    extra = tuple(name for name in now.tensors if name not in before.tensors)
    changed = {name: pair for name, pair in pairs.items() if pair[0].sha256 != pair[1].sha256}
    relative = {name: _relative(*pair) for name, pair in changed.items()}
    order = sorted(relative, key=lambda name: -np.nan_to_num(relative[name], nan=np.inf))
    drift = Drift(
        same=False,
        says=(),
        changed=len(changed),
        tensors=total,
        largest=tuple(TensorDrift(name=n, relative=_number(relative[n])) for n in order[:10]),
        missing=missing,
        extra=extra,
    )
    if _packed(before, now):
        return _told(drift, "quantized", "The weights are stored in a narrow number format: the model was quantized.")
    if missing or extra or any(old.shape != new.shape for old, new in pairs.values()):
        return _told(drift, "other_model", "Tensors are missing, new or of other shapes: this is another model.")
    gridded = [old.gridded is False and new.gridded for old, new in changed.values() if len(old.shape) > 1]
    if gridded and sum(gridded) > len(gridded) / 2:
        return _told(drift, "quantized", "The values lie on a grid that they did not lie on: the model was quantized.")
    rounded = {name: to for name, pair in changed.items() if (to := _rounded_to(*pair, relative[name]))}
    if rounded:
        formats = ", ".join(sorted(set(rounded.values())))
        drift = _told(drift, "cast", f"{len(rounded)} tensors were rounded or cast to {formats}, no more.")
    beyond = {name: pair for name, pair in changed.items() if name not in rounded}
    return _beyond(drift, beyond) if beyond else drift


def _beyond(drift: Drift, changed: dict[str, tuple[TensorPrint, TensorPrint]]) -> Drift:
    """What changed by more than rounding: heads taken out, one direction taken out, or trained further."""
    heads = _ablated(changed)
    if heads:
        named = ", ".join(map(str, heads[:10])) + (", …" if len(heads) > 10 else "")
        drift = _told(drift, "ablated_heads", f"The weights of {len(heads)} attention heads were scaled away: {named}.")
        return drift.model_copy(update={"heads": tuple(heads)})
    writers = [pair for pair in changed.values() if pair[0].role in ("embedding", "output", "writer")]
    explained = _one_direction(writers)
    ranks = [_is_low_rank(*pair) for pair in changed.values() if len(pair[0].shape) > 1]
    low = sum(ranks) / len(ranks) if ranks else None
    drift = drift.model_copy(update={"one_direction": explained, "low_rank": low})
    if explained is not None and len(writers) > 1 and explained >= _ONE_DIRECTION:
        return _told(
            drift,
            "abliterated",
            f"One direction explains {explained:.0%} of what changed in {len(writers)} matrices that write the "
            "residual stream: a direction, such as that of refusal, was taken out.",
        )
    how = "by changes of low rank, as a merged LoRA makes" if low and low > 0.5 else "throughout"
    return _told(drift, "fine_tuned", f"{len(changed)} tensors were trained further or edited, {how}.")


def _told(drift: Drift, kind: Kind, sentence: str) -> Drift:
    return drift.model_copy(update={"kinds": (*drift.kinds, kind), "says": (*drift.says, sentence)})


def _with_ships(pinned: Fingerprint, profile: Profile, drift: Drift) -> Drift:
    if pinned.profile is None:
        raise ReportError("the fingerprint holds no Ships to compare with; write it with --report")
    spearman, overlap = agreement(pinned.profile, profile)
    drift = drift.model_copy(update={"spearman": _number(spearman), "overlap": overlap})
    if spearman >= _SPEARMAN and pinned.profile.top[:1] == profile.top[:1]:
        return drift
    told = _told(
        drift,
        "ships",
        f"Other heads carry the answers: rank correlation {spearman:.2f}, {overlap:.0%} of the top heads the same.",
    )
    return told.model_copy(update={"same": False})


def _relative(old: TensorPrint, new: TensorPrint) -> float:
    """‖W' - W‖ / ‖W‖, estimated."""
    if old.norm is None or new.norm is None or old.shape != new.shape:
        return float("nan")
    change = float(np.linalg.norm(new.values() - old.values()))
    return change / old.norm if old.norm else (float("inf") if change else 0.0)


def _rounded_to(old: TensorPrint, new: TensorPrint, relative: float) -> str | None:
    """The number format that explains a change: another dtype of the same values, or a narrower one of rounded values.

    None if more changed than that.
    """
    if old.dtype != new.dtype and relative <= _ROUNDING["float32"]:
        return new.dtype
    narrower = _WIDTH.get(new.precision, 0) < _WIDTH.get(old.precision, 0)
    crossed = new.precision != old.precision and new.precision in ("float16", "bfloat16")
    return new.precision if (narrower or crossed) and relative <= _ROUNDING.get(new.precision, 0.0) else None


def _packed(before: Fingerprint, now: Fingerprint) -> bool:
    def narrow(tensors: dict[str, TensorPrint]) -> bool:
        return any(tensor.dtype.startswith(_INTEGER) and len(tensor.shape) > 1 for tensor in tensors.values())

    return narrow(now.tensors) and not narrow(before.tensors)


def _ablated(changed: dict[str, tuple[TensorPrint, TensorPrint]]) -> list[HeadId]:
    """Heads scaled away, if nothing but heads changed: the others' weights have the norms that they had."""
    found = set()
    for name, (old, new) in changed.items():
        layer = _layer(name)
        if layer is None or not old.head_norms or len(old.head_norms) != len(new.head_norms):
            return []
        loose = 1e-9 if old.precision == new.precision else _ROUNDING.get(new.precision, 1e-9)
        for head, (was, has) in enumerate(zip(old.head_norms, new.head_norms, strict=True)):
            if was is None or has is None:
                return []
            if abs(has - was) <= loose * was:
                continue
            if has > _SCALED_AWAY * was:
                return []
            found.add(HeadId(layer, head))
    return sorted(found)


def _layer(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _one_direction(writers: list[tuple[TensorPrint, TensorPrint]]) -> float | None:
    """Share of the joint change of all that write the residual stream that its first direction explains."""
    changes = [_scaled(new.values() - old.values()) for old, new in writers]
    changes = [change for change in changes if change.any()]
    if not changes:
        return None
    powers = np.linalg.svd(np.concatenate(changes, axis=1), compute_uv=False) ** 2
    return float(powers[0] / powers.sum())


def _is_low_rank(old: TensorPrint, new: TensorPrint) -> bool:
    powers = np.linalg.svd(new.values() - old.values(), compute_uv=False) ** 2
    return bool(powers.sum() > 0 and powers[:_LOW_RANK].sum() >= _EXPLAINED * powers.sum())


def _scaled(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """To norm 1, so that one large matrix does not speak for all."""
    norm = float(np.linalg.norm(change))
    return change / norm if norm else change


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
