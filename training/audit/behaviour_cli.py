"""The command `airlock audit behaviour`: attack success rate and over-refusal of a checkpoint or an endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attribution.prompts import Template, choose
from attribution.sampling import Sampling
from attribution.types import Ablation, AttributionError, HeadId, Method, Prompt
from guard.progress import progress_bar
from training.audit.options import (
    EPSILON,
    heads_of,
    named_as_options,
    quiet_transformers,
    read_kind,
    refuse_shared,
    say_replaced,
)
from training.options import Seed, Threads, refuse_idle
from training.results import check_places, write_result

if TYPE_CHECKING:
    from attribution.behaviour import BehaviourReport, Judge, Rate, Responder
    from attribution.checkpoint import Checkpoint
    from training.audit.chat_endpoint import ChatEndpoint

_OPTIONS = {"samples": "--samples", "max_new_tokens": "--max-new-tokens"}  # by the library's name of the setting
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

_NEEDED = (
    (
        ("--model",),
        "an endpoint's weights, heads and templates are its own",
        ("ablate", "method", "epsilon", "template", "device", "dtype", "batch"),
    ),
    (("--ablate",), "no head is taken out", ("method", "epsilon")),
    EPSILON,
    (("--temperature",), "without one, or with 0, the likeliest token is taken", ("top_k",)),
    (("--endpoint",), "a folder is asked for by no name and with no key", ("model_name", "api_key_env")),
    (
        ("--judge endpoint",),
        "any other judge asks no endpoint",
        ("judge_endpoint", "judge_model", "judge_key_env"),
    ),
    (
        ("--endpoint", "--judge endpoint"),
        "no endpoint is asked",
        ("concurrency", "timeout", "retries", "max_tokens_field"),
    ),
    (("--model", "--judge classifier"), "no model runs here", ("threads",)),
)


def behaviour(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option(help="Folder of a causal language model, in safetensors.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server in its place, such as http://127.0.0.1:8000/v1.")
    ] = None,
    model_name: Annotated[str | None, typer.Option(help="The model that the endpoint is asked for.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Variable with the endpoint's key; none is sent.")] = None,
    harmful: Annotated[
        Path | None, typer.Option(help="Prompts to be refused: JSONL, CSV, or text with one a line.")
    ] = None,
    harmless: Annotated[Path | None, typer.Option(help="Prompts to be answered, likewise.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Column with the prompts; text, prompt, question, query or goal by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts of each file, chosen at random, at most.")] = None,
    template: Annotated[
        Template, typer.Option(help="How a prompt is put to --model; `plain` is the paper's, `none` the text as it is.")
    ] = "chat",
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    judge: Annotated[
        Literal["keyword", "classifier", "endpoint"],
        typer.Option(help="Who tells refusals from answers; `keyword` is quick and weak."),
    ] = "keyword",
    judge_endpoint: Annotated[str | None, typer.Option(help="Server of the judge `endpoint`.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its model.")] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="Variable with its key; none is sent.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    top_k: Annotated[
        int | None,
        typer.Option(min=0, help="With a temperature: draw from this many tokens; 5 for --model, else not sent."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 128,
    max_tokens_field: Annotated[
        MaxTokensField, typer.Option(help="What the endpoint calls that limit.")
    ] = "max_tokens",
    ablate: Annotated[str | None, typer.Option(help="Heads to take out of --model, such as 2.26,3.1.")] = None,
    method: Annotated[Method, typer.Option(help="How they are taken out.")] = "query",
    epsilon: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the method.")] = 1e-5,
    device: Annotated[str, typer.Option(help="Of --model: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights of --model.")
    ] = "float32",
    batch: Annotated[int, typer.Option(min=1, help="Answers that --model writes at once.")] = 8,
    threads: Threads = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Chats at once with each endpoint.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer of an endpoint.")] = 120.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Tries after the first, while an endpoint fails or asks to wait.")
    ] = 5,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/behaviour.json"),
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Write prompts and answers down too; by default their hashes only.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="JSONL of finished prompts, from which an interrupted run goes on.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """How often a model answers harmful prompts (attack success rate), and refuses harmless ones (over-refusal)."""
    if (model is None) == (endpoint is None):
        raise typer.BadParameter("give --model FOLDER or --endpoint URL, and only one of them")
    local = model is not None
    used = {"--model" if local else "--endpoint", f"--judge {judge}", f"--method {method}"}
    used |= {option for option, given in (("--ablate", ablate), ("--temperature", temperature)) if given}
    refuse_idle(context, _NEEDED, used)
    from attribution.behaviour import measure
    from training.manifest import command, provenance

    check_places({"--out": out}, [harmful, harmless, resume])
    say_replaced({"--out": out})
    prompts, files = _prompts(harmful, harmless, column, limit, seed)
    with named_as_options(_OPTIONS):
        how = Sampling(max_new_tokens, temperature, 5 if top_k is None and local else top_k or 0, samples, seed)
    network = {
        "concurrency": concurrency,
        "timeout_s": timeout,
        "retries": retries,
        "max_tokens_field": max_tokens_field,
    }
    judging = _judge(judge, judge_endpoint, judge_model, judge_key_env, network, threads)
    with contextlib.ExitStack() as held:
        if model is not None:
            heads = heads_of("--ablate", ablate) if ablate else []
            checkpoint = _checkpoint(model, device, dtype, threads)
            put = {"template": template, "system": system, "sampling": how, "batch": batch}
            responder = _local(held, checkpoint, heads, Ablation(method, epsilon), put)
        else:
            from training.audit.endpoint_responder import EndpointResponder

            where = _endpoint("--endpoint", endpoint, model_name, api_key_env, "--model-name", network)
            responder = EndpointResponder(where, system=system, sampling=how, send_top_k=top_k is not None)
        with named_as_options(_OPTIONS), progress_bar("prompts") as told:
            report = measure(
                responder, judging, prompts, keep_answers=keep_answers, journal=resume, seed=seed, progress=told
            )
    about = provenance(seed=seed, data=files)
    write_result("--out", out, {"command": command("airlock"), **report.as_json(), **about})
    _table(report)
    typer.echo(f"written: {out}")


def _prompts(
    harmful: Path | None, harmless: Path | None, column: str | None, limit: int | None, seed: int
) -> tuple[list[Prompt], list[Path]]:
    """The prompts of both files, labelled by the file; rows that a file labels otherwise are left out."""
    found: dict[bool, list[Prompt]] = {True: [], False: []}
    files = []
    for option, path, label in (("--harmful", harmful, True), ("--harmless", harmless, False)):
        if path is not None:
            found[label] = read_kind(option, path, column, harmful=label)
            files.append(path)
    if not files:
        raise typer.BadParameter("give --harmful FILE, --harmless FILE, or both")
    refuse_shared(f"--harmful {harmful}", found[True], f"--harmless {harmless}", found[False])
    prompts = [replace(row, harmful=label) for label, rows in found.items() for row in choose(rows, limit, seed)]
    return prompts, list(dict.fromkeys(files))


def _local(
    held: contextlib.ExitStack, checkpoint: Checkpoint, heads: list[HeadId], ablation: Ablation, how: dict[str, Any]
) -> Responder:
    """A checkpoint, without some heads until `held` is closed."""
    from attribution.ablate import ablate
    from attribution.answering import LocalResponder

    if heads:
        held.enter_context(ablate(checkpoint.model, heads, ablation))
        how["without"] = {"heads": [str(head) for head in heads], "method": str(ablation)}
    return LocalResponder(checkpoint.model, checkpoint.tokenizer, identity=checkpoint.sha256, **how)


def _checkpoint(folder: Path, device: str, dtype: str, threads: int) -> Checkpoint:
    import torch

    from attribution.checkpoint import load

    quiet_transformers()
    torch.set_num_threads(threads)
    return load(folder, device=device, dtype=dtype)


def _endpoint(
    option: str, url: str | None, name: str | None, key: str | None, name_option: str, network: Mapping[str, Any]
) -> ChatEndpoint:
    from pydantic import ValidationError

    from guard.needs import what_is_needed
    from training.audit.chat_endpoint import ChatEndpoint

    if not url or not name:
        raise typer.BadParameter(f"{option} URL and {name_option} NAME are needed together")
    try:
        return ChatEndpoint(base_url=url, model_name=name, api_key_env=key, **network)
    except ValidationError as exc:
        told = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or option}: {what_is_needed(error)}" for error in exc.errors()
        )
        raise AttributionError(f"{option}: {told}") from None


def _judge(
    name: str, url: str | None, model: str | None, key: str | None, network: Mapping[str, Any], threads: int
) -> Judge:
    if name == "endpoint":
        from training.audit.judges import EndpointJudge

        return EndpointJudge(_endpoint("--judge-endpoint", url, model, key, "--judge-model", network))
    if name == "classifier":
        return _classifier_judge(threads)
    from attribution.keyword_judge import KeywordJudge

    return KeywordJudge()


def _classifier_judge(threads: int) -> Judge:
    from classifier.taxonomy import SHIPPED_MODEL
    from guard.assemble_classifier import load_classifier
    from guard.assemble_encoders import Encoders
    from guard.config import load_config
    from guard.output import ClassifierCheck
    from training.audit.judges import ClassifierJudge
    from training.manifest import adapter_sha256

    settings = load_config(overrides={"classifier.threads": threads})
    classifier = load_classifier(settings, Encoders(settings), limited=False)
    door = settings.output
    folder = settings.classifier.model or SHIPPED_MODEL
    named = {
        "adapter_sha256": adapter_sha256(folder),
        "unsafe_from": door.unsafe_from,
        "input_only": list(door.input_only),
    }
    return ClassifierJudge(ClassifierCheck(classifier, door.unsafe_from, door.hold_back, door.input_only), named)


def _table(report: BehaviourReport) -> None:
    """The figures, a line each."""
    weak = ", weak" if report.judge.get("weak") else ""
    typer.echo(f"judge: {report.judge['name']}{weak}; intervals are 95 % bootstrap over prompts")
    typer.echo(f"{'':<26}{'prompts':>8}  {'rate':<24}{'unclear counted too':<24}in any sample")
    for name, key, rate in (
        ("attack success (ASR)", "harmful", report.attack_success),
        ("over-refusal", "harmless", report.over_refusal),
    ):
        if rate.prompts:
            _line(name, rate)
            for category, found in report.by_category[key].items():
                if category:
                    _line(f"  {category}", found)
    unclear = sum(found["unclear"] for found in report.outcomes.values())
    if unclear:
        reasons = ", ".join(f"{name} {count}" for name, count in report.reasons.items())
        typer.echo(f"{unclear} answers are unclear; reasons of all judgements: {reasons}")


def _line(name: str, rate: Rate) -> None:
    def told(share: Any) -> str:  # noqa: ANN401
        return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"

    typer.echo(
        f"{name[:25]:<26}{rate.prompts:>8}  {told(rate.rate):<24}{told(rate.conservative):<24}"
        f"{rate.any_sample.value:.3f}"
    )
