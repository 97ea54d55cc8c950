"""The command `airlock audit heads`: which attention heads carry a model's refusals; `training.audit.cli` places it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attribution.prompts import Template, choose, encode
from attribution.types import Ablation, Method
from guard.progress import progress_bar
from training.audit.options import EPSILON, named_as_options, quiet_transformers, read_kind, refuse_shared, say_replaced
from training.options import Seed, Threads, counts_of, refuse_idle
from training.results import check_places

if TYPE_CHECKING:
    from attribution.checkpoint import Checkpoint
    from attribution.report import AuditReport
    from training.audit.heads_cost import Cost


_NEEDED = (
    (("--screen",), "without it every head is computed", ("sampled",)),
    (("--asr",), "without it the model is asked nothing", ("asr_ranking", "asr_prompts", "asr_tokens")),
    EPSILON,
)
_OPTIONS = {  # by the library's name of the setting
    "screen": "--screen",
    "group size": "--size",
    "r_main": "--r-main",
    "max_new_tokens": "--asr-tokens",
}


def audit_heads(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option(help="Folder of a causal language model, in safetensors.")] = None,
    testbed: Annotated[bool, typer.Option("--testbed", help="Audit the small model that ships in its place.")] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Harmful prompts: JSONL, CSV, or text with one a line; authored ones by default."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Harmless prompts: say which heads matter more on --prompts than on these, beyond chance."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column with the prompts.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts, chosen at random, at most.")] = 100,
    template: Annotated[
        Template,
        typer.Option(help="How a prompt is put to the model; `plain` is the paper's, `none` the text as it is."),
    ] = "chat",
    also: Annotated[
        Template | None, typer.Option(help="Another template, to see whether it names the same heads.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt, for the chat template.")] = None,
    method: Annotated[Method, typer.Option(help="How a head is taken out.")] = "query",
    epsilon: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the method.")] = 1e-5,
    r_main: Annotated[int, typer.Option(min=1, help="Leading directions that generalized Ships compares.")] = 1,
    size: Annotated[int, typer.Option(min=0, help="Heads of Sahara's group; 0 leaves Sahara out.")] = 3,
    screen: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Compute only so many heads exactly, at least 5 and --size; an estimate chooses. All by default.",
        ),
    ] = None,
    sampled: Annotated[
        int, typer.Option(min=0, help="With --screen: random others, computed to measure what the estimate misses.")
    ] = 16,
    asr: Annotated[
        str | None,
        typer.Option(
            help="Also ask the model without its first k heads, such as 0,1,2,4, the default with --testbed; `no`, the "
            "default with --model, does not."
        ),
    ] = None,
    asr_ranking: Annotated[
        Literal["ships", "sahara"], typer.Option(help="Which ranking these heads are taken from.")
    ] = "ships",
    asr_prompts: Annotated[int, typer.Option(min=1, help="Prompts that are asked, at most.")] = 100,
    asr_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 32,
    engine: Annotated[
        Literal["auto", "exact", "brute"],
        typer.Option(help="`brute` runs the model once for each head and prompt; `auto` does where `exact` cannot go."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "float64"], typer.Option(help="Of the weights in memory.")
    ] = "float32",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens computed at once: less takes less memory.")] = 2048,
    threads: Threads = 1,
    journal: Annotated[
        Path | None, typer.Option(help="JSONL of finished parts, from which an interrupted run goes on.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what the audit will cost, and stop.")] = False,
    out: Annotated[Path, typer.Option(help="The report, as JSON.")] = Path("results/audit.json"),
    html: Annotated[Path | None, typer.Option(help="The report as a page.")] = None,
    per_prompt: Annotated[
        bool,
        typer.Option(help="Keep the scores of every prompt in the report; a comparison is more exact with them."),
    ] = True,
    seed: Seed = 0,
) -> None:
    """Find the attention heads that carry a model's refusals (Ships, Sahara), and write a report."""
    if (model is None) != testbed:
        raise typer.BadParameter("give --model FOLDER or --testbed, and only one of them")
    counts = _counts(asr, testbed=testbed)
    used = [option for option, given in (("--screen", screen), ("--asr", counts)) if given]
    refuse_idle(context, _NEEDED, [*used, f"--method {method}"])
    if also == template:
        raise typer.BadParameter(f"--also {also} is the --template already; name another, or leave it out")
    places = {"--out": out, "--html": html}
    check_places(places, [prompts, against, journal])
    if not estimate:
        say_replaced(places)
    import torch

    from attribution import testbed as bed
    from attribution.audit import Plan
    from attribution.checkpoint import load
    from attribution.keyword_judge import KeywordJudge
    from attribution.report import save_report
    from attribution.summary import summary
    from training.audit.heads import run, runner
    from training.audit.heads_cost import cost
    from training.audit.without_heads import Asked
    from training.manifest import command, provenance

    def told(line: str) -> None:
        typer.echo(line, err=True)

    quiet_transformers()
    torch.set_num_threads(threads)
    path = prompts or bed.prompts(harmful=True)
    rows = read_kind("--prompts", path, column, harmful=True)
    others = read_kind("--against", against, column, harmful=False) if against else []
    refuse_shared(f"--prompts {path}", rows, f"--against {against}", others)
    chosen, beside = choose(rows, limit, seed), choose(others, limit, seed)
    with named_as_options(_OPTIONS):
        plan = Plan(Ablation(method, epsilon), size, r_main, screen, sampled, seed=seed)
    checkpoint = load(model or bed.path(), device=device, dtype=dtype)
    if estimate:
        with named_as_options(_OPTIONS):
            ids = encode(checkpoint.tokenizer, chosen, template, system)
            how = runner(checkpoint, engine, batch_tokens, told)
            found = cost(how, checkpoint, ids, plan, batch_tokens, templates=1 + bool(also), beside=len(beside))
        _say_cost(checkpoint, found)
        return
    asked = Asked(counts, KeywordJudge(), prompts=asr_prompts, max_new_tokens=asr_tokens, ranking=asr_ranking)
    with progress_bar("heads × prompts") as progress, named_as_options(_OPTIONS):
        report = run(
            checkpoint,
            chosen,
            plan,
            file=path.name,
            template=template,
            system=system,
            engine=engine,
            batch_tokens=batch_tokens,
            other_templates=[also] if also else [],
            against=beside,
            against_file=against.name if against else "",
            asked=asked if counts else None,
            journal=journal,
            provenance={"command": command("airlock"), **provenance(seed=seed, data=[path, against])},
            keep_prompts=per_prompt,
            told=told,
            progress=progress,
        )
    save_report(report, out)
    if html is not None:
        from attribution.render import report_html
        from attribution.report import write_text

        write_text(html, report_html(report))
    typer.echo(summary(report).headline)
    _table(report)
    typer.echo(f"written: {out}{f' and {html}' if html else ''}")


def _counts(text: str | None, *, testbed: bool) -> tuple[int, ...]:
    """Values of k for ASR(k): the test bed is quick enough to be asked in any case."""
    if text is None:
        return (0, 1, 2, 4) if testbed else ()
    if text == "no":
        return ()
    return counts_of("--asr", text)


def _say_cost(checkpoint: Checkpoint, cost: Cost) -> None:
    minutes = cost.seconds / 60
    took = f"{cost.seconds:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
    took = took if minutes < 120 else f"{minutes / 60:.1f} hours"
    typer.echo(f"{checkpoint.path.resolve().name}: about {took} for {cost.forwards:,} heads × prompts")
    typer.echo(f"memory beside the weights: about {max(cost.bytes / 2**20, 1):,.0f} MiB; answers for --asr come on top")


def _table(report: AuditReport) -> None:
    """What was found, in a few lines."""
    from attribution.summary import counted, screened, too_few

    noise = report.ships.noise
    share = "share" if report.whole else f"share of the {report.computed:,} heads computed"
    rows = report.ships.ranking[:8]
    intervals = ["–" if report.few else f"[{row.low:.4g}, {row.high:.4g}]" for row in rows]
    wide = max(map(len, ("95 % interval", *intervals))) + 2
    typer.echo(f"{'head':<8}{'Ships (nats)':<14}{'95 % interval':<{wide}}{share}")
    for row, interval in zip(rows, intervals, strict=True):
        mark = " *" if row.stands_out else ""
        typer.echo(f"{row.head!s:<8}{row.score:<14.4g}{interval:<{wide}}{row.share:.3f}{mark}")
    if report.few:
        typer.echo(f"no intervals and no stars: {too_few(report)}")
    else:
        typer.echo(
            f"* interval above {noise.chance:.4g}, what chance gives the best head; median head {noise.median:.4g}"
        )
    if (against := report.against) is not None:
        named = ", ".join(
            f"{head} (+{against.difference[head.layer][head.head] or 0.0:.4g})" for head in against.heads[:8]
        )
        typer.echo(
            f"matter more than on {against.prompts.count} harmless prompts by over {against.chance:.4g}: "
            f"{named or 'no head'}"
        )
    effective = report.ships.effective_heads
    heads = report.model.layers * report.model.heads
    among = f"{heads}" if report.whole else f"the {report.computed:,} computed (of {heads:,})"
    typer.echo(f"effective number of heads: {_said(effective.value, 1)} of {among}")
    if report.sahara:
        steps = ", ".join(f"{step.head} ({step.degrees:.2f}°)" for step in report.sahara)
        typer.echo(f"Sahara: {steps}")
    if (screen := report.screen) is not None:
        typer.echo(f"screen: {screened(screen, whole=report.whole)}")
    if (asked := report.behaviour) is not None:
        typer.echo(
            f"{counted(asked.prompts, 'harmful prompt')} asked; judge: {asked.judge}{', weak' * asked.weak_judge}"
        )
        for point in asked.points:
            beside = "" if point.random is None else f", random heads {_said(point.random.value)}"
            asr = point.asr
            typer.echo(
                f"ASR without {counted(point.k)}: {_said(asr.value)} [{_said(asr.low)}, {_said(asr.high)}]{beside}"
            )


def _said(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
