"""A Bloom filter of the training text in a page, to tell what is copied.

A bit for the hash of each window of WINDOW characters. One window is taken for copied too often,
RUN - WINDOW + 1 of them in a row hardly ever; `copiedCharacters` in `page_text.js` reads it.

Source: Bloom 1970, https://doi.org/10.1145/362686.362692, with one hash.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from folio.run.model import Model
from folio.tokens.text import TokenText

WINDOW, RUN = 24, 30
"""Length of the runs that are looked up, in characters."""
BITS = 4
"""Bits of the filter per character of the text."""
MOST_BYTES = 2 << 20
FACTOR, MIX = np.uint32(0x01000193), np.uint32(0x2C1B3C6D)


def windows_filter(opened: Model) -> NDArray[np.uint8] | None:
    """Set bits for all windows of what the run learned from; None where it is too long for a
    page.
    """
    texts = [TokenText(tokens, opened.tokenizer) for tokens in opened.learned()]
    n_bytes = max(64, sum(text.n_characters for text in texts) * BITS // 8)
    if n_bytes > MOST_BYTES:
        return None
    # No text goes on in the next one; U+0000 stands for that, as at the end of a document.
    return filter_of((piece for text in texts for piece in (*text.pieces(), "\0")), n_bytes)


def filter_of(pieces: Iterable[str], n_bytes: int) -> NDArray[np.uint8]:
    """Set a bit for the hash of each window of a text that comes in pieces."""
    bits = np.zeros(n_bytes * 8, np.uint8)
    before = ""
    for piece in pieces:
        piece = before + piece
        codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
        bits[window_hashes(codes) % np.uint32(len(bits))] = 1
        before = piece[-(WINDOW - 1) :]
    return np.packbits(bits, bitorder="little")


def window_hashes(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Compute the hash of each window of WINDOW code points: (N,) -> (N - WINDOW + 1,)."""
    n = max(0, len(codes) - WINDOW + 1)
    hashes = np.zeros(n, np.uint32)
    for place in range(WINDOW):
        hashes = hashes * FACTOR + codes[place : place + n]
    hashes = (hashes ^ (hashes >> np.uint32(15))) * MIX
    return hashes ^ (hashes >> np.uint32(12))
