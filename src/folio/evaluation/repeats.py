"""Counts how often some stretches of text occur in a longer one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import BASE, mixed, rolling_hashes
from folio.tokens.text import BREAK, Symbols, TokenText, characters

FILTER_BITS = 20
OFTEN = 5
"""A passage that occurs more often in the training text is a repeat."""


def count_spans(chunks: Iterable[Symbols], spans: Sequence[Symbols]) -> NDArray[np.int64]:
    """(N,) how often each span occurs in a text, which is read once.

    Args:
        chunks: the text, in pieces of any size.
        spans: N stretches without a BREAK; an empty one occurs nowhere.
    """
    counts = np.zeros(len(spans), np.int64)
    sizes = np.array([len(span) for span in spans], np.int64)
    if not sizes.any():
        return counts
    shortest, longest = int(sizes[sizes > 0].min()), int(sizes.max())
    # Few places begin like a span, and only those are compared in full.
    possible = np.zeros(1 << FILTER_BITS, bool)
    possible[_slots(_hashes([span[:shortest] for span in spans if len(span)]))] = True
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes[sizes > 0])]
    wanted = [
        np.unique(_hashes([spans[i] for i in of.tolist()]), return_inverse=True) for of in groups
    ]
    for window in _overlapping(chunks, longest - 1):
        codes = window.astype(np.uint32) + np.uint32(1)
        begins = rolling_hashes(codes, shortest)[: len(window) - longest + 1]
        begins = np.flatnonzero(possible[_slots(begins)])
        for of, (hashes, index) in zip(groups, wanted):
            size = int(sizes[of[0]])
            found = _rows(np.lib.stride_tricks.sliding_window_view(codes, size)[begins])
            where = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
            hits = where[hashes[where] == found]
            counts[of] += np.bincount(hits, minlength=len(hashes))[index]
    return counts


def count_repeats(
    text: TokenText, suffixes: Sequence[Symbols], length: int, every: int = 1
) -> NDArray[np.int64]:
    """(N,) how often the first `length` characters that begin in each suffix occur in the training
    text, or in one in `every` of its chunks.
    """
    return count_spans(text.chunks(every), [_first(suffix, length) for suffix in suffixes])


def _first(symbols: Symbols, length: int) -> Symbols:
    """The symbols of the first characters that begin in a text."""
    edges = np.append(characters(symbols)[1], len(symbols))
    return symbols[edges[0] : edges[min(length, len(edges) - 1)]]


def _overlapping(chunks: Iterable[Symbols], more: int) -> Iterator[Symbols]:
    """The pieces, each followed by the next `more` symbols, or by BREAKs at the end."""
    window = np.zeros(0, np.int16)
    for chunk in chunks:
        window = np.concatenate([window, chunk])
        if len(window) > more:
            yield window
            window = window[len(window) - more :]
    if len(window):
        yield np.concatenate([window, np.full(more, BREAK, np.int16)])


def _hashes(spans: Sequence[Symbols]) -> NDArray[np.uint64]:
    """(N,) the polynomial of each span, as in `rolling_hashes`."""
    return np.array([_rows(span[None].astype(np.uint32) + np.uint32(1))[0] for span in spans])


def _rows(codes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Hash spans: (N, n) -> (N,)."""
    powers = np.full(codes.shape[1], BASE, np.uint64)
    powers[0] = 1
    return (codes * np.multiply.accumulate(powers)).sum(axis=1, dtype=np.uint64)


def _slots(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return mixed(hashes) >> np.uint64(64 - FILTER_BITS)
