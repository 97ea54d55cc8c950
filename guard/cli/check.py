"""`airlock check` and `airlock classify`: what would be decided on a text, and how texts are classified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, check_other, print_json, read_text, read_texts, shown_in_line, text_of

if TYPE_CHECKING:
    from classifier.types import Verdict
    from guard.engine import Guard
    from guard.types import Classifier, Decision, Finding

app = typer.Typer()

_WINDOW, _EXAMPLE = 200, 80  # characters of a window and of an example that a terminal gets


@app.command("check")
def check(
    text: Annotated[str, typer.Argument(help="What a user sends, or - for standard input.")],
    answer: Annotated[
        str | None, typer.Option(help="What the model answers: say what the output door makes of it.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the operator told the model beforehand.")] = None,
    config: ConfigFile = None,
    tenant: Annotated[str | None, typer.Option(help="Who sends it, for rules and `classifiers` by tenant.")] = None,
    model: Annotated[str, typer.Option(help="The model asked for, for rules and `classifiers` by model.")] = "",
    endpoint: Annotated[
        str, typer.Option(help="The wire that it comes by, for rules and `classifiers` by endpoint.")
    ] = "chat",
    why: Annotated[
        bool, typer.Option("--why", help="Also the window that decided, its weightiest words, the nearest examples.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what the policy decides on a text, and by which rule. Nothing is forwarded or written down.

    Where `output.responses` is off, it judges the answer in shadow mode.
    """
    import asyncio
    from contextlib import closing
    from dataclasses import asdict
    from typing import get_args

    from guard.assemble import load_guard
    from guard.config import NO_JOURNAL, load_config
    from guard.rules import EndpointName
    from guard.types import Origin, Turn

    if endpoint not in (known := get_args(EndpointName)):
        raise typer.BadParameter(f"--endpoint {endpoint}: need one of {', '.join(known)}")
    origin = Origin(tenant, model, endpoint)
    given = read_text(text)
    turns = [*([Turn("system", system)] if system else []), Turn("user", given)]
    settings = load_config(config, NO_JOURNAL)
    if answer and not settings.output.responses.asked:
        settings = load_config(config, {**NO_JOURNAL, "output.responses.mode": "shadow"})

    async def judged(guard: Guard) -> tuple[Decision, Finding | None]:
        decision = await guard.decide(turns, origin)
        return decision, await guard.find([answer], decision) if answer else None

    with closing(load_guard(settings)) as guard:
        decision, finding = asyncio.run(judged(guard))
        found = asyncio.run(guard.explain(turns, decision)) if why else None
    said = decision.as_dict() | ({"why": found.as_dict() if found else None} if why else {})
    noticed = list(decision.asked.noticed) if answer and decision.asked else []
    if answer:
        said |= {"output": asdict(finding) if finding else None, "output_shadow": noticed}
    if as_json:
        print_json(said)
    else:
        _print_decision(decision)
        for line in why_lines(found.as_dict()) if found else ():
            typer.echo(line)
        for shadow in decision.shadow:
            typer.echo(f"  shadow    {shadow.rule} would say {shadow.route.value}")
        if answer:
            typer.echo(f"  answer    {f'stopped by {finding.rule}' if finding else 'may leave'}")
        for rule in noticed:
            typer.echo(f"  shadow    {rule} would stop the answer")
    if decision.cause:
        raise typer.Exit(1)


@app.command("classify")
def classify(
    text: Annotated[
        str | None, typer.Argument(help="A text, or - for lines of standard input: texts or JSON with `text`.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSONL with `text` in each line.")] = None,
    config: ConfigFile = None,
    classifier: Annotated[
        str | None, typer.Option(help="Ask the model of one of `classifiers`; `classifier` without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Classify texts of any length: one line each, in order."""
    from guard.assemble_classifier import load_judge, load_other
    from guard.assemble_encoders import Encoders
    from guard.config import load_config

    if (text is None) == (file is None):
        raise typer.BadParameter("give a text, - for standard input, or --file, and only one of them")
    texts = list(read_texts(file, "--file")) if file else _from_argument(str(text))
    settings = load_config(config)
    check_other(settings, classifier)
    encoders = Encoders(settings)
    judge: Classifier
    if classifier is None:
        judge = load_judge(settings, encoders, limited=False)
    else:
        judge = load_other(settings, classifier, encoders, limited=False)
    for start in range(0, len(texts), 64):
        for verdict in judge.classify(texts[start : start + 64]):
            if as_json:
                print_json(_verdict_dict(verdict))
            else:
                chosen = verdict.tiers[verdict.tier]
                doubt = "" if verdict.sure else "  unsure"
                typer.echo(f"{verdict.tier.label:20} {verdict.category:26} {chosen:.3f}{doubt}")


def _print_decision(decision: Decision) -> None:
    said, verdict = decision.as_dict(), decision.verdict
    if verdict is None:
        typer.echo(f"{said['route']} by rule {said['rule']}: {said['cause']}")
        return
    typer.echo(f"{said['route']} by rule {said['rule']}")
    typer.echo(f"  tier      {said['tier']}  (" + ", ".join(f"{t} {p:.3f}" for t, p in said["tiers"].items()) + ")")
    typer.echo(f"  category  {said['category']}  ({verdict.probability:.3f})")
    if not verdict.sure:
        typer.echo("  unsure    neither surely Safe nor surely risky at the budgets of the model")
    typer.echo(f"  read      {said['coverage']:.0%} of {said['tokens']} tokens in {said['windows']} windows")


def why_lines(why: Mapping[str, Any]) -> Iterator[str]:
    """Why, for a terminal."""

    def cut(text: str, most: int) -> str:
        line = shown_in_line(text)
        return line if len(line) <= most else line[: most - 1] + "…"

    read = "decoded from the text" if why["encoded"] else "as read"
    yield f"  window    {cut(why['window']['text'], _WINDOW)}  ({read})"
    weighed = [f"{cut(each['word'], _WINDOW)} {each['weight']:+.2f}" for each in why["words"]]
    alone = "" if why["words_alone"] else "  (words far from the weightiest were weighed together)"
    yield f"  words     {', '.join(weighed) or 'none weighs towards this tier'}{alone}"
    for each in why["examples"]:
        yield f"  like      {each['similarity']:.2f} {each['category']:24} {cut(each['text'], _EXAMPLE)}"


def _from_argument(text: str) -> list[str]:
    """The text of an argument, or those of standard input: lines, or JSONL where the first line has `text`."""
    from guard.errors import BadRequest

    given = read_text(text)
    if text != "-":
        return [given]
    lines = [(number, line) for number, line in enumerate(given.split("\n"), 1) if line.strip()]
    try:
        text_of(lines[0][1], "")
    except BadRequest:
        return [line for _, line in lines]
    return [text_of(line, f"standard input, line {number}") for number, line in lines]


def _verdict_dict(verdict: Verdict) -> dict[str, Any]:
    return {
        "tier": verdict.tier.label,
        "category": verdict.category,
        "tiers": {tier.label: round(probability, 6) for tier, probability in verdict.tiers.items()},
        "probability": round(verdict.probability, 6),
        "sure": verdict.sure,
        "coverage": round(verdict.coverage.read, 4),
        "tokens": verdict.coverage.tokens,
        "windows": verdict.coverage.windows,
        "window": {"start": verdict.window.start, "end": verdict.window.end},
        "model": verdict.model,
    }
