"""Pieces of SVG as data: where cells, lines and labels stand; the templates write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attribution.report import Figure, Grid
from attribution.types import HeadId

SHADES = 10  # of a heatmap, above 0
_MARGIN, _BARS, _TOP = 40, 90, 8  # of a heatmap: for layer numbers, for bars of layers, above
LEFT, RIGHT, TOP, BOTTOM = 44, 464, 14, 216  # of a curve's area


@dataclass(frozen=True, slots=True)
class Cell:
    """A head in a heatmap: its place, its shade (0 to 10; −10 to 10 where scores have signs; None: not computed)."""

    x: int
    y: int
    shade: int | None
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A frame around a head, with its number if there is room; in the paper's colour on a `deep` shade."""

    x: int
    y: int
    text: str
    deep: bool


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Layers downwards, heads across; sizes in SVG units.

    Attributes:
        bars: Of each layer, where its bar starts and how long it is: its share of the sum.
        across: Numbers of heads and where they stand; `down` of layers.
    """

    size: int
    width: int
    height: int
    cells: tuple[Cell, ...]
    marks: tuple[Mark, ...]
    bars: tuple[tuple[int, float, str], ...]
    bars_at: int
    across: tuple[tuple[float, int], ...]
    down: tuple[tuple[float, int], ...]
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with its band, in SVG units; a path is empty where there is nothing."""

    line: str
    band: str
    dots: tuple[tuple[float, float, str], ...]


def heatmap(
    grid: Grid,
    unit: str,
    marked: Sequence[HeadId] = (),
    *,
    notes: Mapping[HeadId, str] | None = None,
    signed: bool = False,
) -> Heatmap:
    """Draw scores by layer and head.

    Shades go with the square root, so that what is small beside the largest is still seen.

    Args:
        grid: Layers × heads.
        unit: Of the scores.
        marked: Heads to frame, numbered in this order.
        notes: What else to say of a head on hover.
        signed: Whether scores may be negative.
    """
    notes = notes or {}
    known = [value for row in grid for value in row if value is not None]
    most = max((abs(value) for value in known), default=0.0)
    heads = max(len(row) for row in grid)
    size = min(30, max(9, 760 // heads, 0 if len(grid) > 16 else 22))
    gap = 2 if size > 12 else 1
    cells = []
    for layer, row in enumerate(grid):
        for head, value in enumerate(row):
            note = notes.get(HeadId(layer, head), "")
            said = "not computed" if value is None else f"{_number(value, signed=signed)} {unit}{note}"
            place = (_MARGIN + head * size, _TOP + layer * size)
            cells.append(Cell(*place, _shade(value, most), f"{layer}.{head}: {said}"))
    sums = [sum(abs(value) for value in row if value is not None) for row in grid]
    total, longest = sum(sums) or 1.0, max(sums) or 1.0
    every_head, every_layer = _every(heads, size), _every(len(grid), size)
    return Heatmap(
        size=size - gap,
        width=_MARGIN + heads * size + _BARS,
        height=_TOP + len(grid) * size + 24,
        cells=tuple(cells),
        marks=tuple(
            Mark(
                _MARGIN + head.head * size,
                _TOP + head.layer * size,
                str(rank) if size >= 16 else "",
                abs(_shade(grid[head.layer][head.head], most) or 0) >= SHADES / 2,
            )
            for rank, head in enumerate(marked, 1)
        ),
        bars=tuple(
            (_TOP + layer * size, (_BARS - 16) * value / longest, f"Layer {layer}: {value / total:.1%} of the sum")
            for layer, value in enumerate(sums)
        ),
        bars_at=_MARGIN + heads * size + 8,
        across=tuple((_MARGIN + head * size + (size - gap) / 2, head) for head in range(0, heads, every_head)),
        down=tuple((_TOP + layer * size + (size - gap) / 2 + 3.5, layer) for layer in range(0, len(grid), every_layer)),
        least=-most if signed else 0.0,
        most=most,
    )


def curve(points: Sequence[tuple[float, Figure]], labels: Sequence[str]) -> Curve:
    """Draw shares between 0 and 1.

    Args:
        points: Where across, from 0 to 1, and the share.
        labels: What is said of each on hover.
    """
    known = [(x, figure, label) for (x, figure), label in zip(points, labels, strict=True) if figure.value is not None]
    dots = tuple((across(x), up(figure.value or 0.0), label) for x, figure, label in known)
    bounded = [(x, f.low, f.high) for x, f, _ in known if f.low is not None and f.high is not None]
    edge = [(across(x), up(high)) for x, _, high in bounded] + [(across(x), up(low)) for x, low, _ in reversed(bounded)]
    return Curve(path([(x, y) for x, y, _ in dots]), path(edge) + "Z" if len(bounded) > 1 else "", dots)


def path(points: Sequence[tuple[float, float]]) -> str:
    """The SVG path through points, in order; empty without any."""
    return " ".join(f"{'L' if at else 'M'}{x:.1f} {y:.1f}" for at, (x, y) in enumerate(points))


def across(share: float) -> float:
    """Where a curve's point stands, from 0 to 1 from the left."""
    return LEFT + (RIGHT - LEFT) * share


def up(share: float) -> float:
    """How high a curve's point stands, from 0 to 1 from below."""
    return BOTTOM - (BOTTOM - TOP) * share


def _shade(value: float | None, most: float) -> int | None:
    if value is None:
        return None
    shade = round(SHADES * math.sqrt(abs(value) / most)) if most else 0
    return shade if value >= 0 else -shade


def _every(count: int, size: int) -> int:
    """How many numbers apart labels stand, to have room."""
    room = max(1, math.ceil(22 / size))
    return next((step for step in (1, 2, 4, 5, 8, 10, 16, 20) if step >= room), 20) if count > 1 else 1


def _number(value: float, *, signed: bool) -> str:
    return f"{value:+.4g}".replace("-", "−") if signed else f"{value:.4g}"
