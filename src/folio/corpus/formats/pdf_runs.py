"""Glyphs of a PDF page -> runs: stretches of a line without a wide gap.

Layout is written once, for lines that go to the right and down. Boxes of rotated text, or of a
script that runs to the left, are first rotated or mirrored into such a frame.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from folio.corpus.formats.scripts import goes_left, joint

WIDE_GAP = 1.2
"""Relative to a line's height: a wider gap separates columns, of a page or of a table."""

DIVIDED = "\u00ad"  # marks where a word is divided at a line end
_PDFIUM_DIVIDED = ("\x02", "\ufffe")
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st"}
_LIGATURES |= {0xFB06: "st", 0x00: None, 0xFFFE: None, 0xFFFF: None}

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points; y grows upwards."""


class Run(NamedTuple):
    """Text on a line, and its box in points; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float
    text: str

    @property
    def height(self) -> float:
        return self.top - self.bottom


class Frame(NamedTuple):
    """How boxes were transformed so that lines go to the right and down."""

    turn: int
    """Counterclockwise quarter turns of the text."""
    mirrored: bool


class _Word(NamedTuple):
    box: Box
    text: str
    turn: int
    spaced: bool
    """Whether a space precedes it."""


def runs_of(textpage: Any) -> dict[Frame, list[Run]]:
    """The runs of a page by frame, the frame with most text first, each in the order of the
    file.
    """
    by_turn: dict[int, list[Run]] = {}
    for words in _stretches(textpage):
        runs = by_turn.setdefault(words[0].turn, [])
        runs += _runs_of_stretch(words)
    framed = {}
    for turn, runs in by_turn.items():
        mirrored = goes_left("".join(run.text for run in runs))
        if mirrored:
            runs = [run._replace(left=-run.right, right=-run.left) for run in runs]
        framed[Frame(turn, mirrored)] = runs
    return dict(sorted(framed.items(), key=lambda item: -sum(len(r.text) for r in item[1])))


def _stretches(textpage: Any) -> Iterator[list[_Word]]:
    """Words that PDFium puts on one line, in reading order."""
    from pypdfium2.raw import FPDFText_GetCharAngle, FPDFText_GetUnicode

    words: list[_Word] = []
    glyphs: list[str] = []
    first = last = turn = 0
    spaced = False

    def end_word() -> None:
        nonlocal glyphs
        if glyphs:
            text = "".join(glyphs).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            text = text.translate(_LIGATURES)
            if text.strip():
                # In a word of mixed directions, such as "Folio." in Hebrew, the first and last
                # glyphs in reading order need not be the outer ones.
                one_way = len(set(map(unicodedata.bidirectional, text))) == 1
                ends = (first, last) if one_way else range(first, last + 1)
                boxes = [_turned(textpage.get_charbox(i, loose=True), turn) for i in ends]
                box = (
                    min(box[0] for box in boxes),
                    boxes[0][1],
                    max(box[2] for box in boxes),
                    boxes[0][3],
                )
                words.append(_Word(box, text, turn, spaced))
        glyphs = []

    for i in range(textpage.count_chars()):
        glyph = chr(FPDFText_GetUnicode(textpage, i))
        if glyph in "\r\n" or glyph in _PDFIUM_DIVIDED:
            if glyph in _PDFIUM_DIVIDED and glyphs:
                glyphs.append(DIVIDED)
            end_word()
            spaced = False
            if words:
                yield words
                words = []
        elif glyph.isspace():
            end_word()
            spaced = True
        else:
            if not glyphs:
                first = i
                turn = round(-FPDFText_GetCharAngle(textpage, i) / (math.pi / 2)) % 4
                if words and words[-1].turn != turn:
                    yield words
                    words, spaced = [], False
            glyphs.append(glyph)
            last = i
            continue
    end_word()
    if words:
        yield words


def _runs_of_stretch(words: list[_Word]) -> Iterator[Run]:
    """Group words without a wide gap between them.

    The words are in reading order, which goes back and forth where scripts meet, so that their
    distance is decided by position alone.
    """
    here: list[_Word] = []
    box: Box = words[0].box
    for word in words:
        height = box[3] - box[1]
        gap = max(word.box[0] - box[2], box[0] - word.box[2])
        if here and (gap > WIDE_GAP * height or abs(word.box[1] - here[0].box[1]) > height):
            yield _run(here, box)
            here = []
        if not here:
            box = word.box
        here.append(word)
        box = (min(box[0], word.box[0]), box[1], max(box[2], word.box[2]), box[3])
    yield _run(here, box)


def _run(words: list[_Word], box: Box) -> Run:
    text = words[0].text
    for word in words[1:]:
        text += (joint(text, word.text) if word.spaced else "") + word.text
    return Run(*box, text)


def _turned(box: Box, turn: int) -> Box:
    """A box on a page that has been rotated so that its text is upright."""
    left, bottom, right, top = box
    if turn == 1:  # text that runs upwards
        return bottom, -right, top, -left
    if turn == 2:
        return -right, -top, -left, -bottom
    if turn == 3:
        return -top, left, -bottom, right
    return left, bottom, right, top
