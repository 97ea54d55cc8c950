"""Show what an evaluation of the tier classifier found: one HTML file that needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attribution.visible import visible
from attribution.whole import write_whole
from classifier.why import Explainer
from training.intervals import rounded

# Key, name, and what it means for a user; {share} and {rest} are of 1,000.
_HEADLINES = (
    ("risk_recall", "Risk recall", "Of 1,000 queries that need care, {share:,} are noticed and {rest:,} pass as Safe."),
    ("unsafe_recall", "Unsafe recall", "Of 1,000 unsafe queries, {share:,} are classified Unsafe, {rest:,} milder."),
    ("safe_flagged", "Safe flagged", "Of 1,000 harmless queries, {share:,} are treated as if they needed care."),
    ("safe_refused", "Safe refused", "Of 1,000 harmless queries, {share:,} are taken for Unsafe and so refused."),
    ("accuracy", "Accuracy", "Of 1,000 queries, {share:,} are put into the right one of the four tiers."),
    ("macro_f1", "Macro-F1", "How well the tiers are told apart, rare ones counting as much as common; 1 is best."),
    ("category_accuracy", "Category accuracy", "Of 1,000 queries, {share:,} get exactly the right category."),
    ("auroc_risk", "AUROC, risk", "A risky query scores higher than a harmless one {share:,} times in 1,000."),
    ("auroc_unsafe", "AUROC, unsafe", "An unsafe query scores higher than a harmless one {share:,} times in 1,000."),
    (
        "ece",
        "Calibration error",
        "How sure it says it is, and how often it is right, differ by {share:,} in 1,000 on average.",
    ),
)
_NAMES = {key: name for key, name, _ in _HEADLINES} | {"precision": "Precision", "recall": "Recall", "f1": "F1"}
_LOW_IS_GOOD = frozenset({"safe_flagged", "safe_refused", "ece"})
_SHORT = ("accuracy", "risk_recall", "unsafe_recall", "safe_flagged", "safe_refused")
_PROVENANCE = (
    *("command", "model", "models", "adapter_sha256", "knowledge", "rows"),
    *("commit", "time", "seed", "data", "machine", "libraries"),
)
_FEW = 30
LEFT, RIGHT, TOP, BOTTOM = 44, 344, 12, 196  # of a plot's area, in SVG units


def write_report(path: Path, result: Mapping[str, Any], worst: Sequence[Mapping[str, Any]]) -> None:
    """Write an evaluation as one self-contained HTML file, making its folder; whole or not at all.

    Texts are data: they are escaped and cut, and characters that would be invisible, turn the direction of the text or
    cannot be encoded are shown by their code points.

    Args:
        path: of the file.
        result: `training.tiers.evaluate.Judged.figures`, with the keys of `training.manifest.provenance` and `command`;
            if wanted `disguised`, of `evaluate_disguises`, and `comparison`, of `compare`.
        worst: `Judged.worst`, as `explained`; their texts stand in the file.
    """
    write_page(
        path,
        "report.html.j2",
        result=result,
        worst=worst,
        names=_NAMES,
        low_is_good=_LOW_IS_GOOD,
        few=_FEW,
        area={"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        headlines=[_headline(result, *headline) for headline in _HEADLINES],
        budgets=[
            budget_plot(result, "risk_recall_at_flagged", "risk_recall", "safe_flagged"),
            budget_plot(result, "unsafe_recall_at_refused", "unsafe_recall", "safe_refused"),
        ],
        reliability=reliability_plot(result["reliability"]),
        groups=list(_groups(result)),
        differences=_differences(result["comparison"]) if "comparison" in result else [],
        provenance=provenance_rows(result),
    )


def explained(worst: Sequence[Mapping[str, Any]], explainer: Explainer, count: int) -> list[dict[str, Any]]:
    """The worst errors, the first `count` of them with the words that weighed most and the nearest examples."""
    return [
        {**error, "why": explainer.explain(error["text"]).as_dict() if at < count else None}
        for at, error in enumerate(worst)
    ]


def write_page(path: Path, template: str, **values: Any) -> None:  # noqa: ANN401 - whatever the template shows
    """Write a template of `assets/` with its values, escaped and visible, making the folder; whole or not at all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "assets"),
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"figure": _figure, "words": lambda label: str(label).replace("_", " ").title()}
    environment.tests["number"] = _is_number
    write_whole(path, environment.get_template(template).render(**values))


def provenance_rows(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a result was made from, flat, in a set order."""
    return [entry for key in _PROVENANCE if key in result for entry in _flat(key, result[key])]


def line_path(points: Sequence[tuple[float, float]]) -> str:
    """The SVG path through points, in order; empty without any."""
    return " ".join(f"{'L' if at else 'M'}{x:.1f} {y:.1f}" for at, (x, y) in enumerate(points))


def whisker_path(x: float, low: float, high: float) -> str:
    """The SVG path of an interval: an upright line with a stroke at both ends."""
    return f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"


def diamond_path(x: float, y: float, radius: float = 6) -> str:
    """The SVG path of a square that stands on its corner."""
    return f"M{x:.1f} {y - radius:.1f}l{radius} {radius}l-{radius} {radius}l-{radius} -{radius}z"


def budget_plot(result: Mapping[str, Any], swept: str, recall: str, cost: str) -> dict[str, Any]:
    """Recall over the share of Safe rows that may be stopped, and where the operating point stands."""
    table = [(float(budget), figure) for budget, figure in result[swept].items()]
    here = (result[cost]["value"], result[recall]["value"])
    most = 1.05 * max([budget for budget, _ in table] + [here[0] or 0]) or 1.0
    known = [(_x(budget, most), figure) for budget, figure in table if _is_number(figure["value"])]
    bounded = [(x, figure) for x, figure in known if _is_number(figure["low"])]
    points = [(x, _y(figure["value"])) for x, figure in known]
    return {
        "id": swept,
        "recall": recall,
        "cost": cost,
        "table": table,
        "here": here,
        "dots": [(x, y, 4) for x, y in points],
        "labels": [(x, _y(figure["low"] or figure["value"]) + 14, f"{figure['value']:.2f}") for x, figure in known],
        "line": line_path(points),
        "whiskers": "".join(whisker_path(x, _y(figure["low"]), _y(figure["high"])) for x, figure in bounded),
        "diamond": diamond_path(_x(here[0], most), _y(here[1])) if all(map(_is_number, here)) else "",
        "ticks": [(_x(budget, most), f"{budget * 100:g} %") for budget, _ in table],
    }


def reliability_plot(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often it is right over how sure it says it is; the area of a dot grows with its share of the rows."""
    total = sum(entry["rows"] for entry in bins)
    points = [(_x(entry["probability"], 1), _y(entry["right"])) for entry in bins]
    return {
        "dots": [(x, y, 3 + 9 * math.sqrt(e["rows"] / total)) for (x, y), e in zip(points, bins, strict=True)],
        "line": line_path(points),
        "ideal": line_path([(LEFT, BOTTOM), (RIGHT, TOP)]),
        "ticks": [(_x(share, 1), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
    }


def _x(value: float, most: float) -> float:
    return LEFT + (RIGHT - LEFT) * value / most


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figure(value: float | None, *, signed: bool = False) -> str:
    if value is None or not _is_number(value):
        return rounded(None)
    return f"{value:+.3f}".replace("-", "−") if signed else rounded(value)


def _headline(result: Mapping[str, Any], key: str, name: str, meaning: str) -> dict[str, Any]:
    found = result[key] if isinstance(result[key], Mapping) else {"value": result[key], "low": None, "high": None}
    share = round(1000 * found["value"]) if _is_number(found["value"]) else None
    absent = "There are no rows to count this on."
    sentence = absent if share is None else meaning.format(share=share, rest=1000 - share)
    return {"key": key, "name": name, "sentence": sentence, **found}


def _groups(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Tables of figures by kind of text: tiers in their order, lengths shortest first, the others largest first."""
    for key in ("tier", "category", "source", "language", "length"):
        rows = list(result[f"by_{key}"].items())
        if key == "length":
            rows.sort(key=lambda row: int(row[0].replace("-", " ").split()[0]))
        elif key != "tier":
            rows.sort(key=lambda row: -row[1]["rows"])
        yield {"key": key, "rows": rows, "columns": ("precision", "recall", "f1") if key == "tier" else _SHORT}


def _differences(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    def verdict(key: str, found: Mapping[str, Any]) -> str:
        if not all(_is_number(found[end]) for end in ("low", "high")) or found["low"] <= 0 <= found["high"]:
            return "no clear difference"
        return "better" if (found["low"] > 0) is (key not in _LOW_IS_GOOD) else "worse"

    return [{"key": key, "verdict": verdict(key, f), **f} for key, f in comparison["differences"].items()]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(f"{name}: {key}", entry)
    else:
        yield name, value
