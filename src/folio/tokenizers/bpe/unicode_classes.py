"""The class of every code point for the split patterns: letter, number, whitespace or other.

`unicode_classes.txt` holds ranges, its Unicode version on the first line;
scripts/make_unicode_classes.py writes it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

OTHER, LETTER, NUMBER, WHITESPACE = 0, 1, 2, 3
N_CODE_POINTS = 0x110000

_CLASS_NUMBERS = {"letter": LETTER, "number": NUMBER, "whitespace": WHITESPACE}


@cache
def read_ranges() -> dict[str, list[tuple[int, int]]]:
    """Ranges (first, last) of code points, both inclusive, of letters, numbers, whitespace,
    symbols.

    A symbol is punctuation or a sign such as + and ©; the split patterns do not tell those apart.

    >>> read_ranges()["number"][0] == (ord("0"), ord("9"))
    True
    """
    ranges: dict[str, list[tuple[int, int]]] = {}
    for line in _table().splitlines():
        name, *spans = line.split(" ")
        if name not in ("unicode", "from"):
            edges = (span.partition("-") for span in spans)
            ranges[name] = [(int(first, 16), int(last or first, 16)) for first, _, last in edges]
    return ranges


@cache
def class_table() -> np.ndarray:
    """(0x110000,) uint8: the class of each code point.

    >>> [int(class_table()[ord(character)]) for character in "!x7 "]
    [0, 1, 2, 3]
    """
    classes = np.zeros(N_CODE_POINTS, np.uint8)
    for name, number in _CLASS_NUMBERS.items():
        for first, last in read_ranges()[name]:
            classes[first : last + 1] = number
    classes.flags.writeable = False
    return classes


def unicode_version() -> str:
    """The version of Unicode that the table was made from, such as "17.0.0"."""
    return _table().partition("\n")[0].removeprefix("unicode ")


def _table() -> str:
    return Path(__file__).with_name("unicode_classes.txt").read_text(encoding="utf-8")
