"""`airlock policy`: test a policy against a file of cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    from classifier.types import Verdict
    from guard.policy_cases import Outcome
    from guard.types import Classifier

NAME = "policy"
app = typer.Typer(no_args_is_help=True, help="Test the policy.")


@app.callback()
def _group() -> None:
    """Test the policy."""


@app.command("test")
def run(
    cases: Annotated[Path, typer.Argument(help="Cases in YAML: verdicts or texts, and what is expected.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Hold the policy of a configuration against cases; exit status 1 if one differs.

    A model is loaded only for cases with a `text`.
    """
    from guard.assemble_classifier import load_judge, load_other, load_taxonomy
    from guard.assemble_encoders import Encoders
    from guard.choosing import first_of
    from guard.config import load_config
    from guard.edition import check_categories
    from guard.policy_cases import read_cases, run_cases, unknown_rules, untested
    from guard.rules import unsaid
    from guard.unreachable import unreachable

    settings = load_config(config)
    asked, taxonomy = read_cases(cases), load_taxonomy(settings)
    check_categories(settings, taxonomy)
    rules = [rule.rule() for rule in settings.policy.rules]
    choices = [other.when.rule() for other in settings.classifiers.values()]

    def classify(texts: list[str]) -> list[Verdict]:
        encoders = Encoders(settings)
        judges: dict[int | None, Classifier] = {}
        said = []
        for text, case in zip(texts, (case for case in asked if case.text is not None), strict=True):
            place = first_of(choices, case.origin)
            if place not in judges:
                names = [*settings.classifiers]
                judges[place] = (
                    load_judge(settings, encoders) if place is None else load_other(settings, names[place], encoders)
                )
            said += judges[place].classify([text])
        return said

    outcomes = run_cases(rules, asked, taxonomy, classify, choices)
    left = untested(rules, outcomes)
    warnings = [*unreachable(rules, taxonomy), *unsaid(settings.policy.rules), *unknown_rules(rules, outcomes)]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if as_json:
        said = [outcome.as_dict() for outcome in outcomes]
        passed = len(outcomes) - len(failed)
        print_json(
            {"passed": passed, "failed": len(failed), "cases": said, "untested_rules": left, "warnings": warnings}
        )
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
        _print_table(failed)
        typer.echo(f"{len(failed)} of {len(outcomes)} cases differ")
        if left:
            typer.echo(f"rules that no case reaches: {', '.join(left)}")
    if failed:
        raise typer.Exit(1)


def _print_table(failed: list[Outcome]) -> None:
    if not failed:
        return
    rows = [("case", "expected", "decided", "on")]
    for outcome in failed:
        said, expected = outcome.as_dict(), outcome.case.expect
        wanted = _said(expected.route, expected.rule, expected.shadow or ())
        decided = _said(said["route"], said["rule"], outcome.shadow if expected.shadow is not None else ())
        verdict = f"{said['tier']} {said['category'] or '-'} {said['probability']:.3f}"
        rows.append((outcome.name if len(outcome.name) <= 40 else f"{outcome.name[:39]}…", wanted, decided, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _said(route: str | None, rule: str | None, shadow: tuple[str, ...]) -> str:
    parts = [route or "", f"by {rule}" if rule else "", f"shadow {', '.join(shadow)}" if shadow else ""]
    return " ".join(filter(None, parts)) or "no shadow"
