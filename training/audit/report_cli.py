"""The commands `airlock audit report`, `compare`, `fingerprint`, `verify` and `schema`: what is done with a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.options import seed_option
from training.results import check_places

if TYPE_CHECKING:
    from attribution.compare import Comparison
    from attribution.drift import Drift

_NAMED = 5  # tensors of a kind
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def report(
    file: Annotated[Path, typer.Argument(help="Report, as `airlock audit heads` writes it.")],
    out: Annotated[Path, typer.Option(help="HTML file to write; it needs no network and no script.")],
) -> None:
    """Show a report as one HTML page."""
    check_places({"--out": out}, [file])
    from attribution.render import report_html
    from attribution.report import load_report, write_text

    write_text(out, report_html(load_report(file)))
    typer.echo(f"wrote {out}")


def compare(
    before: Annotated[Path, typer.Argument(help="Report of one checkpoint.")],
    after: Annotated[Path, typer.Argument(help="Report of another of the same architecture.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
    top: Annotated[int, typer.Option(min=1, help="First heads of both rankings that are looked at.")] = 10,
    other_prompts: Annotated[
        bool,
        typer.Option("--other-prompts", help="Compare reports of other prompts, or another template, all the same."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints head by head: which safety heads appeared, vanished or moved."""
    check_places({"--out": out}, [before, after])
    from attribution.compare import compare as compared
    from attribution.render import comparison_html
    from attribution.report import load_report, write_text

    found = compared(load_report(before), load_report(after), top=top, other_prompts=other_prompts)
    if out is not None:
        write_text(out, comparison_html(found))
    typer.echo(found.model_dump_json() if as_json else _told(found))
    if out is not None and not as_json:
        typer.echo(f"wrote {out}")


def fingerprint(
    model: Annotated[Path, typer.Argument(help="Folder of a model in safetensors.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    report: Annotated[Path | None, typer.Option(help="Report of this model, whose Ships are signed too.")] = None,
    seed: Annotated[int, seed_option("Of the sketch.")] = 0,
) -> None:
    """Write a compact signature of a checkpoint; no model is built."""
    check_places({"--out": out}, [report])
    from attribution.fingerprint import fingerprint as signed
    from attribution.report import load_report, save_report

    found = signed(model, None if report is None else load_report(report), seed=seed)
    save_report(found, out)
    typer.echo(f"wrote {out}: {len(found.tensors)} tensors, root {found.root}")


def verify(
    model: Annotated[Path, typer.Argument(help="Folder of a model in safetensors.")],
    fingerprint: Annotated[Path, typer.Option(help="Its fingerprint, as `airlock audit fingerprint` writes it.")],
    report: Annotated[Path | None, typer.Option(help="A new report of it, whose Ships are compared too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a checkpoint still is what its fingerprint says, and else in which way it drifted.

    Exit status 1 if it drifted.
    """
    from attribution.drift import verify as verified
    from attribution.fingerprint import load_fingerprint
    from attribution.report import load_report

    found = verified(load_fingerprint(fingerprint), model, None if report is None else load_report(report))
    typer.echo(found.model_dump_json() if as_json else _drifted(found))
    if not found.same:
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON Schema of a report."""
    from attribution.report import report_schema

    typer.echo(json.dumps(report_schema(), indent=2))


def _told(found: Comparison) -> str:
    from attribution.summary import comparison_summary

    said = comparison_summary(found)
    lines = [said.headline, *said.found, *said.sure]
    for head in found.heads:
        if head.change != "stayed":
            before, after = head.before, head.after
            lines.append(f"{head.change:9} {head.head!s:>7}  {before.score:.4g} → {after.score:.4g} nats")
    return "\n".join(lines)


def _drifted(found: Drift) -> str:
    lines = [f"{'same' if found.same else 'drifted: ' + ', '.join(found.kinds)}", *found.says]
    for what, names in (("missing", found.missing), ("new", found.extra)):
        lines += [f"  {name}: {what}" for name in names[:_NAMED]]
        if (more := len(names) - _NAMED) > 0:
            lines.append(f"  and {more} more {what}")
    shown = [each for each in found.largest if each.relative != 0 or "cast" not in found.kinds]  # else said above
    lines += [f"  {tensor.name}: {_changed(tensor.relative)}" for tensor in shown[:_NAMED]]
    return "\n".join(lines)


def _changed(relative: float | None) -> str:
    return "changed" if relative is None else f"changed by about {100 * relative:.2g} % of its norm"
