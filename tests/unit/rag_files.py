"""Small real files of the formats that documents come in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import docx


def pdf(pages: Sequence[Sequence[str]], info: Mapping[str, str] | None = None, operators: str = "") -> bytes:
    """A PDF with the lines of each page, set in Helvetica, and its document information."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    entries = "".join(f"/{key} ({value})" for key, value in (info or {}).items())
    objects = [
        "<</Type /Catalog /Pages 2 0 R>>",
        f"<</Type /Pages /Count {len(pages)} /Kids [{kids}]>>",
        "<</Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding>>",
    ]
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj T*\n" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}ET\n{operators}"
        objects.append(
            f"<</Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * number} 0 R "
            "/Resources <</Font <</F1 3 0 R>>>>>>"
        )
        objects.append(f"<</Length {len(content.encode('cp1252'))}>>\nstream\n{content}\nendstream")
    objects.append(f"<<{entries}>>")
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"<</Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R>>"
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n{trailer}\nstartxref\n{len(data)}\n%%EOF\n"
    return data + end.encode()


def word(document: docx.document.Document) -> bytes:
    """A DOCX of what was written with python-docx."""
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()


def repacked(data: bytes, changes: Mapping[str, bytes]) -> bytes:
    """The same ZIP with the content of some entries changed or added."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in {**dict.fromkeys(old.namelist()), **changes}:
            new.writestr(name, changes[name] if name in changes else old.read(name))
    return packed.getvalue()
