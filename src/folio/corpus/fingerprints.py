"""Hashes words and spans of a text to 64-bit numbers in numpy, at some 50 MB/s.

A word is a run of letters and digits, in lower case if it is ASCII; a Chinese or Japanese character
is a word of its own. A hash is a polynomial in the codes, modulo 2^64, then mixed. The hashes of
all words or spans of an array take a product with powers, a cumulative sum, and a product with
inverse powers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
WORD_BASE = 0xD6E8FEB86659FD93
LONGEST_WAIT = 1 << 20
"""In characters; a text without spaces is cut after so many."""


def word_hashes(pieces: Iterable[str]) -> Iterator[Hashes]:
    """(n,) hashes of the words of a text, in order."""
    for text in _whole_words(pieces):
        yield _words(_bytes_of(text))


def word_starts(pieces: Iterable[str]) -> Iterator[NDArray[np.int64]]:
    """(n,) positions of the first characters of the words that `word_hashes` gives, in order."""
    position = 0
    for text in _whole_words(pieces):
        data = _bytes_of(text)
        characters = np.cumsum((data & 0xC0) != 0x80)  # up to and with the one of each byte
        yield characters[_find_words(data)[1]] - 1 + position
        position += len(text)


def gram_hashes(pieces: Iterable[str], n: int) -> Iterator[Hashes]:
    """(m,) hashes of every n consecutive words; a text of fewer words has one hash of all."""
    before = np.zeros(0, np.uint64)
    given = False
    for words in word_hashes(pieces):
        words = np.concatenate([before, words])
        if len(words) >= n:
            given = True
            yield _grams(words, n)
        before = words[max(len(words) - n + 1, 0) :]
    if not given and len(before):
        yield _grams(before, len(before))


def span_hashes(pieces: Iterable[str], n: int) -> Iterator[Hashes]:
    """(m,) hashes of every n consecutive characters; none if there are fewer."""
    before = ""
    for piece in pieces:
        text = before + piece
        if len(text) >= n:
            codes = np.frombuffer(text.encode("utf-32-le", errors="replace"), np.uint32)
            yield _spans(codes, n)
        before = text[max(len(text) - n + 1, 0) :]


def line_hashes(pieces: Iterable[str], shortest: int) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """(n,) hashes and lengths of the lines of a text, except those shorter than `shortest`
    characters.

    The hashes are Python's own: they tell lines apart within one process.
    """
    waiting = ""
    for piece in chain(pieces, ["\n"]):
        *lines, waiting = (waiting + piece).split("\n")
        stripped = map(str.strip, lines)
        longer = [line for line in stripped if len(line) >= shortest]
        lengths = np.fromiter(map(len, longer), np.int64, len(longer))
        yield np.fromiter(map(hash, longer), np.int64, len(longer)).view(np.uint64), lengths
        if len(waiting) > LONGEST_WAIT:  # no one compares a line this long
            waiting = ""


def mixed(hashes: Hashes) -> Hashes:
    """Spread differences over all bits, in place (the finalizer of MurmurHash3)."""
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    return hashes


# ---- kernels ---------------------------------------------------------------------------


def _bytes_of(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)


def _words(data: NDArray[np.uint8]) -> Hashes:
    values, where = _find_words(data)
    if not len(where):
        return np.zeros(0, np.uint64)
    powers, inverses = _powers(len(data))
    sums = np.add.reduceat(values * powers[: len(data)], where)
    return mixed(sums * inverses[where])


def _find_words(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(b,) the code of each byte, 0 between words, and (n,) the place of each word's first byte."""
    values = _FOLD[data]
    alone = np.zeros(len(data), bool)  # first bytes of one-character words
    if data.max(initial=0) >= 0xC2:
        lead = data[:-2]
        following = data[1:-1]
        # General punctuation, and that of Chinese and Japanese, separates as a space does.
        blank = (lead == 0xE2) & (following <= 0x81) | (lead == 0xE3) & (following == 0x80)
        for i in range(3):
            values[i : len(data) - 2 + i][blank] = 0
        latin = data[:-1] == 0xC2
        for i in range(2):
            values[i : len(data) - 1 + i][latin] = 0
        alone[:-2] = (lead >= 0xE3) & (lead <= 0xE9) & ~blank
    inside = values != 0
    starts = inside.copy()
    starts[1:] &= ~inside[:-1] | alone[1:]
    starts[3:] |= alone[:-3] & inside[3:]
    return values, np.flatnonzero(starts)


def _grams(words: Hashes, n: int) -> Hashes:
    count = len(words) - n + 1
    total = words[:count].copy()
    for i in range(1, n):
        total *= np.uint64(WORD_BASE)
        total += words[i : i + count]
    return mixed(total)


def rolling_hashes(codes: NDArray[np.uint32], n: int) -> Hashes:
    """(m,) polynomials of every n consecutive codes; the first code has power 0."""
    powers, inverses = _powers(len(codes))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes.astype(np.uint64) * powers[: len(codes)], out=sums[1:])
    return (sums[n:] - sums[:-n]) * inverses[: len(codes) - n + 1]


def _spans(codes: NDArray[np.uint32], n: int) -> Hashes:
    return mixed(rolling_hashes(codes + np.uint32(1), n))


def _fold() -> NDArray[np.uint64]:
    table = np.zeros(256, np.uint64)
    for code in range(256):
        if code >= 0x80 or chr(code).isalnum() or chr(code) == "_":
            table[code] = ord(chr(code).lower()) + 1 if code < 0x80 else code + 1
    return table


_FOLD = _fold()


def _powers(n: int) -> tuple[Hashes, Hashes]:
    """(at least n,) powers of BASE and of its inverse, modulo 2^64."""
    return _powers_of(max(1 << 10, 1 << (n - 1).bit_length()))


@cache
def _powers_of(n: int) -> tuple[Hashes, Hashes]:
    tables = []
    for base in (BASE, pow(BASE, -1, 1 << 64)):
        table = np.full(n, base, np.uint64)
        table[0] = 1
        tables.append(np.multiply.accumulate(table))
    return tables[0], tables[1]


def _whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The text in pieces that end between words."""
    waiting = ""
    for piece in pieces:
        waiting += piece
        end = max(waiting.rfind(" "), waiting.rfind("\n")) + 1
        if not end and len(waiting) > LONGEST_WAIT:
            end = len(waiting)
        if end:
            yield waiting[:end]
            waiting = waiting[end:]
    if waiting:
        yield waiting
