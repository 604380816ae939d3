"""What layout must know of a script: its direction, and whether it puts spaces between words."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x30FF),  # radicals, CJK punctuation, kana
    (0x3105, 0x312F),  # bopomofo
    (0x31F0, 0x9FFF),  # kana, CJK
    (0xA000, 0xA4CF),  # Yi
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF01, 0xFF9F),  # full and half width
    (0x16FE0, 0x18DFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""First and last character of the blocks of scripts without spaces between words."""
_BEGINS = [begin for begin, _ in _WITHOUT_SPACES]


def written_without_spaces(character: str) -> bool:
    """Whether the script of a character puts no spaces between words."""
    code = ord(character)
    at = bisect_right(_BEGINS, code) - 1
    return at >= 0 and code <= _WITHOUT_SPACES[at][1]


def joint(before: str, after: str) -> str:
    """The separator of two stretches of a line, or of two lines: a space, or nothing.

    >>> joint("over the", "roof"), joint("灯塔", "的人")
    (' ', '')
    """
    if not before or not after:
        return ""
    return "" if written_without_spaces(before[-1]) and written_without_spaces(after[0]) else " "


def goes_left(text: str) -> bool:
    """Whether more letters of a text are read from right to left than from left to right.

    >>> goes_left("שלום abc"), goes_left("2026")
    (True, False)
    """
    kinds = [unicodedata.bidirectional(character) for character in text]
    return kinds.count("R") + kinds.count("AL") > kinds.count("L")
