"""Formulas of HTML (MathML) and DOCX (OMML) as one line, in which no number joins another: a half is 1/2, never 12."""

from __future__ import annotations

import re
from collections.abc import Callable

from lxml import etree

from rag.formats.markdown import raised

MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_ROWS = frozenset(
    "math mrow mstyle mpadded semantics mtd oMath oMathPara num den e sub sup deg fName lim ins moveTo".split()
)
_UNSAID = frozenset("annotation annotation-xml mphantom mprescripts none del moveFrom".split())
_SIGNED = frozenset("nary acc bar groupChr borderBox".split())  # whose properties hold a sign
_INVISIBLE = re.compile("[\u2061-\u2064]|\\s+")  # operators that are not drawn, but part two numbers
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def formula(element: etree._Element, hidden: Callable[[etree._Element], bool]) -> str:
    """The text of a formula; of what has no form in one line, the parts in brackets.

    Args:
        element: <math> of HTML, oMath or oMathPara of DOCX, or a part of them.
        hidden: whether a part is not shown, or struck out.
    """
    kind = _kind(element)
    if kind in ("mi", "mn", "mo", "mtext", "ms"):
        return _INVISIBLE.sub(" ", "".join(map(str, element.itertext())))
    if kind == "r":
        return "".join(child.text or "" for child in element if _kind(child) == "t")
    if kind == "mspace":
        return " "
    parts = [formula(child, hidden) for child in element if _is_said(child) and not hidden(child)]
    if kind in _ROWS:
        return "".join(parts)
    two = len(parts) == 2
    if two and kind in ("mfrac", "f"):
        return " " + "/".join(part if part.isalnum() else f"({part})" for part in parts) + " "  # 1 and 1/2 are not 11/2
    if two and kind in ("msup", "sSup"):
        power = raised(parts[1])
        return parts[0] + (f"^({parts[1]})" if set(power) & set(parts[1]) else power)
    if two and kind in ("msub", "sSub"):
        return f"{parts[0]}_({parts[1]})"
    if kind == "msqrt" or (kind == "rad" and not any(parts[:-1])):
        return f"√({''.join(parts)})"
    begin, end = (_sign(element, kind, name, bracket) for name, bracket in (("begChr", "("), ("endChr", ")")))
    sign = _sign(element, kind, "chr", _UNKNOWN) if kind in _SIGNED else ""
    return f"{sign}{begin}{' '.join(parts)}{end}" if parts else ""


def _kind(element: etree._Element) -> str:
    """The name without its namespace; empty for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _is_said(element: etree._Element) -> bool:
    """Whether it can hold text: no comment, no properties, nothing deleted, no other form of the same."""
    kind = _kind(element)
    struck = kind == "menclose" and "strike" in (element.get("notation") or "")
    return bool(kind) and not kind.endswith("Pr") and kind not in _UNSAID and not struck


def _sign(element: etree._Element, kind: str, name: str, default: str) -> str:
    """A sign that the properties of a part of a DOCX formula name."""
    found = element.find(f"{MATH}{kind}Pr/{MATH}{name}")
    return default if found is None else found.get(f"{MATH}val", "")
