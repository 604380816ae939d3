"""CSV and TSV: the text column, one document per row.

The header is the first row with text; a line `sep=;` before it, as Excel writes, names the
delimiter. TSV has no quotes. In CSV a quote that never ends, or ends inside a word, is a character.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

TEXT_COLUMNS = ("text", "content", "body", "document", "message", "story", "article")
"""Names of text columns, tried in this order if the user names none."""
MOST_LINES = 100
"""Of a cell whose quotes are escaped."""
_NAMED_DELIMITER = re.compile(r'"?sep=([^\w"\r\n])"?\s*', re.IGNORECASE)


def read_csv(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read the text of each row; a table without a text column is one document."""
    csv.field_size_limit(1 << 30)
    number, first, delimiter = _begin(lines, notes)
    if not delimiter:  # csv.Sniffer takes minutes for a cell of a megabyte
        delimiter = max(",;\t|", key=first.count)
    rows = _Rows(first, lines, delimiter, notes, number)
    yield from _read_rows(rows, column, delimiter, notes)


def read_tsv(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read the text of each row of tab-separated cells."""
    number, first, delimiter = _begin(lines, notes)
    delimiter = delimiter or "\t"
    numbered = enumerate(itertools.chain([first], lines), number)
    rows = ((i, line.rstrip("\r\n").split(delimiter)) for i, line in numbered)
    yield from _read_rows(rows, column, delimiter, notes)


def _begin(lines: Iterator[str], notes: Notes) -> tuple[int, str, str]:
    """The number of the first line with text, that line, and the delimiter named before it."""
    number, delimiter = 0, ""
    for number, line in enumerate(lines, 1):
        named = _NAMED_DELIMITER.fullmatch(line)
        if named and not delimiter:
            delimiter = named[1]
            notes.drop("the line that names the delimiter", line)
        elif not line.isspace():
            return number, line, delimiter
    return number, "", delimiter


def _read_rows(
    rows: Iterable[tuple[int, list[str]]], column: str, delimiter: str, notes: Notes
) -> Iterator[Passage]:
    """Read the text of rows, each given with the number of its last line."""
    rows = iter(rows)
    header = next((row for _, row in rows if any(map(str.strip, row))), [])
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

    def __init__(
        self, first: str, lines: Iterator[str], delimiter: str, notes: Notes, number: int
    ) -> None:
        """`number` is that of the first line."""
        self.waiting = deque([first] if first else [])
        self.lines = lines
        self.delimiter = delimiter
        self.is_spaced = 0 < first.count(delimiter) == first.count(delimiter + " ")
        self.notes = notes
        self.number = number - 1
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
                row = self._escaped()
                if row is None:
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
        return self._parsed(self._lines())

    def _parsed(self, lines: Iterable[str]) -> Iterator[list[str]]:
        spaced = self.is_spaced
        return csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=spaced)

    def _lines(self) -> Iterator[str]:
        while True:
            line = self.waiting.popleft() if self.waiting else next(self.lines, None)
            if line is None:
                return
            self.number += 1
            self.taken.append(line)
            yield line

    def _escaped(self) -> list[str] | None:
        """The row, if its quotes are written \\" as by MySQL and Spark; None if not."""
        if '\\"' not in self.taken[0]:
            return None
        self._put_back(self.taken)
        self.taken = []
        lines = (line.replace('\\"', '""') for line in itertools.islice(self._lines(), MOST_LINES))
        try:
            return next(self._parsed(lines), None)
        except csv.Error:
            return None

    def _put_back(self, lines: Sequence[str]) -> None:
        self.waiting.extendleft(reversed(lines))
        self.number -= len(lines)

    def _unquoted(self) -> list[str]:
        first, *rest = self.taken
        self._put_back(rest)
        plain: Sequence[str] = [first.rstrip("\r\n")]
        return next(csv.reader(plain, delimiter=self.delimiter, quoting=csv.QUOTE_NONE), [])
