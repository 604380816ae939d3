"""CSV and JSONL: the column that holds text, a document for each row."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TextIO

from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

TEXT_COLUMNS = ("text", "content", "body", "document", "message", "story", "article")
"""Taken in this order where the user names none."""


def read_jsonl(file: TextIO, column: str, notes: Notes) -> Iterator[Passage]:
    """The text of each line; a line may also be a bare string."""
    chosen = column
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"line {number} is no JSON") from None
        if isinstance(record, str):
            yield Passage(record, f"line {number}", document=True)
            continue
        if not isinstance(record, dict):
            raise UserError(f"line {number} is neither an object nor a text")
        if not chosen:
            chosen = _choose(record) or _longest(record)
        text = record.get(chosen)
        if isinstance(text, str):
            yield Passage(text, f"line {number}", document=True)
        elif text is None and chosen in record:
            continue
        else:
            raise UserError(
                f"line {number} has no text in '{chosen or 'text'}'; it has "
                f"{', '.join(map(repr, record)) or 'nothing'}. Name one with --corpus.text-column"
            )


def read_csv(file: TextIO, column: str, notes: Notes) -> Iterator[Passage]:
    """The text of each row; a table without a column of text is one document, row by row."""
    csv.field_size_limit(1 << 30)
    first = file.readline()  # csv.Sniffer takes minutes for a cell of a megabyte
    delimiter = max(",;\t|", key=first.count)
    rows = csv.reader(itertools.chain([first], file), delimiter=delimiter)
    try:
        header = next(rows, [])
        chosen = column or _choose(header)
        if column and column not in header:
            raise UserError(
                f"it has no column '{column}'; it has {', '.join(map(repr, header))}. "
                f"Name one with --corpus.text-column"
            )
        if not chosen:
            yield Passage("\t".join(header) + "\n")
            for row in rows:
                yield Passage("\t".join(cell.replace("\n", " ") for cell in row) + "\n")
            return
        place = header.index(chosen)
        for row in rows:
            if len(row) > place and row[place]:
                yield Passage(row[place], f"line {rows.line_num}", document=True)
    except csv.Error as error:
        raise UserError(f"line {rows.line_num} is no CSV: {error}") from None


def _choose(names: Iterable[str]) -> str:
    lower = {name.strip().lower(): name for name in reversed(list(names))}
    return next((lower[name] for name in TEXT_COLUMNS if name in lower), "")


def _longest(record: dict) -> str:
    """The one key with text, or none."""
    texts = [key for key, value in record.items() if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else ""
