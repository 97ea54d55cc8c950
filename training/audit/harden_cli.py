"""The command `airlock harden`: spread a model's refusals over its heads, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attribution.prompts import Template
from training.audit.options import named_as_options, quiet_transformers, refuse_shared, say_replaced
from training.commands import Commands
from training.options import Seed, Threads, counts_of
from training.results import check_places, write_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.audit.harden_proof import Attacker

harden = typer.Typer(
    cls=Commands,
    help="Fine-tune a model so that no few attention heads carry its refusals, and prove it against an attacker. Exit "
    "status 1, and nothing in --out, if it answers more harmful prompts than before, fails more harmless ones, or "
    "gives in to the attacker as often as before.",
)


@harden.callback(invoke_without_command=True)
def run(
    out: Annotated[Path, typer.Option(help="Folder for the hardened model.")],
    model: Annotated[Path | None, typer.Option(help="Folder of a causal language model, in safetensors.")] = None,
    testbed: Annotated[bool, typer.Option("--testbed", help="Harden the small model that ships.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Report of `airlock audit heads`: heads that stand out there are dropped more often."),
    ] = None,
    harmful: Annotated[
        Path | None,
        typer.Option(
            help="Harmful prompts (JSONL, CSV, text), in JSONL with a `response` or without; authored by default."
        ),
    ] = None,
    harmless: Annotated[Path | None, typer.Option(help="Harmless prompts, likewise.")] = None,
    column: Annotated[str | None, typer.Option(help="Column with the prompts.")] = None,
    results: Annotated[Path, typer.Option(help="Before, control and after, as JSON.")] = Path("results/harden.json"),
    html: Annotated[Path | None, typer.Option(help="The same as a page.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    p: Annotated[float, typer.Option(help="Probability of a head to be dropped.")] = 0.5,
    focused: Annotated[float, typer.Option(help="The same of heads that --report names.")] = 0.75,
    mix: Annotated[float, typer.Option(help="Share of rows whose dropped heads attend without distinction.")] = 0.5,
    ramp: Annotated[float, typer.Option(help="Share of the steps in which p rises.")] = 0.3,
    whole: Annotated[float, typer.Option(help="Share of harmful rows in which no head is dropped.")] = 0.25,
    kl: Annotated[float, typer.Option(help="Weight of the divergence from the original on harmless replies.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Of training.")] = 300,
    batch: Annotated[int, typer.Option(help="Lessons of a step, half of them harmful.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate; for all weights of a large model far less.")] = 5e-4,
    rank: Annotated[int, typer.Option(min=0, help="Of LoRA; 0 trains all weights.")] = 16,
    counts: Annotated[str, typer.Option(help="Heads that an attacker takes out, k of ASR(k).")] = "0,1,2,4,8,16",
    attackers: Annotated[str, typer.Option(help="Rankings and ways of taking out.")] = (
        "ships/query,ships/value,sahara/query,sahara/value"
    ),
    held_out: Annotated[float, typer.Option(help="Share of the prompts that is kept out of training.")] = 0.4,
    asked: Annotated[int, typer.Option(min=1, help="Of these, how many of each kind are asked at most.")] = 60,
    margin: Annotated[float, typer.Option(min=0.0, help="How far ASR(0) and benign failures may rise.")] = 0.03,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 48,
    template: Annotated[Template, typer.Option(help="How a prompt is put to the model.")] = "chat",
    system: Annotated[str | None, typer.Option(help="System prompt, for the chat template.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the weights in memory.")] = "float32",
    threads: Threads = 1,
    seed: Seed = 0,
) -> None:
    """Fine-tune a model so that no few attention heads carry its refusals, and prove it against an attacker."""
    if (model is None) != testbed:
        raise typer.BadParameter("give --model FOLDER or --testbed, and only one of them")
    places = {"--results": results, "--html": html}
    check_places(places, [report, harmful, harmless])
    say_replaced(places)

    import torch

    from attribution import testbed as bed
    from attribution.checkpoint import load
    from attribution.keyword_judge import KeywordJudge
    from attribution.render import hardening_html
    from attribution.report import load_report, write_text
    from training.audit.fit_hardened import HardenRecipe
    from training.audit.harden_lessons import Speech, read_examples
    from training.audit.harden_proof import Attack
    from training.audit.train_hardened import Trial, focus_of, train_hardened
    from training.manifest import command, provenance

    def write(done: Mapping[str, Any]) -> None:
        write_result("--results", results, done)
        if html is not None:
            write_text(html, hardening_html(done))

    quiet_transformers()
    torch.set_num_threads(threads)
    recipe = HardenRecipe(p, ramp, mix, whole, kl, steps, batch, lr, rank=rank, focused=focused, seed=seed)
    attack = Attack(counts_of("--counts", counts), _attackers(attackers), seed=seed)
    files = {kind: path or bed.prompts(harmful=kind) for kind, path in ((True, harmful), (False, harmless))}
    rows = {kind: read_examples(path, harmful=kind, column=column) for kind, path in files.items()}
    named = [f"{option} {files[kind]}" for kind, option in ((True, "--harmful"), (False, "--harmless"))]
    prompts = [[each.prompt for each in rows[kind]] for kind in (True, False)]
    refuse_shared(named[0], prompts[0], named[1], prompts[1])
    checkpoint = load(model or bed.path(), device=device, dtype=dtype)
    speech = Speech(checkpoint.tokenizer, KeywordJudge(), template, system, max_new_tokens)
    with named_as_options({"max_new_tokens": "--max-new-tokens"}):
        done = train_hardened(
            checkpoint,
            rows[True],
            rows[False],
            out,
            recipe=recipe,
            speech=speech,
            trial=Trial(attack, held_out, asked, margin, seed),
            focus=focus_of(load_report(report), checkpoint) if report else (),
            name=name,
            provenance={
                "command": command("airlock"),
                **provenance(seed=seed, data=[*dict.fromkeys(files.values()), report]),
            },
            write=write,
            told=lambda line: typer.echo(line, err=True),
        )
    _say(done)
    typer.echo(f"written: {results}{f' and {html}' if html else ''}")
    if not done["accepted"]:
        typer.echo(f"airlock: rejected, nothing was put into {out}: {'; '.join(done['objections'])}", err=True)
        raise typer.Exit(1)
    typer.echo(f"hardened model: {out}")


def _attackers(text: str) -> tuple[Attacker, ...]:
    return tuple(part.strip() for part in text.split(","))  # type: ignore[misc] # what is unknown is refused there


def _say(done: Mapping[str, Any]) -> None:
    """Before, control and after, in a few lines."""
    from training.audit.hardened_card import KINDS, compared

    for what, values in (("", [name for _, name in KINDS]), *compared(done)):
        typer.echo(f"{what:<48}{''.join(f'{value:>18}' for value in values)}")
