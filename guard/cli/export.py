"""`airlock export`: put the classifier into a form that runs without PyTorch, and prove that it says the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, check_other, print_json, read_texts

if TYPE_CHECKING:
    from classifier.exported import RuntimeManifest

app = typer.Typer()

AUTHORED = Path("data/queries/train.jsonl")


@app.command("export")
def export(
    config: ConfigFile = None,
    data: Annotated[Path, typer.Option(help="JSONL with `text` in each line, on which it must agree with torch.")] = (
        AUTHORED
    ),
    runtime: Annotated[
        list[str] | None, typer.Option(help="onnx or openvino; every one that is installed by default.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16 or int8; every one that this processor has by default.")
    ] = None,
    texts: Annotated[int, typer.Option(min=200, help="Texts to compare on, drawn from the data.")] = 1000,
    calibration: Annotated[
        int, typer.Option(min=1, help="Other texts, of which int8 is fitted to the least sure.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    language: Annotated[str | None, typer.Option(help="Export the model of one of `classifier.languages`.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Export the model of one of `classifiers`.")] = None,
    as_json: Json = False,
) -> None:
    """Export the classifier to ONNX Runtime and OpenVINO, and keep what agrees with torch.

    With `classifier.runtime: auto` a server takes the fastest of them. Exit status 1 if one is refused.
    """
    from classifier.export import FEWEST_TEXTS, Exporter
    from guard.assemble_classifier import export_cache, load_torch_classifier
    from guard.config import load_config
    from guard.errors import BadRequest

    if language is not None and classifier is not None:
        raise typer.BadParameter("--language and --classifier name two models; give one, and export the other after it")
    wanted = _asked(runtime, precision)
    settings = load_config(config)
    check_other(settings, classifier)
    if data == AUTHORED and not data.exists():
        raise BadRequest(
            f"--data: what it is compared on by default, {AUTHORED} of a checkout, is not here; give a JSONL file of "
            f"your own with {texts} texts or more"
        )
    drawn = _draw(list(read_texts(data, "--data")), texts + calibration, seed)
    if len(drawn) < FEWEST_TEXTS:
        raise BadRequest(
            f"--data {data} holds {len(drawn)} different texts; an export is compared on at least {FEWEST_TEXTS}: give "
            "a file with more"
        )
    compared = min(texts, max(FEWEST_TEXTS, len(drawn) * texts // (texts + calibration)))
    encoder, model = load_torch_classifier(settings, language, classifier)
    exporter = Exporter(
        model,
        encoder,
        export_cache(settings, encoder, language, classifier),
        texts=drawn[:compared],
        calibration=drawn[compared:],
        threads=settings.classifier.threads,
    )
    made = []
    for kind, asked in wanted:
        for each in asked:
            made.append(exporter.export(kind, each))
            _say(made[-1], as_json=as_json)
    if not all(manifest.drift.bearable for manifest in made):
        raise typer.Exit(1)


def _asked(runtimes: list[str] | None, asked: list[str] | None) -> list[tuple[Any, list[Any]]]:
    """Each kind of runtime with its precisions."""
    from typing import get_args

    from classifier.exported import PRECISIONS, Kind, Precision, kinds, precisions
    from guard.errors import BadRequest

    for option, given, known in (
        ("--runtime", runtimes, get_args(Kind)),
        ("--precision", asked, get_args(Precision)),
    ):
        unknown = set(given or ()) - set(known)
        if unknown:
            raise typer.BadParameter(f"{option} {', '.join(sorted(unknown))}: need {' or '.join(known)}")
    installed = kinds()
    if not (runtimes or installed):
        raise BadRequest(
            "neither onnxruntime nor openvino is installed; run `pip install 'llm-airlock[onnx]'` or `[openvino]`"
        )
    for name in runtimes or ():
        if name not in installed:
            raise BadRequest(f"--runtime {name} is not installed; run `pip install 'llm-airlock[{name}]'`")
    wanted: list[tuple[Any, list[Any]]] = []
    for kind in installed:
        found = [each for each in PRECISIONS[kind] if each in asked] if asked else list(precisions(kind))
        if found and (not runtimes or kind in runtimes):
            wanted.append((kind, found))
    if not wanted:
        raise BadRequest(
            f"no runtime has --precision {', '.join(asked or ())} here; leave the option out for all there are"
        )
    return wanted


def _draw(texts: list[str], count: int, seed: int) -> list[str]:
    """Different texts in random order, the same for the same seed."""
    import random

    unique = sorted(set(texts))
    random.Random(seed).shuffle(unique)
    return unique[:count]


def _say(manifest: RuntimeManifest, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(manifest), "accepted": manifest.drift.bearable})
        return
    word = "accepted" if manifest.drift.bearable else "REFUSED "
    typer.echo(f"{word}  {manifest.name:14} {manifest.milliseconds:8.2f} ms for 30 tokens; {manifest.drift}")
