"""Write the structure of other formats as Markdown, which is what passages are cut from."""

from __future__ import annotations

import re
from collections.abc import Sequence

WIDEST = 64  # columns that one cell of a table is taken to reach over; Word has 63
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")


def raised(text: str) -> str:
    """What is set above the line, so that a mark or an exponent does not join the number before it."""
    return text.translate(_RAISED)


class MarkdownWriter:
    """Collects blocks; a blank line lies between two of them, none between two items of one list."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._items = False

    def heading(self, level: int, text: str) -> None:
        """A heading of level 1 to 6."""
        self._block(f"{'#' * min(max(level, 1), 6)} {_line(text)}", text)

    def paragraph(self, text: str) -> None:
        """A paragraph, whose line breaks stay."""
        self._block(_lines(text), text)

    def item(self, text: str, marker: str = "-", depth: int = 0) -> None:
        """An item of a list, `depth` lists deep inside others."""
        indent = "    " * min(depth, 8)
        lines = _lines(text).replace("\n", f"\n{indent}{' ' * (len(marker) + 1)}")
        self._block(f"{indent}{marker} {lines}", text, item=True)

    def code(self, text: str) -> None:
        """A block of code, kept as it is."""
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
        self._block(f"{fence}\n{text.strip(chr(10))}\n{fence}", text)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table, whose first row is its head."""
        width = max(map(len, rows), default=0)
        lines = []
        for row in rows:
            cells = [_line(cell).replace("|", "\\|") for cell in row] + [""] * (width - len(row))
            lines.append(f"| {' | '.join(cells)} |")
        lines.insert(1, "|" + " --- |" * width)
        self._block("\n".join(lines), "".join("".join(row) for row in rows))

    def text(self) -> str:
        """Everything so far."""
        return "".join(self._text)

    def _block(self, block: str, content: str, *, item: bool = False) -> None:
        if not content.strip():
            return
        if self._text:
            self._text.append("\n" if item and self._items else "\n\n")
        self._text.append(block)
        self._items = item


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> str:
    return "\n".join(filter(None, (_line(line) for line in text.split("\n"))))
