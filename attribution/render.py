"""Show a report, or a comparison of two: one HTML file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attribution import draw
from attribution.compare import Comparison
from attribution.report import AuditReport, Figure
from attribution.summary import comparison_summary, correlation, counted, screened, summary
from attribution.types import HeadId
from attribution.visible import visible

_MARKED, _SHOWN = 5, 15
_LEVELS = [(draw.up(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]  # of a curve


def report_html(report: AuditReport) -> str:
    """An audit as one HTML page.

    Names, categories and provenance are data: escaped, and characters that would be invisible or turn the direction of
    the text are shown by their code points.
    """
    ships = report.ships
    interval = "" if report.few else " [{0.low:.3g}, {0.high:.3g}]"
    notes = {row.head: f"{interval.format(row)}, rank {row.rank}" for row in ships.ranking}
    turned = report.generalized
    by_degrees = sorted(_known(turned), key=lambda entry: -entry[1])[:_MARKED] if turned else []
    return _page(
        "audit.html.j2",
        report=report,
        said=summary(report),
        screened=screened,
        ships_map=draw.heatmap(ships.mean, "nats", report.top(_MARKED), notes=notes),
        turned_map=draw.heatmap(turned, "°", [head for head, _ in by_degrees]) if turned else None,
        widest=max([row.high for row in ships.ranking] + [ships.noise.chance, 1e-12]) * 1.02,
        shown=_SHOWN,
        degrees={head: degrees for head, degrees in _known(turned)} if turned else {},
        steps=[_step(report, at) for at in range(len(report.sahara))],
        asr=_asr(report),
        provenance=list(_flat(report.provenance)),
        seconds=_duration(report.seconds),
    )


def comparison_html(comparison: Comparison) -> str:
    """A comparison as one HTML page; see `report_html`."""
    changed = [head for head in comparison.heads if head.change != "stayed"]
    widest = max([abs(head.difference) for head in comparison.heads] + [1e-12])
    return _page(
        "compare.html.j2",
        c=comparison,
        said=comparison_summary(comparison),
        difference_map=draw.heatmap(
            comparison.difference, "nats", [head.head for head in changed][:_MARKED], signed=True
        ),
        widest=widest,
    )


def hardening_html(report: Mapping[str, Any]) -> str:
    """A hardening's before, control and after as one HTML page; see `report_html`.

    Args:
        report: As `training.audit.train_hardened` gives it, or as JSON has it.
    """
    kinds = ("before", "control", "after")
    attackers = []
    for name, curve in report["before"]["attackers"].items():
        counts = list(curve["asr"])
        places = [at / max(1, len(counts) - 1) for at in range(len(counts))]
        found = {kind: report[kind]["attackers"][name] for kind in kinds}
        drawn = {
            kind: draw.curve(
                [(x, Figure(value=found[kind]["asr"][k])) for x, k in zip(places, counts, strict=True)],
                [f"Without {counted(int(k))}: {_percent(found[kind]['asr'][k])}" for k in counts],
            )
            for kind in ("before", "after")
        }
        by_chance = report["after"]["random"][name.split("/")[1]]
        rows = [
            {
                "k": k,
                "asr": [found[kind]["asr"][k] for kind in kinds],
                "random": by_chance.get(k),
                "over": found["after"]["over_refusal"][k],
            }
            for k in counts
        ]
        ticks = [(draw.across(x), k) for x, k in zip(places, counts, strict=True)]
        attackers.append({"name": name, "rows": rows, "ticks": ticks, **drawn})
    left_out = {*kinds, "schema_version", "kind", "accepted", "objections"}
    return _page(
        "harden.html.j2",
        r=report,
        kinds=kinds,
        attackers=attackers,
        levels=_LEVELS,
        settings=list(_flat({key: value for key, value in report.items() if key not in left_out})),
    )


def _page(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "assets"),
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"g": _short, "percent": _percent, "span": _span, "correlation": correlation}
    area = {"left": draw.LEFT, "right": draw.RIGHT, "top": draw.TOP, "bottom": draw.BOTTOM}
    return environment.get_template(template).render(area=area, shades=range(draw.SHADES + 1), **values)


def _step(report: AuditReport, at: int) -> dict[str, Any]:
    """A step of Sahara, what it added, and what came second."""
    step = report.sahara[at]
    others = sorted((entry for entry in _known(step.all) if entry[0] != step.head), key=lambda entry: -entry[1])
    before = report.sahara[at - 1].degrees if at else 0.0
    return {
        "head": step.head,
        "degrees": step.degrees,
        "gain": step.degrees - before,
        "second": others[0] if others else None,
        "share": step.degrees / (max(each.degrees for each in report.sahara) or 1.0),
    }


def _asr(report: AuditReport) -> dict[str, Any] | None:
    if report.behaviour is None:
        return None
    points = report.behaviour.points
    places = [at / max(1, len(points) - 1) for at in range(len(points))]
    said = [f"Without {counted(point.k)}: {_percent(point.asr.value)}" for point in points]
    drawn = [(x, point) for x, point in zip(places, points, strict=True) if point.random is not None]
    return {
        "top": draw.curve([(x, point.asr) for x, point in zip(places, points, strict=True)], said),
        "random": draw.curve(
            [(x, point.random or Figure(value=None)) for x, point in drawn],
            [
                f"Without {counted(point.k, 'random head')}: {_percent((point.random or point.asr).value)}"
                for _, point in drawn
            ],
        ),
        "ticks": [(draw.across(x), point.k) for x, point in zip(places, points, strict=True)],
        "levels": _LEVELS,
    }


def _known(grid: Any) -> Iterator[tuple[HeadId, float]]:  # noqa: ANN401 - a Grid
    for layer, row in enumerate(grid):
        for head, value in enumerate(row):
            if value is not None:
                yield HeadId(layer, head), value


def _short(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    if abs(value) >= 10**digits:
        return f"{value:{'+' if signed else ''},.0f}".replace("-", "−")
    return f"{value:{'+' if signed else ''}.{digits}g}".replace("-", "−").replace("e−0", "e−")


def _percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2g} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def _span(figure: Figure, kind: str = "g") -> str:
    if figure.low is None or figure.high is None:
        return "no interval"
    write = _percent if kind == "percent" else _short
    return f"{write(figure.low)} to {write(figure.high)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", (", ".join(map(str, entry)) or "–") if isinstance(entry, list | tuple) else entry
