"""PDF: the text of its pages, and its document information."""

from __future__ import annotations

import io
import re
from typing import Any

from pypdf import PdfReader
from pypdf.errors import LimitReachedError, PyPdfError

from rag.formats import Extracted
from rag.types import Limits, Unreadable

# What pypdf raises on its own account, and where an object is another than it expects.
_DAMAGE = (PyPdfError, AttributeError, IndexError, KeyError, TypeError, ValueError)
_ENDS = 1024  # bytes at the beginning and at the end in which the marks of a PDF stand
_INFO = {
    "title": "/Title",
    "author": "/Author",
    "publisher": "/Publisher",
    "url": "/URL",
    "retrieved": "/Retrieved",
    "expires": "/Expires",
    "licence": "/Licence",
    "trust": "/Trust",
    "stance": "/Stance",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
_BULLET = re.compile(r"^[•‣◦⁃∙▪●]\s*", re.MULTILINE)


def read_pdf(data: bytes, limits: Limits) -> list[Extracted]:
    """The text of all pages, a blank line between two."""
    if b"%PDF-" not in data[:_ENDS]:
        raise Unreadable("is not a PDF: it has no %PDF- at its beginning; save it again as PDF")
    if b"%%EOF" not in data[-_ENDS:]:
        raise Unreadable("is a truncated PDF: it has no %%EOF at its end; fetch it again")
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted:
            raise Unreadable("is an encrypted PDF; save it without a password")
        metadata = _metadata(reader)
        text = _pages(reader, limits)
    except LimitReachedError as exc:
        raise Unreadable(f"asks for too much: {exc}") from exc
    except _DAMAGE as exc:
        raise Unreadable(f"is a damaged PDF ({exc}); save it again as PDF") from exc
    if not text:
        raise Unreadable("has no text on its pages, only pictures or nothing; recognise its text (OCR) first")
    return [Extracted(text, metadata)]


def _pages(reader: PdfReader, limits: Limits) -> str:
    """Refuses a file of which a page is lost: pypdf would go on without it."""
    tree: Any = reader.root_object.get("/Pages")
    said = tree.get_object().get("/Count") if tree else None
    if said != len(reader.pages):
        raise Unreadable(f"is a damaged PDF: {len(reader.pages)} of {said} pages are there; fetch it again")
    pages: list[str] = []
    room = limits.characters
    for number, page in enumerate(reader.pages, 1):
        if "/Contents" in page and page.get_contents() is None:
            raise Unreadable(f"is a damaged PDF: the content of page {number} is lost; fetch it again")
        text = _clean(page.extract_text())
        room -= len(text)
        if room < 0:
            raise Unreadable(f"has more than {limits.characters} characters of text; split it")
        pages.append(text)
    return "\n\n".join(filter(None, pages))


def _clean(text: str) -> str:
    """Lines without indentation, which would be code in Markdown, and with bullets as list items."""
    lines = [" ".join(line.split()) for line in _CONTROL.sub("", text).split("\n")]
    return _BULLET.sub("- ", "\n".join(lines)).strip("\n")


def _metadata(reader: PdfReader) -> dict[str, str]:
    info: Any = reader.metadata or {}
    found = {key: _clean(str(info.get(name) or "")) for key, name in _INFO.items()}
    written = str(info.get("/CreationDate") or "")
    try:
        date = info.creation_date if written else None
    except ValueError:
        date = None
    found["published"] = date.isoformat() if date else written
    return {key: value for key, value in found.items() if value}
