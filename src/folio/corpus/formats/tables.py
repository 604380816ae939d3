"""CSV and TSV: the text column, one document per row.

TSV has no quotes. In CSV a quote that never ends, or ends inside a word, is a character.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

TEXT_COLUMNS = ("text", "content", "body", "document", "message", "story", "article")
"""Names of text columns, tried in this order if the user names none."""


def read_csv(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read the text of each row; a table without a text column is one document."""
    csv.field_size_limit(1 << 30)
    first = next(lines, "")  # csv.Sniffer takes minutes for a cell of a megabyte
    delimiter = max(",;\t|", key=first.count)
    yield from _read_rows(_Rows(first, lines, delimiter, notes), column, delimiter, notes)


def read_tsv(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read the text of each row of tab-separated cells."""
    rows = ((i, line.rstrip("\r\n").split("\t")) for i, line in enumerate(lines, 1))
    yield from _read_rows(rows, column, "\t", notes)


def _read_rows(
    rows: Iterable[tuple[int, list[str]]], column: str, delimiter: str, notes: Notes
) -> Iterator[Passage]:
    """Read the text of rows, each given with the number of its last line."""
    rows = iter(rows)
    _, header = next(rows, (0, []))
    chosen = column or choose_column(header)
    if column and column not in header:
        raise UserError(
            f"it has no column '{column}'; it has {', '.join(map(repr, header))}. "
            f"Name one with --corpus.text-column"
        )
    if not chosen:
        yield Passage("\t".join(header) + "\n")
        for _, row in rows:
            yield Passage("\t".join(cell.replace("\n", " ") for cell in row) + "\n")
        return
    place = header.index(chosen)
    is_last = place == len(header) - 1
    for number, row in rows:
        if is_last and len(row) > len(header):  # unquoted delimiters in the text
            row[place:] = [delimiter.join(row[place:])]
        for cell in (*row[:place], *row[place + 1 : len(header)]):
            notes.drop("other columns", cell)
        for cell in row[max(len(header), place + 1) :]:
            notes.drop("cells beyond the header", cell)
        if len(row) > place and row[place]:
            yield Passage(row[place], f"line {number}", document=True)


def choose_column(names: Iterable[str]) -> str:
    """The column name that stands for text; empty if none does."""
    lower = {name.strip().lower(): name for name in reversed(list(names))}
    return next((lower[name] for name in TEXT_COLUMNS if name in lower), "")


class _Rows:
    """Rows of CSV, each with the number of its last line.

    If quotes do not match, the line on which they begin is read without quotes, and reading
    resumes after it: no lone quote swallows the rows after it.
    """

    def __init__(self, first: str, lines: Iterator[str], delimiter: str, notes: Notes) -> None:
        self.waiting = deque([first] if first else [])
        self.lines = lines
        self.delimiter = delimiter
        self.notes = notes
        self.number = 0
        self.taken: list[str] = []  # lines of the current row

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        n_lone = 0
        reader = self._reader()
        while True:
            self.taken = []
            try:
                row = next(reader, None)
            except csv.Error as error:
                if "field larger" in str(error):
                    raise UserError(f"line {self.number} is not CSV: {error}") from None
                n_lone += 1
                row = self._unquoted()
                reader = self._reader()
            if row is None:
                break
            if row:
                yield self.number, row
        if n_lone:
            self.notes.warnings.append(f"{n_lone:,} quotes without an end were read as characters")

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._lines(), delimiter=self.delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        while True:
            line = self.waiting.popleft() if self.waiting else next(self.lines, None)
            if line is None:
                return
            self.number += 1
            self.taken.append(line)
            yield line

    def _unquoted(self) -> list[str]:
        first, *rest = self.taken
        self.waiting.extendleft(reversed(rest))
        self.number -= len(rest)
        plain: Sequence[str] = [first.rstrip("\r\n")]
        return next(csv.reader(plain, delimiter=self.delimiter, quoting=csv.QUOTE_NONE), [])
