"""Show what a stranger wrote, on a page or a terminal, without what would steer either."""

from __future__ import annotations

import unicodedata
from typing import Any

from markupsafe import Markup

_KEPT = "\n\r\t\u200c\u200d"  # the joiners are ordinary in Persian, Indic scripts and emoji


def visible(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    """A text with control, format, private and surrogate characters as code points; a dash for None; else as it is."""
    if value is None:
        return "–"
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c in _KEPT or unicodedata.category(c)[0] != "C" else f"⟨U+{ord(c):04X}⟩" for c in value)
