"""PDF: the text of its pages, and its document information."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
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
_PAGE_NUMBER = re.compile(r"^-[ ]?(\d+)[ ]?-$", re.MULTILINE)
_RULE = re.compile(r"(?<=[.!?…。！？])\n(-+|=+)(?=\n|$)")  # in Markdown it would make a heading of the text above
_STOP = re.compile(r"[.!?…。！？؟۔।]")
_ENDED = re.compile(r"[.!?:…。！？：؟۔।][\"'”’»)\]]*$")
_AMOUNT = re.compile(r"[<>≤≥±~]?\s*\d(?!\d{0,2}[.)]\s)")  # and no number of a list
_HYPHENATED = re.compile(r"(?<![^\W\d_])([^\W\d_]+)-\n([^\W\d_]+)")


def read_pdf(data: bytes, limits: Limits) -> list[Extracted]:
    """The text of all pages; a blank line between two, but for a sentence that goes on from one to the next."""
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
    return _unhyphenated(_joined(list(filter(None, pages))))


def _joined(pages: Sequence[str]) -> str:
    """Where a page ends within a sentence, a blank line would make a sentence of its own of what follows."""
    lines = [page.split("\n") for page in pages]
    known = Counter(key for page in lines for key in set(map(_without_digits, page)))
    text = "".join(pages[:1])
    for before, after in itertools.pairwise(lines):
        last, first = _body_line(reversed(before), known), _body_line(after, known)
        open_end = bool(last) and not _ENDED.search(last)
        goes_on = open_end and _begins_within(first, stops=any(map(_STOP.search, before)))
        text += ("\n" if goes_on else "\n\n") + "\n".join(after)
    return text


def _begins_within(line: str, *, stops: bool) -> bool:
    """Whether a line can go on with a sentence: also without capitals, if there are full stops that could end one."""
    if _AMOUNT.match(line):
        return True
    letter = line.lstrip("\"'“„«([")[:1]
    return letter.islower() or (letter.isalpha() and not letter.isupper() and stops)


def _body_line(lines: Iterable[str], known: Counter[str]) -> str:
    """The first line that is no page number and no header or footer, which other pages have too."""
    bare = ((line, _without_digits(line)) for line in lines)
    return next((line for line, key in bare if known[key] < 2 and re.search(r"[^\W_]", key)), "")


def _without_digits(line: str) -> str:
    return re.sub(r"\d+", "", line)


def _unhyphenated(text: str) -> str:
    """Words that were divided at the end of a line, if they stand undivided elsewhere; others keep their hyphen."""
    divided = _HYPHENATED.findall(text)
    whole = set(re.findall(r"[^\W\d_]+", text.lower())) if divided else set()

    def mend(found: re.Match[str]) -> str:
        joined = found[1] + found[2]
        return joined if found[2].islower() and joined.lower() in whole else found[0]

    return _HYPHENATED.sub(mend, text)


def _clean(text: str) -> str:
    """Lines without indentation, which would be code in Markdown, and with bullets as list items."""
    lines = [" ".join(line.split()) for line in _CONTROL.sub("", text).split("\n")]
    text = _PAGE_NUMBER.sub(r"– \1 –", "\n".join(lines))
    return _RULE.sub(r"\n\n\1\n", _BULLET.sub("- ", text)).strip("\n")


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
