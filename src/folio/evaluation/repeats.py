"""How often some stretches of text stand in a longer one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import span_hashes
from folio.tokens.text import TokenText

FILTER_BITS = 20
OFTEN = 5
"""Times that a passage may stand in the training text, above which it is a repeat."""


def count_spans(pieces: Iterable[str], spans: Sequence[str]) -> NDArray[np.int64]:
    """(N,) how often each span stands in a text, which is read once.

    Args:
        pieces: the text.
        spans: N of them, all of the same length.

    >>> count_spans(["ab", "aba"], ["aba", "abb"]).tolist()
    [2, 0]
    """
    if not spans:
        return np.zeros(0, np.int64)
    length = len(spans[0])
    hashes = [next(span_hashes([span], length))[0] for span in spans]
    wanted, index = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    counts = np.zeros(len(wanted), np.int64)
    mask = np.uint64((1 << FILTER_BITS) - 1)
    possible = np.zeros(1 << FILTER_BITS, bool)  # most places are none of them
    possible[wanted & mask] = True
    for of_text in span_hashes(pieces, length):
        of_text = of_text[possible[of_text & mask]]
        where = np.minimum(np.searchsorted(wanted, of_text), len(wanted) - 1)
        found = where[wanted[where] == of_text]
        counts += np.bincount(found, minlength=len(wanted))
    return counts[index]


def count_repeats(text: TokenText, suffixes: Sequence[str], length: int) -> NDArray[np.int64]:
    """(N,) how often the first characters of each suffix stand in the training text."""
    counts = np.zeros(len(suffixes), np.int64)
    sizes = np.array([min(len(suffix), length) for suffix in suffixes], np.int64)
    for size in np.unique(sizes).tolist():
        of_size = np.flatnonzero(sizes == size)
        if size:
            spans = [suffixes[i][:size] for i in of_size.tolist()]
            counts[of_size] = count_spans(text.pieces(), spans)
    return counts
