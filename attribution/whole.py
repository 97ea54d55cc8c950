"""Write a text file whole or not at all."""

from __future__ import annotations

from pathlib import Path


def partial_of(path: Path) -> Path:
    """Where a file is written before it is put in its place."""
    return path.with_name(path.name + ".partial")


def write_whole(path: Path, text: str) -> None:
    """Write a file, making its folder; whole or not at all."""
    partial = partial_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
