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
    shared = _Shared(package, notes)
    sheets = _numbered(package, r"^xl/worksheets/sheet(\d+)\.xml$")
    if not sheets:
        raise UserError("it has no sheets: it is no workbook")
    for number, part in sheets:
        root = package.xml(part)
        rows = (_row(row, shared, notes) for row in root.iter() if local_name(row) == "row")
        text = "".join(f"{row}\n" for row in rows if row.strip())
        if text:
            yield Passage(text + "\n", f"sheet {number}")
        for element in root:
            if local_name(element) != "sheetData":
                notes.drop("headers and rules of sheets", "".join(element.itertext()))
    shared.count_unused()
    for _, part in _numbered(package, r"^xl/comments(\d+)\.xml$"):
        notes.drop("comments", "".join(package.xml(part).itertext()))
    package.account(notes)


class _Shared:
    """Texts that cells name by a number, each kept once for all cells that have it."""

    def __init__(self, package: Package, notes: Notes) -> None:
        self.notes = notes
        self.texts: list[str] = []
        self.unused: set[int] = set()
        if "xl/sharedStrings.xml" in package.names:
            root = package.xml("xl/sharedStrings.xml")
            self.texts = [_texts(item, notes) for item in root if local_name(item) == "si"]
            self.unused = set(range(len(self.texts)))

    def take(self, number: str) -> str:
        """A text, which an empty cell and one with a wrong number have not."""
        if not (number.isascii() and number.isdecimal() and int(number) < len(self.texts)):
            self.notes.drop("cells without their text", number)
            return ""
        self.unused.discard(int(number))
        return self.texts[int(number)]

    def count_unused(self) -> None:
        """Count the texts that no cell named."""
        for number in self.unused:
            self.notes.drop("texts of no cell", self.texts[number])


def read_pptx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """A passage for each slide, its notes after it."""
    package = Package(data)
    slides = _numbered(package, r"^ppt/slides/slide(\d+)\.xml$")
    if not slides:
        raise UserError("it has no slides: it is no presentation")
    spoken = dict(_numbered(package, r"^ppt/notesSlides/notesSlide(\d+)\.xml$"))
    for number, part in slides:
        text = "".join(_paragraphs(package.xml(part), notes))
        if note := spoken.get(number):
            text += "".join(_paragraphs(package.xml(note), notes))
        if text:
            yield Passage(text + "\n", f"slide {number}")
    for _, part in _numbered(package, r"^ppt/comments/.*?(\d+)\.xml$"):
        notes.drop("comments", "".join(package.xml(part).itertext()))
    package.account(notes)


def _numbered(package: Package, pattern: str) -> list[tuple[int, str]]:
    found = ((re.match(pattern, name), name) for name in package.names)
    return sorted((int(match[1]), name) for match, name in found if match)


def _texts(item: Any, notes: Notes) -> str:
    """The text of a cell, without what tells how to read it."""
    parts = []
    for element in item:
        if local_name(element) == "rPh":
            notes.drop("readings beside characters", "".join(element.itertext()))
        else:
            parts += [e.text or "" for e in element.iter() if local_name(e) == "t"]
    return "".join(parts)


def _row(row: Any, shared: _Shared, notes: Notes) -> str:
    cells: list[str] = []
    for cell in row:
        place = _column(attribute(cell, "r") or "", len(cells))
        cells += [""] * (place - len(cells))
        cells.append(re.sub(r"\s*\n\s*", " ", _cell(cell, shared, notes)))
    return "\t".join(cells).rstrip("\t")


def _cell(cell: Any, shared: _Shared, notes: Notes) -> str:
    kind = attribute(cell, "t")
    value = ""
    for part in cell:
        if local_name(part) == "v":
            value = part.text or ""
        elif local_name(part) == "f":
            notes.drop("formulas", part.text)
        elif local_name(part) == "is":
            return _texts(part, notes)
    if kind == "s":
        return shared.take(value)
    return value


def _column(name: str, default: int) -> int:
    """The number of a cell's column, from 0: 27 for AB7."""
    number = 0
    for letter in re.match("[A-Z]{0,3}", name)[0]:  # type: ignore[index]
        number = 26 * number + ord(letter) - 64
    return number - 1 if default < number <= COLUMNS else default


def _paragraphs(root: Any, notes: Notes) -> Iterator[str]:
    for element in root.iter():
        if local_name(element) not in ("t", "p"):
            notes.drop("text outside of paragraphs", element.text)
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
