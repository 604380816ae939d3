"""The text of token ids as a stream of UTF-8 bytes ("symbols"), at some 100 MB/s.

A symbol is a byte, or BREAK where the text is interrupted: at the end of a document or of a turn in
a conversation, and at an unknown token. Other special tokens have no symbol. A place in a text is
the index of a symbol.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer
from folio.tokens.token_file import let_go

Symbols = NDArray[np.int16]
"""UTF-8 bytes, or BREAK."""
Bytes = NDArray[np.uint8]
"""UTF-8 bytes, with 0 for BREAK, which no text has."""
ALPHABET = 256
"""Number of byte values, of which 0 stands for BREAK."""

BREAK = 256
CHUNK_TOKENS = 1 << 16
"""Tokens that are decoded together, and held in memory while a text is streamed."""


class TokenText:
    """The symbols of some tokens, read from the start or at any place."""

    def __init__(self, tokens: TokenIds, tokenizer: Tokenizer) -> None:
        """Keep (N,) token ids, which may be a mapped file."""
        self.tokens = tokens
        self._end_of_document = tokenizer.end_of_document
        self._pieces, self._sizes = _table(tokenizer)
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._held = (-1, np.zeros(0, np.int16))

    def __len__(self) -> int:
        return int(self._chunk_starts[-1])

    def chunks(self, every: int = 1) -> Iterator[Symbols]:
        """The whole text, (n,) symbols at a time; or one in `every` of these."""
        for first in self._firsts(every):
            yield self._decoded(first)

    def between(self, start: int, stop: int) -> Symbols:
        """The symbols start ... stop - 1; fewer at the edges of the text."""
        starts = self._chunk_starts
        start, stop = max(start, 0), min(stop, int(starts[-1]))
        if start >= stop:
            return np.zeros(0, np.int16)
        first = int(np.searchsorted(starts, start, "right")) - 1
        last = int(np.searchsorted(starts, stop, "left"))
        chunks = [self._decoded(i * CHUNK_TOKENS) for i in range(first, last)]
        offset = int(starts[first])
        return np.concatenate(chunks)[start - offset : stop - offset]

    def whole(self) -> Bytes:
        """The whole text in memory."""
        found, begin = np.empty(len(self), np.uint8), 0
        for symbols in self.chunks():
            found[begin : begin + len(symbols)] = _as_bytes(symbols, 0)
            begin += len(symbols)
        return found

    def pieces(self) -> Iterator[str]:
        """The whole text as strings; BREAK is U+0000."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for symbols in self.chunks():
            yield decoder.decode(to_bytes(symbols))
        yield decoder.decode(b"", final=True)

    def characters_before(self, place: int) -> int:
        """Number of characters that begin before a place."""
        starts = self._chunk_starts
        chunk = min(int(np.searchsorted(starts, place, "right")) - 1, len(starts) - 2)
        if chunk < 0:
            return 0
        symbols = self._decoded(chunk * CHUNK_TOKENS)[: place - int(starts[chunk])]
        return int(self._chunk_characters[chunk]) + _count(symbols)

    def places_of(self, token_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the places where some tokens begin, given their indices."""
        places = np.zeros(len(token_numbers), np.int64)
        chunks = token_numbers // CHUNK_TOKENS
        for chunk in np.unique(chunks).tolist():
            first = chunk * CHUNK_TOKENS
            sizes = self._sizes[self.tokens[first : first + CHUNK_TOKENS]]
            begins = np.cumsum(sizes) - sizes + self._chunk_starts[chunk]
            here = chunks == chunk
            places[here] = begins[token_numbers[here] - first]
        return places

    def token_at(self, place: int) -> int:
        """The index of the token that a symbol belongs to."""
        starts = self._chunk_starts
        chunk = min(int(np.searchsorted(starts, place, "right")) - 1, len(starts) - 2)
        first = chunk * CHUNK_TOKENS
        ends = np.cumsum(self._sizes[self.tokens[first : first + CHUNK_TOKENS]]) + starts[chunk]
        return first + int(np.searchsorted(ends, place, "right"))

    def place_of_character(self, number: int) -> int:
        """The place of a character of `pieces`, where a BREAK counts as one character."""
        begins = self._chunk_counts[1]
        chunk = min(int(np.searchsorted(begins, number, "right")) - 1, len(begins) - 2)
        symbols = self._decoded(chunk * CHUNK_TOKENS)
        where = np.flatnonzero((symbols & 0xC0) != 0x80)
        return int(self._chunk_starts[chunk] + where[number - int(begins[chunk])])

    @cached_property
    def n_characters(self) -> int:
        """Number of characters in the whole text."""
        return int(self._chunk_characters[-1])

    @cached_property
    def document_starts(self) -> NDArray[np.int64]:
        """(D,) the place where each document begins, ascending."""
        found = [np.zeros(1, np.int64)]
        for number, first in enumerate(self._firsts()):
            chunk = self.tokens[first : first + CHUNK_TOKENS]
            if self._end_of_document is not None:
                ends = np.flatnonzero(chunk == self._end_of_document)
                if len(ends):
                    stops = np.cumsum(self._sizes[chunk])[ends]
                    found.append(stops + self._chunk_starts[number])
        return np.concatenate(found)

    @cached_property
    def _chunk_starts(self) -> NDArray[np.int64]:
        sizes = [
            int(self._sizes[self.tokens[first : first + CHUNK_TOKENS]].sum())
            for first in self._firsts()
        ]
        return np.cumsum([0, *sizes])

    @property
    def _chunk_characters(self) -> NDArray[np.int64]:
        return self._chunk_counts[0]

    @cached_property
    def _chunk_counts(self) -> NDArray[np.int64]:
        """(2, K + 1) number of characters that begin before each chunk; number of those and
        BREAKs.
        """
        counts = [np.zeros(2, np.int64)]
        for symbols in self.chunks():
            n = _count(symbols)
            counts.append(np.array([n, n + np.count_nonzero(symbols == BREAK)]))
        return np.cumsum(counts, axis=0).T

    def _firsts(self, every: int = 1) -> Iterator[int]:
        """The index of the first token of each chunk, or of one in `every`; pages of a mapped file
        are released on the way.
        """
        for first in range(0, len(self.tokens), every * CHUNK_TOKENS):
            yield first
            if first % (64 * CHUNK_TOKENS) == 0:
                let_go(self.tokens)
        let_go(self.tokens)

    def _decoded(self, first: int) -> Symbols:
        if self._held[0] != first:  # consecutive places are mostly in the same chunk
            self._held = first, self._decode(first)
        return self._held[1]

    def _decode(self, first: int) -> Symbols:
        chunk = self.tokens[first : first + CHUNK_TOKENS]
        sizes = self._sizes[chunk]
        ends = np.cumsum(sizes)
        if len(ends) == 0:
            return np.zeros(0, np.int16)
        where = np.repeat(self._begins[chunk] - (ends - sizes), sizes)
        where += np.arange(ends[-1])
        return self._pieces[where]


def characters(symbols: Symbols) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) a number for each character that begins in some bytes, and where it begins.

    Equal characters have equal numbers, and BREAK has one of its own; bytes before the first
    character belong to none.
    """
    values = np.asarray(symbols, np.int64)
    starts = np.flatnonzero((values & 0xC0) != 0x80)
    if not len(starts):
        return np.zeros(0, np.int64), starts
    values = values[starts[0] :]
    sizes = np.diff(starts, append=starts[0] + len(values))
    inside = np.arange(len(values)) - np.repeat(starts - starts[0], sizes)
    values = values << (8 * np.minimum(inside, 4))
    return np.add.reduceat(values, starts - starts[0]), starts


def to_text(symbols: Symbols) -> str:
    """Decode to a string: BREAK becomes a line end, and invalid UTF-8 becomes U+FFFD."""
    return to_bytes(symbols, ord("\n")).decode("utf-8", errors="replace")


def text_of(token_ids: TokenIds, tokenizer: Tokenizer) -> str:
    """Decode a few tokens to a string."""
    text = TokenText(token_ids, tokenizer)
    return to_text(text.between(0, len(text)))


def from_text(text: str) -> Symbols:
    """The symbols of a string."""
    return np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8).astype(np.int16)


def to_bytes(symbols: Symbols, for_break: int = 0) -> bytes:
    """Encode as UTF-8 bytes, BREAK as a byte that the text does not have."""
    return _as_bytes(symbols, for_break).tobytes()


def _as_bytes(symbols: Symbols, for_break: int) -> Bytes:
    return np.where(symbols == BREAK, for_break, symbols).astype(np.uint8)


def _count(symbols: Symbols) -> int:
    """Number of characters that begin in some symbols."""
    return int(np.count_nonzero(((symbols & 0xC0) != 0x80) & (symbols != BREAK)))


def _table(tokenizer: Tokenizer) -> tuple[Symbols, NDArray[np.int64]]:
    """The symbols of all ids concatenated, and the number of each."""
    breaks = {tokenizer.end_of_document, tokenizer.unknown}
    if tokenizer.has_chat:  # a change of speaker interrupts the text
        breaks.add(tokenizer.special_tokens[CHAT_TOKENS[2]])
    special = set(tokenizer.special_tokens.values())
    symbols: list[int] = []
    sizes = []
    for token_id, piece in enumerate(tokenizer.pieces):
        if token_id in breaks:
            mine = [BREAK]
        else:
            mine = [] if token_id in special else [*piece, *tokenizer.separator]
        symbols += mine
        sizes.append(len(mine))
    return np.array(symbols, np.int16), np.array(sizes, np.int64)
