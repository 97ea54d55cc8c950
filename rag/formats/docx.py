"""DOCX: paragraphs, headings, lists and tables of the body, and the core properties."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import docx
from docx.document import Document as WordDocument
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.exceptions import OpcError
from docx.opc.part import XmlPart
from docx.oxml.exceptions import InvalidXmlError
from docx.oxml.ns import qn
from docx.styles.style import BaseStyle
from lxml import etree

from rag.formats import Extracted
from rag.formats.formulas import MATH, formula
from rag.formats.markdown import WIDEST, MarkdownWriter, raised
from rag.types import Limits, Unreadable

# What python-docx raises where a part is missing or another than it expects.
_DAMAGE = (OpcError, InvalidXmlError, etree.XMLSyntaxError, AttributeError, KeyError, TypeError, ValueError)
_CHUNK = 64 * 1024
_LEFT_OUT = frozenset(
    {
        qn("w:del"),
        qn("w:moveFrom"),
        qn("w:rt"),  # how the characters below are read
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    }
)
_PROPERTIES = {
    "title": "{http://purl.org/dc/elements/1.1/}title",
    "author": "{http://purl.org/dc/elements/1.1/}creator",
    "published": "{http://purl.org/dc/terms/}created",
}
_STRUCK = ("w:vanish", "w:strike", "w:dstrike")
_ALIGN = "w:vertAlign"
_SYMBOLS = {  # of the font Symbol, whose characters are at home nowhere else
    **dict(enumerate(" !∀#∃%&∋()∗+,−./0123456789:;<=>?", 0x20)),
    **dict(enumerate("≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_", 0x40)),
    **dict(enumerate("αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼", 0x61)),
    **dict(enumerate("€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…", 0xA0)),
    **dict(enumerate("⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓", 0xC4)),
}
_BREAKS = {qn("w:tab"): " ", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}


def read_docx(data: bytes, limits: Limits) -> list[Extracted]:
    """The text of the body as it stands once all tracked changes are accepted; no headers, footers or notes."""
    _check_package(data, limits)
    try:
        document = docx.Document(io.BytesIO(data))
        walk = _Walk(document)
        walk.body()
        metadata = _metadata(document)
    except _DAMAGE as exc:
        raise Unreadable(f"is a damaged DOCX ({exc}); save it again as DOCX") from exc
    return [Extracted(walk.out.text(), metadata, unseen="\n".join(walk.hidden))]


def _check_package(data: bytes, limits: Limits) -> None:
    """Unpack once, keeping nothing: the size that is declared first, then the size that there is."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            entries = package.infolist()
            _check_size(sum(entry.file_size for entry in entries), limits)
            if any(entry.flag_bits & 1 for entry in entries):
                raise Unreadable("is an encrypted DOCX; save it without a password")
            size = 0
            for entry in entries:
                beginning = b""
                with package.open(entry) as part:
                    while chunk := part.read(_CHUNK):
                        beginning = beginning or chunk
                        size += len(chunk)
                        _check_size(size, limits)
                if b"<!DOCTYPE" in beginning or b"<!ENTITY" in beginning:
                    raise Unreadable(
                        f"declares entities in {entry.filename}, which DOCX forbids; save it again as DOCX"
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as exc:
        if data.startswith(b"\xd0\xcf\x11\xe0"):  # OLE: how Word writes encrypted files, and wrote .doc
            raise Unreadable("is an encrypted DOCX or an old DOC; save it as DOCX without a password") from exc
        raise Unreadable(f"is a truncated or damaged DOCX ({exc}); fetch it again") from exc


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.unpacked:
        raise Unreadable(f"unpacks to {size} bytes or more, above the {limits.unpacked} allowed: it may be a zip bomb")


def _metadata(document: WordDocument) -> dict[str, str]:
    """From the part itself: python-docx invents properties where there are none, and drops a date that is none."""
    try:
        core = document.part.package.part_related_by(RELATIONSHIP_TYPE.CORE_PROPERTIES)
    except KeyError:
        return {}
    if not isinstance(core, XmlPart):
        return {}
    found = {key: (core.element.findtext(name) or "").strip() for key, name in _PROPERTIES.items()}
    return {key: value for key, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class _Style:
    """A style with all that it takes from those it is based on.

    Attributes:
        names: its own, then theirs.
        said: what it says of hidden, struck and raised words.
    """

    names: tuple[str, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, style_id: str | None, styles: Mapping[str | None, BaseStyle]) -> _Style:
        names: list[str] = []
        said: dict[str, str] = {}
        seen: set[str | None] = set()
        while style_id in styles and style_id not in seen:
            seen.add(style_id)
            style = styles[style_id]
            names.append(style.name or "")
            for name in (*_STRUCK, _ALIGN):
                mark = style.element.find(_path("w:rPr", name))
                if mark is not None:
                    said.setdefault(name, mark.get(qn("w:val"), "true"))
            style_id = _value(style.element, "w:basedOn")
        return cls(tuple(names), said)


_NO_STYLE = _Style()


class _Walk:
    """Goes through the paragraphs and tables in the order of the text, also inside content controls and text boxes."""

    def __init__(self, document: WordDocument) -> None:
        self.out = MarkdownWriter()
        self.hidden: list[str] = []
        self._body = document.element.body
        styles: dict[str | None, BaseStyle] = {style.style_id: style for style in document.styles}
        self._styles = {style_id: _Style.of(style_id, styles) for style_id in styles}

    def body(self) -> None:
        self._inside(self._body)

    def _inside(self, element: etree._Element) -> None:
        before = ""
        for child in element:
            if child.tag in _LEFT_OUT:
                continue
            if child.tag == qn("w:p"):
                before = self._paragraph(child, before)
            elif child.tag == qn("w:tbl"):
                self._table(child)
            else:
                self._inside(child)

    def _paragraph(self, element: etree._Element, before: str = "") -> str:
        """Writes a paragraph behind the text of those whose mark is deleted; gives back such a text."""
        text = before + "".join(self._text(element))
        following = next(element.itersiblings(*map(qn, ("w:p", "w:tbl", "w:sdt"))), None)
        goes_on = _ends_deleted(element) and following is not None and following.tag == qn("w:p")
        if not goes_on:
            self._block(element, text)
        for box in element.iter(qn("w:txbxContent")):
            if not any(above.tag in _LEFT_OUT for above in box.iterancestors()):
                self._inside(box)
        return text if goes_on else ""

    def _block(self, element: etree._Element, text: str) -> None:
        names = self._style(element, "w:pPr", "w:pStyle").names
        levels = [name.removeprefix("Heading ") for name in names if re.fullmatch(r"Heading \d+", name)]
        if levels:
            self.out.heading(int(levels[0]), text)
        elif "Title" in names:
            self.out.heading(1, text)
        elif any(name.startswith("List ") for name in names) or element.find(_path("w:pPr", "w:numPr")) is not None:
            self.out.item(text)
        else:
            self.out.paragraph(text)

    def _text(self, element: etree._Element) -> Iterator[str]:
        """The text of one paragraph; hidden and struck runs are put aside, text boxes have paragraphs of their own."""
        for child in element:
            if child.tag in _LEFT_OUT or child.tag == qn("w:txbxContent"):
                continue
            if child.tag == qn("w:r") and self._vanishes(child):
                self.hidden.extend(text.text or "" for text in child.iter(qn("w:t")))
            elif child.tag == qn("w:t"):
                yield child.text or ""
            elif child.tag == qn("w:r") and self._is_raised(child):
                yield from map(raised, self._text(child))
            elif child.tag == qn("w:sym"):
                yield _symbol(child)
            elif child.tag in (f"{MATH}oMath", f"{MATH}oMathPara"):
                yield formula(child, self._vanishes)
            elif child.tag in _BREAKS:
                yield _BREAKS[child.tag]
            elif child.tag not in (qn("w:pPr"), qn("w:rPr")):  # where w:tab is a tab stop
                yield from self._text(child)

    def _table(self, element: etree._Element) -> None:
        rows: list[list[str]] = []
        cells = 0
        for row in element.iter(qn("w:tr")):
            rows.append(self._row(row, rows[-1] if rows else []))
            cells = max(cells, sum(1 for _ in row.iter(qn("w:tc"))))
        if cells > 1:
            self.out.table(rows)
        else:  # a frame around text
            for cell in element.iter(qn("w:tc")):
                self._inside(cell)

    def _row(self, row: etree._Element, above: Sequence[str]) -> list[str]:
        """The cells of a row; one that reaches over several columns or rows stands in each."""
        cells = [""] * min(int(_value(row, "w:trPr", "w:gridBefore") or 0), WIDEST)
        for cell in row.iter(qn("w:tc")):
            text = "\n".join("".join(self._text(p)) for p in cell.iter(qn("w:p")))
            merged = cell.find(_path("w:tcPr", "w:vMerge"))
            if merged is not None and merged.get(qn("w:val")) != "restart" and not text.strip():
                text = "".join(above[len(cells) : len(cells) + 1])
            cells += [text] * min(max(int(_value(cell, "w:tcPr", "w:gridSpan") or 1), 1), WIDEST)
        return cells

    def _vanishes(self, run: etree._Element) -> bool:
        """Whether a run is hidden or struck out, by itself or by a style."""
        return any(self._said(run, name) not in (None, "0", "false", "off") for name in _STRUCK)

    def _is_raised(self, run: etree._Element) -> bool:
        return self._said(run, _ALIGN) == "superscript"

    def _said(self, run: etree._Element, name: str) -> str | None:
        """What a run, its style or its paragraph's style says of a property, the nearest first; None if none does."""
        mark = run.find(_path("w:rPr", name))
        if mark is not None:
            return str(mark.get(qn("w:val"), "true"))
        paragraph = next(run.iterancestors(qn("w:p")), run)
        own, around = self._style(run, "w:rPr", "w:rStyle"), self._style(paragraph, "w:pPr", "w:pStyle")
        return own.said.get(name, around.said.get(name))

    def _style(self, element: etree._Element, *path: str) -> _Style:
        return self._styles.get(_value(element, *path), _NO_STYLE)


def _path(*names: str) -> str:
    return "/".join(map(qn, names))


def _value(element: etree._Element, *names: str) -> str | None:
    found = element.find(_path(*names))
    return None if found is None else found.get(qn("w:val"))


def _ends_deleted(paragraph: etree._Element) -> bool:
    """Whether the mark at its end is deleted or moved away, so that the next paragraph goes on with it."""
    return any(paragraph.find(_path("w:pPr", "w:rPr", name)) is not None for name in ("w:del", "w:moveFrom"))


def _symbol(element: etree._Element) -> str:
    """A character that is named by its font and number; one that is unknown is seen to be."""
    code = int(element.get(qn("w:char"), "0"), 16)
    if element.get(qn("w:font")) == "Symbol":
        return _SYMBOLS.get(code & 0xFF, "\N{REPLACEMENT CHARACTER}")
    return chr(code) if 0x20 <= code < 0xD800 else "\N{REPLACEMENT CHARACTER}"  # above: places that each font uses anew
