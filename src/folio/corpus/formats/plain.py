"""Plain text with several documents: one per line, or between marks such as GPT-2's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from folio.corpus.formats.passage import Notes, Passage

MARKS = ("<|startoftext|>", "<|endoftext|>")
_MARK = re.compile("|".join(map(re.escape, MARKS)))


def read_lines(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read one document per line that is not empty."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield Passage(text, f"line {number}", document=True)


def read_marked(lines: Iterator[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read one document per stretch between marks, which are left out and counted."""
    parts: list[str] = []
    n = 0

    def document() -> Iterator[Passage]:
        nonlocal n
        text = "".join(parts).strip("\r\n")
        parts.clear()
        if text.strip():
            n += 1
            yield Passage(text, f"text {n}", document=True)

    for line in lines:
        begin = 0
        for mark in _MARK.finditer(line):
            notes.drop("marks between documents", mark[0])
            parts.append(line[begin : mark.start()])
            yield from document()
            begin = mark.end()
        parts.append(line[begin:])
    yield from document()
