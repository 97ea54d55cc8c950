"""From what an audit computed to its report: every derived figure is computed here, from the raw scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution import statistics
from attribution.report import (
    FEWEST,
    Against,
    AuditReport,
    Behaviour,
    Checks,
    Figure,
    Halves,
    Model,
    NoiseFloor,
    ParameterShare,
    PerPrompt,
    Prompts,
    Ranked,
    SaharaStep,
    Screen,
    Settings,
    Ships,
    Stability,
    TemplatePair,
)
from attribution.types import HeadId

if TYPE_CHECKING:
    from attribution.checkpoint import Checkpoint

TOP = 5
RANKED = 50
_SHARES = (1, 3, 5, 10)
_DIGITS = 9


def describe(
    *,
    model: Model,
    prompts: Prompts,
    settings: Settings,
    ships: ArrayLike,
    seconds: float,
    steps: Sequence[tuple[HeadId, ArrayLike]] = (),
    templates: Mapping[str, ArrayLike] | None = None,
    against: tuple[Prompts, ArrayLike] | None = None,
    behaviour: Behaviour | None = None,
    screen: Screen | None = None,
    checks: Checks | None = None,
    provenance: Mapping[str, Any] | None = None,
    keep_prompts: bool = True,
) -> AuditReport:
    """Make a report.

    Args:
        model: What was audited; see `describe_model`.
        prompts: With which prompts.
        settings: How; its seed is that of the intervals too.
        ships: Nats, (prompts, layers, heads); NaN where a head was not computed.
        seconds: What the computation took.
        steps: Of Sahara: the head, and the degrees (layers, heads), at first generalized Ships of single heads.
        templates: Ships of the same prompts in other templates, by name.
        against: Harmless prompts, and Ships on them, (prompts, layers, heads).
        behaviour: What the model does without its heads.
        screen: How well an estimate chose.
        checks: Self-checks of the run.
        provenance: Commit, machine, time, libraries; ready for JSON.
        keep_prompts: Whether the scores of every prompt stand in the report.

    Raises:
        AttributionError: the scores are not those of a finished run.
    """
    scores = np.asarray(ships, dtype=np.float64)
    seed = settings.seed
    found = _ships(scores, seed)
    return AuditReport(
        model=model,
        prompts=prompts,
        settings=settings,
        ships=found.model_copy(update={"per_prompt": PerPrompt.pack(scores)}) if keep_prompts else found,
        parameter_shares=_shares(model),
        generalized=_grid(steps[0][1]) if steps else None,
        sahara=tuple(
            SaharaStep(head=head, degrees=_number(np.asarray(degrees)[head]) or 0.0, all=_grid(degrees))
            for head, degrees in steps
        ),
        stability=Stability(
            halves=_halves(scores, seed), templates=_templates(prompts.template, scores, templates or {})
        ),
        against=None if against is None else _against(scores, *against, seed),
        behaviour=behaviour,
        screen=screen,
        checks=checks,
        provenance=dict(provenance or {}),
        seconds=seconds,
    )


def describe_model(checkpoint: Checkpoint) -> Model:
    """What a report says of a loaded checkpoint."""
    model = checkpoint.model
    config: Any = model.config.get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    return Model(
        name=checkpoint.path.resolve().name,
        family=str(model.config.model_type),
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        d_head=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        width=int(config.hidden_size),
        parameters=sum(weight.numel() for weight in model.parameters()),
        weights_sha256=checkpoint.sha256,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def _ships(scores: NDArray[np.float64], seed: int) -> Ships:
    summary = statistics.summarise(scores, seed=seed)
    floor = statistics.noise_floor(scores, seed=seed)
    effective = _figure(statistics.effective_interval(scores, seed=seed))
    total = float(np.nansum(summary.mean))
    rows = []
    for rank, head in enumerate(statistics.ranked_heads(summary.mean)[:RANKED], 1):
        score, low = float(summary.mean[head]), float(summary.low[head])
        rows.append(
            Ranked(
                rank=rank,
                head=head,
                score=_rounded(score),
                low=_rounded(low),
                high=_rounded(float(summary.high[head])),
                rank_low=int(summary.rank_low[head]),
                rank_high=int(summary.rank_high[head]),
                share=min(1.0, score / total) if total else 0.0,
                stands_out=len(scores) >= FEWEST and _rounded(low) > _rounded(floor.chance),
            )
        )
    return Ships(
        mean=_grid(summary.mean),
        median=_grid(summary.median),
        error=_grid(summary.error),
        low=_grid(summary.low),
        high=_grid(summary.high),
        ranking=tuple(rows),
        noise=NoiseFloor(median=_rounded(floor.median), p95=_rounded(floor.p95), chance=_rounded(floor.chance)),
        effective_heads=effective if len(scores) >= FEWEST else Figure(value=effective.value),
    )


def _against(scores: NDArray[np.float64], prompts: Prompts, others: ArrayLike, seed: int) -> Against:
    found = statistics.contrast(scores, others, seed=seed)
    heads = [head for head in statistics.ranked_heads(found.difference) if found.difference[head] > found.chance]
    return Against(
        prompts=prompts,
        difference=_grid(found.difference),
        chance=_rounded(found.chance),
        heads=tuple(heads),
    )


def _shares(model: Model) -> tuple[ParameterShare, ...]:
    one = statistics.head_parameters(model.width, model.d_head, model.heads, model.kv_heads)
    counts = [count for count in _SHARES if count <= model.layers * model.heads]
    return tuple(
        ParameterShare(heads=n, parameters=round(n * one), share=min(1.0, n * one / model.parameters)) for n in counts
    )


def _halves(scores: NDArray[np.float64], seed: int) -> Halves | None:
    found = statistics.halves(scores, top=TOP, seed=seed)
    if found is None:
        return None
    return Halves(
        spearman=_figure(found.spearman),
        overlap=_figure(found.overlap),
        top=found.top,
        by_chance=found.by_chance,
        splits=found.splits,
    )


def _templates(name: str, scores: NDArray[np.float64], others: Mapping[str, ArrayLike]) -> tuple[TemplatePair, ...]:
    mean = scores.mean(axis=0)
    top = min(TOP, int(np.isfinite(mean).sum()))
    pairs = []
    for other, theirs in others.items():
        also = np.asarray(theirs, dtype=np.float64).mean(axis=0)
        pairs.append(
            TemplatePair(
                one=name,
                other=other,
                spearman=_number(statistics.spearman(mean, also)),
                overlap=statistics.overlap(mean, also, top),
            )
        )
    return tuple(pairs)


def _figure(bounds: statistics.Bounds) -> Figure:
    return Figure(value=_number(bounds.value), low=_number(bounds.low), high=_number(bounds.high))


def _grid(values: ArrayLike) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(_number(value) for value in row) for row in np.asarray(values, dtype=np.float64).tolist())


def _number(value: float) -> float | None:
    return _rounded(float(value)) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
