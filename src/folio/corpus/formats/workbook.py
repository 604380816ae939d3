"""XLSX: rows of a workbook's sheets, with cells as they are displayed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.slides import drawing_text, listed, numbered
from folio.errors import UserError

COLUMNS = 16_384
"""A workbook's last column; a cell with a higher name is misplaced."""
DIGITS = 15
"""Most digits of a number that are displayed; a file keeps more of them."""
_DATES = frozenset((*range(14, 23), *range(45, 48)))
"""Numbers of the built-in date and time formats."""
_NO_CODE = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.')
_COMMENTS = re.compile(r"xl/(.*/)?(threadedC|c)omments?\d*\.xml$")


def read_xlsx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read one passage per visible sheet; tabs separate cells, line ends rows.

    The values of formulas are those that the program stored with them.
    """
    package = Package(data)
    sheets = listed(package, "xl/workbook.xml", "sheet") or numbered(
        package, r"^xl/worksheets/sheet(\d+)\.xml$"
    )
    if not sheets:
        raise UserError("it has no sheets: it is not a workbook")
    values = _Values(package, notes)
    for number, (about, part) in enumerate(sheets, 1):
        root = package.xml(part)
        text = "".join(f"{row}\n" for row in _rows(root, values, notes) if row.strip())
        for drawing in package.related(part).get("drawing", []):
            text += drawing_text(package.xml(drawing), notes)
        if about.get("state") in ("hidden", "veryHidden"):
            notes.drop("hidden sheets", text)
        elif text:
            yield Passage(text + "\n", f"sheet {about.get('name') or number}")
        for element in root:
            if local_name(element) != "sheetData":
                notes.drop("headers and rules of sheets", "".join(element.itertext()))
    values.count_unused()
    for part in sorted(filter(_COMMENTS.match, package.names)):
        notes.drop("comments", "".join(package.xml(part).itertext()))
    package.account(notes)


def _rows(root: Any, values: _Values, notes: Notes) -> Iterator[str]:
    hidden = [
        range(int(attribute(e, "min") or 1) - 1, int(attribute(e, "max") or 1))
        for e in root.iter()
        if local_name(e) == "col" and _is_hidden(e)
    ]
    for row in root.iter():
        if local_name(row) != "row":
            continue
        cells: list[str] = []
        for cell in row:
            place = _column(attribute(cell, "r") or "", len(cells))
            cells += [""] * (place - len(cells))
            text = re.sub(r"\s*\n\s*", " ", values.shown(cell))
            if _is_hidden(row) or any(place in columns for columns in hidden):
                notes.drop("hidden rows and columns", text)
                text = ""
            cells.append(text)
        yield "\t".join(cells).rstrip("\t")


class _Values:
    """What cells display: shared texts, numbers, and numbers that are dates."""

    def __init__(self, package: Package, notes: Notes) -> None:
        self.notes = notes
        self.expansion = package.expansion  # cells that share a text count towards it
        self.texts: list[str] = []
        self.unused: set[int] = set()
        self.dates: list[bool] = []  # whether each cell format is a date
        self.first_day = datetime(1899, 12, 30)
        if "xl/sharedStrings.xml" in package.names:
            root = package.xml("xl/sharedStrings.xml")
            self.texts = [_texts(item, notes) for item in root if local_name(item) == "si"]
            self.unused = set(range(len(self.texts)))
        if "xl/styles.xml" in package.names:
            self.dates = list(_date_formats(package.xml("xl/styles.xml")))
        main = package.main_part("xl/workbook.xml")
        for element in package.xml(main) if main in package.names else ():
            if local_name(element) == "workbookPr" and attribute(element, "date1904") in (
                "1",
                "true",
            ):
                self.first_day = datetime(1904, 1, 1)

    def shown(self, cell: Any) -> str:
        """What a cell displays."""
        kind = attribute(cell, "t")
        value = ""
        for part in cell:
            if local_name(part) == "v":
                value = part.text or ""
            elif local_name(part) == "f":
                self.notes.drop("formulas", part.text)
            elif local_name(part) == "is":
                return _texts(part, self.notes)
        if kind == "s":
            return self.take(value)
        if kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(value, value)
        return value if kind not in (None, "n") else self.number(value, attribute(cell, "s") or "")

    def number(self, value: str, style: str) -> str:
        """A number, or the date and time that it represents."""
        try:
            number = float(value)
            is_date = style.isdecimal() and self.dates[int(style)]
            if not is_date:
                is_kept = len(value) <= DIGITS and not value.endswith(".0")
                return value if is_kept else f"{number:.{DIGITS}g}"
            moment = self.first_day + timedelta(seconds=round(number * 86400))
        except (ValueError, IndexError, OverflowError):
            return value
        if number < 1:
            return moment.strftime("%H:%M:%S")
        return moment.isoformat(" ").removesuffix(" 00:00:00")

    def take(self, number: str) -> str:
        """A shared text by number; empty for an empty cell or a wrong number."""
        if not (number.isascii() and number.isdecimal() and int(number) < len(self.texts)):
            self.notes.drop("cells without their text", number)
            return ""
        self.unused.discard(int(number))
        self.expansion.add(len(self.texts[int(number)]))
        return self.texts[int(number)]

    def count_unused(self) -> None:
        """Count the texts that no cell refers to."""
        for number in self.unused:
            self.notes.drop("texts of no cell", self.texts[number])


def _date_formats(styles: Any) -> Iterator[bool]:
    """Whether each cell format, in order, is a date or a time."""
    codes = {
        attribute(e, "numFmtId"): _NO_CODE.sub("", attribute(e, "formatCode") or "").lower()
        for e in styles.iter()
        if local_name(e) == "numFmt"
    }
    for formats in (e for e in styles if local_name(e) == "cellXfs"):
        for format_ in formats:
            number = attribute(format_, "numFmtId") or "0"
            code = codes.get(number, "")
            is_date = bool(re.search("[ymdhs]", code)) and "general" not in code
            yield is_date or (number.isdecimal() and int(number) in _DATES)


def _texts(item: Any, notes: Notes) -> str:
    """The text of a cell, without phonetic guides."""
    parts = []
    for element in item:
        if local_name(element) == "rPh":
            notes.drop("readings beside characters", "".join(element.itertext()))
        else:
            parts += [e.text or "" for e in element.iter() if local_name(e) == "t"]
    return "".join(parts)


def _is_hidden(element: Any) -> bool:
    return attribute(element, "hidden") in ("1", "true")


def _column(name: str, default: int) -> int:
    """The index of a cell's column, from 0: 27 for AB7."""
    number = 0
    for letter in re.match("[A-Z]{0,3}", name)[0]:  # type: ignore[index]
        number = 26 * number + ord(letter) - 64
    return number - 1 if default < number <= COLUMNS else default
