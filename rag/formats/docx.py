"""DOCX: paragraphs, headings, lists and tables of the body, and the core properties."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

import docx
from docx.document import Document as WordDocument
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.exceptions import OpcError
from docx.opc.part import XmlPart
from docx.oxml.exceptions import InvalidXmlError
from docx.oxml.ns import qn
from lxml import etree

from rag.formats import Extracted
from rag.formats.markdown import MarkdownWriter, raised
from rag.types import Limits, Unreadable

# What python-docx raises where a part is missing or another than it expects.
_DAMAGE = (OpcError, InvalidXmlError, etree.XMLSyntaxError, AttributeError, KeyError, TypeError, ValueError)
_CHUNK = 64 * 1024
_LEFT_OUT = frozenset(
    {qn("w:del"), qn("w:moveFrom"), "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}
)
_PROPERTIES = {
    "title": "{http://purl.org/dc/elements/1.1/}title",
    "author": "{http://purl.org/dc/elements/1.1/}creator",
    "published": "{http://purl.org/dc/terms/}created",
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


class _Walk:
    """Goes through the paragraphs and tables in the order of the text, also inside content controls and text boxes."""

    def __init__(self, document: WordDocument) -> None:
        self.out = MarkdownWriter()
        self.hidden: list[str] = []
        self._body = document.element.body
        self._styles = {style.style_id: style.name or "" for style in document.styles}

    def body(self) -> None:
        self._inside(self._body)

    def _inside(self, element: etree._Element) -> None:
        for child in element:
            if child.tag in _LEFT_OUT:
                continue
            if child.tag == qn("w:p"):
                self._paragraph(child)
            elif child.tag == qn("w:tbl"):
                self._table(child)
            else:
                self._inside(child)

    def _paragraph(self, element: etree._Element) -> None:
        text = "".join(self._text(element))
        named = element.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
        style = "" if named is None else self._styles.get(named.get(qn("w:val"), ""), "")
        kind, _, level = style.rpartition(" ")
        if kind == "Heading" and level.isdigit():
            self.out.heading(int(level), text)
        elif style == "Title":
            self.out.heading(1, text)
        elif style.startswith("List ") or element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None:
            self.out.item(text)
        else:
            self.out.paragraph(text)
        for box in element.iter(qn("w:txbxContent")):
            if not any(above.tag in _LEFT_OUT for above in box.iterancestors()):
                self._inside(box)

    def _text(self, element: etree._Element) -> Iterator[str]:
        """The text of one paragraph; hidden and struck runs are put aside, text boxes have paragraphs of their own."""
        for child in element:
            if child.tag in _LEFT_OUT or child.tag == qn("w:txbxContent"):
                continue
            if child.tag == qn("w:r") and _vanishes(child):
                self.hidden.extend(text.text or "" for text in child.iter(qn("w:t")))
            elif child.tag == qn("w:t"):
                yield child.text or ""
            elif child.tag == qn("w:r") and _is_raised(child):
                yield from map(raised, self._text(child))
            elif child.tag in _BREAKS:
                yield _BREAKS[child.tag]
            elif child.tag not in (qn("w:pPr"), qn("w:rPr")):  # where w:tab is a tab stop
                yield from self._text(child)

    def _table(self, element: etree._Element) -> None:
        rows = [
            ["\n".join("".join(self._text(p)) for p in cell.iter(qn("w:p"))) for cell in row.iter(qn("w:tc"))]
            for row in element.iter(qn("w:tr"))
        ]
        if max(map(len, rows), default=0) > 1:
            self.out.table(rows)
        else:  # a frame around text
            for row in element.iter(qn("w:tc")):
                self._inside(row)


def _vanishes(run: etree._Element) -> bool:
    """Whether a run is hidden or struck out."""
    marks = (run.find(f"{qn('w:rPr')}/{qn(name)}") for name in ("w:vanish", "w:strike", "w:dstrike"))
    return any(mark is not None and mark.get(qn("w:val"), "true") not in ("0", "false", "off") for mark in marks)


def _is_raised(run: etree._Element) -> bool:
    align = run.find(f"{qn('w:rPr')}/{qn('w:vertAlign')}")
    return align is not None and align.get(qn("w:val")) == "superscript"
