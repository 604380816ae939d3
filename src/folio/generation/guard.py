"""Never more than N letters and digits in a row that stand so in the training text.

Case, spaces and punctuation do not count: they are folded away, in the training text as in what is
written. A table holds a hash of all N + 1 letters in a row of the training text; a token that
would complete one of them is not drawn. The table is a Bloom filter
(https://doi.org/10.1145/362686.362692), which errs on one side only: it may stop what is new, about
once in 24,000 times at most, and never lets through what is not. Ippolito et al. 2022,
https://arxiv.org/abs/2210.17546, call that memorization-free decoding, and show its limits: a
changed letter in N gets past it.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import BASE, mixed, rolling_hashes
from folio.errors import UserError
from folio.generation.row import FINISHED, Draw
from folio.generation.sampling import EXCLUDED, Logits, SamplingConfig, draw
from folio.jit import available
from folio.tokenizers.base import Tokenizer
from folio.tokens.text import TokenText

USUAL = 40
"""Letters: in new pages of an author a match is longer than 60 characters at 1 % of the places."""
BITS = 24
"""Bits of the filter for each byte of the training text, which begins one run at most."""
PROBES = 8
"""Bits that are set for a run; new ones are all set by others with (1 - e^(-8 / 24))^8 = 4e-5."""

_ALL = (1 << 64) - 1
_INVERSE = pow(BASE, -1, 1 << 64)


@dataclass(frozen=True)
class NoveltyTable:
    """All runs of n + 1 letters of a text, as a Bloom filter."""

    n: int
    bits: NDArray[np.uint8]

    def __contains__(self, run: int) -> bool:
        """Whether a run may be there, by its polynomial hash; never wrong where it says no."""
        first = _mix(run & _ALL)
        step = (first >> 32) | 1
        bits, n_bits = self.bits, len(self.bits) * 8
        for _ in range(PROBES):
            place = first % n_bits
            if not bits[place >> 3] >> (place & 7) & 1:
                return False
            first = (first + step) & _ALL
        return True


def make_table(texts: Sequence[TokenText], n: int) -> NoveltyTable:
    """Read training texts once.

    Args:
        texts: of which nothing longer may be written.
        n: letters and digits in a row that may.

    Raises:
        UserError: n is below 1.
    """
    if n < 1:
        raise UserError(f"novel must be 1 letter or more, as {USUAL}, or 0 for no guard, got {n}.")
    bits = np.zeros(max(sum(map(len, texts)) * BITS // 8, 64), np.uint8)
    for text in texts:
        before = np.zeros(0, np.uint32)
        for codes in _folded_pieces(text.pieces()):
            codes = np.concatenate([before, codes])
            if len(codes) > n:
                hashes = rolling_hashes(codes, n + 1)
                breaks = np.cumsum(np.append(0, codes == _BREAK))
                whole = breaks[n + 1 :] == breaks[: len(hashes)]
                _insert(bits, hashes[whole])
            before = codes[max(len(codes) - n, 0) :]
    return NoveltyTable(n, bits)


class Guard:
    """Draws as `sampling.draw` does, and again where a token would complete a run of the table."""

    def __init__(self, table: NoveltyTable, tokenizer: Tokenizer) -> None:
        """Guard as many texts as are asked for."""
        self.table = table
        self.tokenizer = tokenizer
        self.stuck = 0
        """Times that nothing new could follow, and the document ended."""

    def of_text(self) -> Draw:
        """Make a `draw` for one text: (V,) to a token, FINISHED where nothing may come."""
        return partial(self._draw, _Row(self.table))

    def _draw(
        self, row: _Row, logits: Logits, config: SamplingConfig, generator: random.Random
    ) -> int:
        left = logits
        while not self._takes(row, token_id := draw(left, config, generator)):
            if left is logits:
                left = logits.copy()
            left[token_id] = EXCLUDED
            if bool((left == EXCLUDED).all()):
                return self._ends(row)
        return token_id

    def _takes(self, row: _Row, token_id: int) -> bool:
        """Whether a token may follow; it then has."""
        if token_id == self.tokenizer.end_of_document:
            row.begin()
            return True
        return row.goes_on(_piece(self.tokenizer, token_id))

    def _ends(self, row: _Row) -> int:
        self.stuck += 1
        row.begin()
        end = self.tokenizer.end_of_document
        return FINISHED if end is None else end


class _Row:
    """The end of what a text has written so far."""

    def __init__(self, table: NoveltyTable) -> None:
        self.table = table
        self.top = pow(BASE, table.n, 1 << 64)
        self.begin()

    def begin(self) -> None:
        """Begin a new document."""
        self.pending = b""
        """Bytes of an incomplete character."""
        self.letters: list[int] = []
        """The last n at most, folded."""
        self.hash = 0
        """Their polynomial, the first one with a power of 0."""

    def goes_on(self, piece: bytes) -> bool:
        """Append a piece of text, unless it completes a run in the table."""
        data = self.pending + piece
        text, used = codecs.utf_8_decode(data, "replace", False)
        letters, value, n = self.letters, self.hash, self.table.n
        for code in fold(text):
            if len(letters) < n:
                value += code * pow(BASE, len(letters), 1 << 64)
            else:
                run = value + code * self.top
                if run in self.table:
                    return False
                value = (run - letters[0]) * _INVERSE
                letters = letters[1:]
            letters = [*letters, code]
            value &= _ALL
        self.letters, self.hash, self.pending = letters, value, data[used:]
        return True


@cache
def fold(text: str) -> tuple[int, ...]:
    """Letters and digits in lower case, as numbers.

    >>> fold("A-b, 1!") == fold("ab1")
    True
    """
    return tuple(code for character in text if (code := _fold_character(ord(character))))


@cache
def _fold_character(code: int) -> int:
    """A number above 0 for a letter or digit; 0 for characters that do not count."""
    character = chr(code)
    return ord(character.lower()[0]) + 1 if character.isalnum() else 0


_BREAK = np.uint32(0xFFFFFFFF)


def _folded_pieces(pieces: Iterable[str]) -> Iterable[NDArray[np.uint32]]:
    """(n,) letters of each piece, with _BREAK where a document ends."""
    for piece in pieces:
        codes = np.frombuffer(piece.encode("utf-32-le", errors="replace"), np.uint32)
        kinds, index = np.unique(codes, return_inverse=True)
        table = np.array([_fold_character(int(code)) if code else _BREAK for code in kinds])
        folded = table.astype(np.uint32)[index] if len(kinds) else codes
        yield folded[folded != 0]


def _piece(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes of a token; none for special tokens and rows that only pad."""
    if token_id >= tokenizer.vocab_size or token_id in tokenizer.special_tokens.values():
        return b""
    return tokenizer.pieces[token_id] + tokenizer.separator


def _mix(value: int) -> int:
    """Mix one number as `fingerprints.mixed` mixes many."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _ALL
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _ALL
    return value ^ value >> 33


def _insert(bits: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> None:
    """Note some runs, by their polynomial hashes."""
    hashes = mixed(hashes)
    if available() and len(bits) > 1 << 16:
        from folio.generation.guard_kernels import insert

        insert(bits, hashes, PROBES)
        return
    step = (hashes >> np.uint64(32)) | np.uint64(1)
    n_bits = np.uint64(len(bits) * 8)
    for _ in range(PROBES):
        places = hashes % n_bits
        flags = np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
        np.bitwise_or.at(bits, (places >> np.uint64(3)).astype(np.int64), flags)
        hashes = hashes + step
