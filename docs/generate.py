"""Write what the docs take from the code and from `results/`: the map, the figures, the command reference.

`--check` writes nothing and fails if anything is out of date.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import figures
import gateway_figures
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("guard", "classifier", "rag", "attribution", "training")


def main() -> int:
    """Bring every generated text up to date, or say which is not."""
    readme, audit, guard = ROOT / "README.md", ROOT / "docs" / "attribution.md", ROOT / "docs" / "guard.md"
    security = ROOT / "docs" / "security.md"
    texts = {
        readme: _between(_between(readme.read_text("utf-8"), "map", _packages()), "figures", figures.headline()),
        ROOT / "docs" / "map.md": _map(),
        ROOT / "docs" / "figures.md": figures.page(),
        ROOT / "docs" / "cli.md": _commands(),
        security: _between(
            security.read_text("utf-8"), "evasion", gateway_figures.evasion_table(figures.result("evasion"))
        ),
        guard: _between(guard.read_text("utf-8"), "gateway", gateway_figures.table(figures.result("gateway"))),
        audit: _between(
            _between(audit.read_text("utf-8"), "estimate", figures.estimates()), "planted", figures.planted()
        ),
    }
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            typer.echo(f"{path.relative_to(ROOT)} is out of date; run `make docs`", err=True)
        return bool(stale)
    for path in stale:
        path.write_text(texts[path], encoding="utf-8")
    return 0


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"no page has {start} … {end}")
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", text)


def _packages() -> str:
    return "\n".join(f"- **`{package}/`** {_first_line(ROOT / package / '__init__.py')}" for package in PACKAGES)


def _map() -> str:
    """docs/map.md: one line for each module, the first of its docstring."""
    links = " · ".join(f"[{folder}](#{folder})" for folder in (*PACKAGES, "benchmarks"))
    lines = ["# Map", "", "Generated from the code by `make docs`: what each module is for.", "", links, ""]
    for package in PACKAGES:
        lines += [f"## `{package}/`", "", _first_line(ROOT / package / "__init__.py"), ""]
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                lines.append(f"- `{path.relative_to(ROOT / package)}` {_first_line(path)}")
            elif path.name == "__init__.py" and path.parent.name != package:
                lines.append(f"- `{path.parent.relative_to(ROOT / package)}/` {_first_line(path)}")
        lines.append("")
    lines += ["## `benchmarks/`", "", "Measurements that write into `results/`; each is run by itself.", ""]
    lines += [f"- `{path.name}` {_first_line(path)}" for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    return "\n".join([*lines, ""])


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{path} has no docstring")
    return docstring.splitlines()[0]


def _commands() -> str:
    """`--help` of every command."""
    from guard.cli import app

    command = typer.main.get_command(app)
    parts = ["# Commands", "", "Generated from the code by `make docs`.", ""]
    for name in sorted(command.commands):
        below = [words for words in _paths(command, []) if words[0] == name]
        parts.append("- " + " · ".join(f"[{' '.join(words)}](#airlock-{'-'.join(words)})" for words in below))
    parts.append("")
    for words in _paths(command, []):
        said = CliRunner().invoke(app, [*words, "--help"], prog_name="airlock", env={"COLUMNS": "100"}).output
        parts += [f"## airlock {' '.join(words)}", "", "```", said.rstrip(), "```", ""]
    return "\n".join(parts)


def _paths(command: Any, words: list[str]) -> Iterator[list[str]]:  # noqa: ANN401 - typer keeps its click private
    if words:
        yield words
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _paths(inner, [*words, name])


if __name__ == "__main__":
    sys.exit(main())
