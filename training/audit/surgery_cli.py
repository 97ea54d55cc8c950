"""The command `airlock audit remove`: a new checkpoint in which heads are out for good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from training.audit.options import EPSILON, heads_of, quiet_transformers
from training.options import refuse_idle

_COPIED = (".json", ".txt", ".model", ".jinja", "")
_LEFT = ("manifest.json", "*.index.json", "*.safetensors*")  # figures and weights of another model


def remove_heads(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of a causal language model in safetensors; stays as it is.")],
    heads: Annotated[str, typer.Option(help="Heads as layer.head, with commas between: 2.26,3.1")],
    out: Annotated[Path, typer.Option(help="Folder for the new checkpoint; must be new or empty.")],
    method: Annotated[Literal["value", "mean", "query"], typer.Option(help="How they are taken out.")] = "value",
    epsilon: Annotated[float, typer.Option(min=0.0, max=1.0, help="What is left of them; mean has none.")] = 1e-5,
) -> None:
    """Write a copy of a checkpoint without some heads, equal to taking them out while it runs."""
    refuse_idle(context, (EPSILON,), [f"--method {method}"])
    import shutil
    import tempfile

    from attribution.checkpoint import load
    from attribution.surgery import NOTE, note, remove
    from attribution.types import Ablation, AttributionError
    from training.manifest import put_in_place, write_json

    quiet_transformers()
    chosen = heads_of("--heads", heads)
    how = Ablation(method, epsilon)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AttributionError(f"--out {out} is there already and not empty; name a new folder")
    source = load(model, dtype="auto")
    cut = remove(source.model, chosen, how)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as partial:
            finished = Path(partial)
            # the tokenizer, its templates, the licence; not the card, whose figures are another model's
            for path in sorted(model.iterdir()):
                if path.suffix in _COPIED and path.is_file() and not any(map(path.match, _LEFT)):
                    shutil.copyfile(path, finished / path.name)
            cut.save_pretrained(finished)
            write_json(finished / NOTE, note(source, chosen, how))
            put_in_place(finished, out)
    except OSError as exc:
        raise AttributionError(f"--out {out} cannot be written: {exc}; nothing is there") from exc
    typer.echo(f"{out}: {', '.join(map(str, chosen))} taken out by {how}")
