"""The command `airlock audit remove`: a new checkpoint in which heads are out for good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def remove_heads(
    model: Annotated[Path, typer.Argument(help="Folder of a causal language model in safetensors; stays as it is.")],
    heads: Annotated[str, typer.Option(help="Heads as layer.head, with commas between: 2.26,3.1")],
    out: Annotated[Path, typer.Option(help="Folder for the new checkpoint; must be new or empty.")],
    method: Annotated[Literal["value", "mean", "query"], typer.Option(help="How they are taken out.")] = "value",
    epsilon: Annotated[float, typer.Option(min=0.0, max=1.0, help="What is left of them; mean has none.")] = 1e-5,
) -> None:
    """Write a copy of a checkpoint without some heads, equal to taking them out while it runs."""
    import shutil
    import tempfile

    from transformers import AutoModelForCausalLM

    from attribution.surgery import NOTE, note, remove
    from attribution.types import Ablation, AttributionError, CheckpointError, HeadId
    from training.manifest import put_in_place, write_json

    try:
        chosen = [HeadId.parse(head) for head in heads.split(",")]
        how = Ablation(method, epsilon)
        if not (model / "config.json").is_file():
            raise CheckpointError(f"{model} is no folder of a model: there is no config.json in it")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CheckpointError(f"--out {out} is there already and not empty; name a new folder")
        done = note(model, chosen, how)
        try:
            stock = AutoModelForCausalLM.from_pretrained(model, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError) as exc:
            raise CheckpointError(f"{model} cannot be loaded as a causal language model: {exc}") from exc
        cut = remove(stock, chosen, how)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as partial:
            finished = Path(partial)
            for path in sorted(model.iterdir()):  # the tokenizer, its templates, licences
                if path.is_file() and path.suffix in (".json", ".txt", ".model", ".jinja", ".md", ""):
                    if ".safetensors" not in path.name:
                        shutil.copyfile(path, finished / path.name)
            cut.save_pretrained(finished)
            write_json(finished / NOTE, done)
            put_in_place(finished, out)
    except (AttributionError, OSError) as exc:
        typer.echo(f"airlock: {' '.join(str(exc).split())}", err=True)
        raise typer.Exit(1) from exc
    typer.echo(f"{out}: {', '.join(map(str, chosen))} taken out by {how}")
