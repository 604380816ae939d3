"""XLSX and PPTX: rows of a workbook's sheets, paragraphs of a presentation's slides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

COLUMNS = 16_384
"""A workbook's last column, beyond which a cell's name is no longer believed."""


def read_xlsx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """A passage for each sheet; cells by tabs, rows by lines."""
    package = Package(data)
    shared: list[str] = []
    if "xl/sharedStrings.xml" in package.names:
        root = package.xml("xl/sharedStrings.xml")
        shared = [_texts(item) for item in root if local_name(item) == "si"]
    sheets = _numbered(package, r"^xl/worksheets/sheet(\d+)\.xml$")
    if not sheets:
        raise UserError("it has no sheets: it is no workbook")
    for number, part in sheets:
        rows = (
            _row(row, shared, notes) for row in package.xml(part).iter() if local_name(row) == "row"
        )
        text = "".join(f"{row}\n" for row in rows if row.strip())
        if text:
            yield Passage(text + "\n", f"sheet {number}")
    for _, part in _numbered(package, r"^xl/comments(\d+)\.xml$"):
        notes.drop("comments", _texts(package.xml(part)))
    package.account(notes)


def read_pptx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """A passage for each slide, its notes after it."""
    package = Package(data)
    slides = _numbered(package, r"^ppt/slides/slide(\d+)\.xml$")
    if not slides:
        raise UserError("it has no slides: it is no presentation")
    spoken = dict(_numbered(package, r"^ppt/notesSlides/notesSlide(\d+)\.xml$"))
    for number, part in slides:
        text = "".join(_paragraphs(package.xml(part)))
        if note := spoken.get(number):
            text += "".join(_paragraphs(package.xml(note)))
        if text:
            yield Passage(text + "\n", f"slide {number}")
    for _, part in _numbered(package, r"^ppt/comments/.*?(\d+)\.xml$"):
        notes.drop("comments", _texts(package.xml(part)))
    package.account(notes)


def _numbered(package: Package, pattern: str) -> list[tuple[int, str]]:
    found = ((re.match(pattern, name), name) for name in package.names)
    return sorted((int(match[1]), name) for match, name in found if match)


def _texts(element: Any) -> str:
    return "".join(e.text or "" for e in element.iter() if local_name(e) in ("t", "text"))


def _row(row: Any, shared: list[str], notes: Notes) -> str:
    cells: list[str] = []
    for cell in row:
        place = _column(attribute(cell, "r") or "", len(cells))
        cells += [""] * (place - len(cells))
        cells.append(re.sub(r"\s*\n\s*", " ", _cell(cell, shared, notes)))
    return "\t".join(cells).rstrip("\t")


def _cell(cell: Any, shared: list[str], notes: Notes) -> str:
    kind = attribute(cell, "t")
    value = ""
    for part in cell:
        if local_name(part) == "v":
            value = part.text or ""
        elif local_name(part) == "f":
            notes.drop("formulas", part.text)
        elif local_name(part) == "is":
            return _texts(part)
    if kind == "s":
        return shared[int(value)] if value.isdigit() and int(value) < len(shared) else ""
    return value


def _column(name: str, default: int) -> int:
    """The number of a cell's column, from 0: 27 for AB7."""
    number = 0
    for letter in re.match("[A-Z]{0,3}", name)[0]:  # type: ignore[index]
        number = 26 * number + ord(letter) - 64
    return number - 1 if default < number <= COLUMNS else default


def _paragraphs(root: Any) -> Iterator[str]:
    for paragraph in root.iter():
        if local_name(paragraph) != "p":
            continue
        parts = []
        for element in paragraph.iter():
            if local_name(element) == "t":
                parts.append(element.text or "")
            elif local_name(element) == "br":
                parts.append("\n")
        text = "".join(parts).strip()
        if text:
            yield text + "\n"
