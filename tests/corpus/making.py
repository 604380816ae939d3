"""Documents with known text, written by hand: the readers' libraries have no part in it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import zstandard

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    (".gz", gzip.compress),
    (".bz2", bz2.compress),
    (".xz", lzma.compress),
    (".lzma", lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
    (".zst", zstandard.ZstdCompressor().compress),
]
"""Endings of compressed files, and what makes them."""


def zip_of(parts: dict[str, str | bytes]) -> bytes:
    """A compressed zip of some parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return buffer.getvalue()


# ---- PDF -------------------------------------------------------------------------------


def pdf_page(lines: Sequence[tuple[float, float, str]], size: float = 10) -> str:
    """Lines of Helvetica at places, in points from the lower left corner."""
    shown = []
    for x, y, text in lines:
        safe = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        shown.append(f"BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({safe}) Tj ET")
    return "\n".join(shown)


def pdf(pages: Sequence[str], picture: bool = False, encrypt: bool = False) -> bytes:
    """A PDF of some pages, each given by its drawing commands."""
    objects: list[bytes] = []

    def add(body: str | bytes) -> int:
        objects.append(body if isinstance(body, bytes) else body.encode("cp1252"))
        return len(objects)

    font = add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    resources = f"/Font << /F1 {font} 0 R >>"
    if picture:
        head = "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /BitsPerComponent 8 "
        image = add(head + "/ColorSpace /DeviceGray /Length 1 >>\nstream\n0\nendstream")
        resources += f" /XObject << /P {image} 0 R >>"
    tree = len(objects) + 1 + 2 * len(pages)
    kids = []
    for content in pages:
        stream = content.encode("cp1252")
        at = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        kids.append(
            add(
                f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 595 842] /Contents {at} 0 R "
                f"/Resources << {resources} >> >>"
            )
        )
    assert add(
        f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{k} 0 R' for k in kids)}] >>"
    ) == tree  # fmt: skip
    catalog = add(f"<< /Type /Catalog /Pages {tree} 0 R >>")
    trailer = f"/Root {catalog} 0 R"
    if encrypt:
        key = "00" * 32
        at = add(f"<< /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >>")
        trailer += f" /Encrypt {at} 0 R /ID [<00> <00>]"
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += f"trailer << /Size {len(objects) + 1} {trailer} >>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


def helvetica_width(text: str) -> float:
    """In ems, about."""
    widths = {"ijl": 0.222, " tfI.,:;!": 0.278, "r-": 0.333, "cksvxyzJ": 0.5, "wC": 0.722}
    widths |= {"mMGOQ": 0.8, "W": 0.944, "ABEKPSVXYDHNRU": 0.69}
    return sum(next((w for letters, w in widths.items() if c in letters), 0.556) for c in text)


def paragraph_lines(
    words: Sequence[str], x: float, y: float, width: int, pitch: float = 14
) -> list[tuple[float, float, str]]:
    """Words set in lines as wide as so many letters at most, downwards from a place."""
    lines, line = [], ""
    for word in words:
        if line and helvetica_width(f"{line} {word}") > 0.5 * width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    return [(x, y - i * pitch, text) for i, text in enumerate(lines)]


# ---- office ----------------------------------------------------------------------------


def docx(body: str, footnotes: str = "") -> bytes:
    """A Word document; body and footnotes in its XML, with the prefix w."""
    return zip_of(
        {
            "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" '
            f'Type="{OFFICE_RELATIONS}/officeDocument" Target="word/document.xml"/>'
            "</Relationships>",
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship '
            f'Id="r1" Type="{OFFICE_RELATIONS}/footnotes" Target="footnotes.xml"/>'
            "</Relationships>",
            "word/document.xml": f'<w:document xmlns:w="{WORD}" xmlns:mc="urn:mc">'
            f"<w:body>{body}</w:body></w:document>",
            "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}">{footnotes}</w:footnotes>',
        }
    )


def docx_paragraph(text: str, extra: str = "") -> str:
    return f'<w:p><w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r>{extra}</w:p>'


def docx_table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{docx_paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in cells) + "</w:tbl>"


def odt(body: str, prolog: str = "") -> bytes:
    """An OpenDocument text; the body in its XML, with prefixes office, text and table."""
    names = "".join(
        f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table")
    )
    return zip_of(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{prolog}<office:document-content{names}><office:body>"
            f"<office:text>{body}</office:text></office:body></office:document-content>",
        }
    )


def odt_table(rows: Sequence[Sequence[str]]) -> str:
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    made = ("".join(cell.format(escape(text)) for text in row) for row in rows)
    body = "".join(f"<table:table-row>{row}</table:table-row>" for row in made)
    return f"<table:table>{body}</table:table>"


def epub(chapters: dict[str, str]) -> bytes:
    """A book; its chapters by file name, in the order of the spine."""
    items = "".join(
        f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>'
        for i, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    # Stored in another order than that of the spine.
    return zip_of(
        {
            "META-INF/container.xml": '<container xmlns="urn:c"><rootfiles><rootfile '
            'full-path="OPS/book.opf"/></rootfiles></container>',
            **{f"OPS/{name}": text for name, text in reversed(chapters.items())},
            "OPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf">'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
        }
    )


def xhtml(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n'
        f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{body}</body></html>'
    )


# ---- tables and notebooks --------------------------------------------------------------


def csv_file(rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode("utf-8")


def jsonl(records: Sequence[object]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode("utf-8")


def notebook(cells: Sequence[tuple[str, str]], output: str = "") -> bytes:
    made = []
    for kind, source in cells:
        cell: dict[str, object] = {"cell_type": kind, "source": source.splitlines(keepends=True)}
        if kind == "code":
            cell["outputs"] = [{"output_type": "stream", "text": [output]}]
        made.append(cell)
    return json.dumps({"cells": made, "nbformat": 4}).encode("utf-8")


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path
