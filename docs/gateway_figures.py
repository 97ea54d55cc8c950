"""Tables of what a gateway costs, from `results/gateway.json`."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str]

_GATEWAYS = {
    "direct": "no gateway",
    "nginx": "nginx",
    "passthrough": "bare pass-through (raw ASGI, aiohttp)",
    "airlock rules": "Airlock, rules only",
    "airlock rules, journal": "Airlock, rules only, journal",
    "airlock classifier": "Airlock with the classifier",
    "litellm": "LiteLLM's proxy",
    "nemoguardrails": "NeMo Guardrails' server",
}


def rows(bench: dict[str, Any]) -> list[Row]:
    """What Airlock with rules only costs beside others, and what becomes of too many requests."""
    targets = {name.partition("==")[0]: target for name, target in bench["targets"].items()}
    shown = [name for name in ("nginx", "passthrough", "airlock rules", "litellm", "nemoguardrails") if name in targets]
    named = " / ".join(_GATEWAYS[name].removeprefix("bare ").partition(" (")[0] for name in shown)
    added = {name.partition("==")[0]: figure for name, figure in bench["compared"]["added_ms"].items()}
    ratios = [each["accepted_over_unloaded_p99"] for each in bench["overload"].values()]
    refusals = [each["turned_away_p99_ms"] for each in bench["overload"].values()]
    memory = targets["airlock rules"]["memory"]
    cells = {
        "p50 that is added to a request, ms": [f"{added[name]['p50']:.1f}" for name in shown],
        "processor ms a request, 32 in flight": [f"{targets[name]['in_flight']['32']['cpu_ms']:.2f}" for name in shown],
        "requests/s, 32 in flight": [f"{targets[name]['in_flight']['32']['requests_per_s']:.0f}" for name in shown],
    }
    return [
        *(
            (f"… {what}" if at else f"{named}: {what}", " / ".join(of), "gateway")
            for at, (what, of) in enumerate(cells.items())
        ),
        (
            "4× overload (slow upstream, classifier): p99 of those taken in over p99 alone; p99 of the others' 503, ms",
            f"{', '.join(f'{ratio:.1f}×' for ratio in ratios)}; {', '.join(f'{ms:.0f}' for ms in refusals)}",
            "gateway",
        ),
        (
            f"resident memory after {memory['requests']:,} requests with rules only, growth in the second half, MB",
            f"{memory['rss_mb'][-1]:.0f}, {memory['growth_mb_second_half']:.1f}",
            "gateway",
        ),
    ]


def table(bench: dict[str, Any]) -> str:
    """A table: every gateway that was measured, at every load."""
    targets = {name.partition("==")[0]: target for name, target in bench["targets"].items()}
    loads = ("1", "32", "256")
    heads = (
        "p50 and p99 at 1, ms",
        "requests/s at 1, 32, 256",
        "processor ms a request at 1, 32, 256",
        "first text of a stream, p50 ms",
        "cold start, s",
    )
    rows = [
        f"| {label} | {of['in_flight']['1']['p50_ms']:.1f}, {of['in_flight']['1']['p99_ms']:.1f} | "
        f"{', '.join(format(of['in_flight'][load]['requests_per_s'], '.0f') for load in loads)} | "
        f"{', '.join(format(of['in_flight'][load]['cpu_ms'], '.2f') for load in loads)} | "
        f"{of['first_token']['p50_ms']:.1f} | {of['cold_start_s']:.1f} |"
        for name, label in _GATEWAYS.items()
        if (of := targets.get(name))
    ]
    return "\n".join([f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", *rows])


def evasion_rows(found: dict[str, Any]) -> list[Row]:
    """What disguises cost at the whole input door."""
    said, count = found["summary"], found["prompts"]["unsafe"]
    plain, mean = said["plain"], said["mean"]
    return [
        (
            f"{count} unsafe prompts at the input door, kept from the model: plain, mean of "
            f"{said['transformations']} disguises, the worst",
            f"{plain['unsafe']['kept']:.2f}, {mean['unsafe_kept']:.2f}, "
            f"{said['worst']['unsafe_kept']:.2f} ({said['worst']['name']})",
            "evasion",
        ),
        (
            f"… {found['prompts']['safe']} safe ones refused: plain, mean of the disguises",
            f"{plain['safe']['refused']:.2f}, {mean['safe_refused']:.2f}",
            "evasion",
        ),
    ]


def evasion_table(found: dict[str, Any]) -> str:
    """A table: every disguise, the ones that keep least first."""
    without = found["nothing_decoded"]
    by_kept = sorted(found["by_transformation"].items(), key=lambda each: each[1]["unsafe"]["kept"])
    heads = ("disguise", "unsafe: kept, refused", "safe: kept, refused", "unsafe kept if nothing were decoded")
    rows = [
        f"| {name} | {of['unsafe']['kept']:.2f}, {of['unsafe']['refused']:.2f} | "
        f"{of['safe']['kept']:.2f}, {of['safe']['refused']:.2f} | "
        f"{format(without[name]['unsafe']['kept'], '.2f') if name in without else ''} |"
        for name, of in by_kept
    ]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows])
