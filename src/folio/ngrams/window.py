"""What stands in the window itself, beside what stood in the training text.

A text repeats its own names and words more than any other text does. So where the last tokens stood
in the window before, what followed them there is mixed in: by Witten and Bell's rule (1991,
https://doi.org/10.1109/18.87000, method C), by which that counts the more, the more often they
stood there and the fewer different tokens followed:

    p(token) = (count + k / n * different * p_shorter(token)) / (total + k / n * different)

after the last n tokens: first n = 1, then 2, and so on, beginning with the n-grams of the training
text. They divide k, since a longer context is surer.

Shapes:  B windows · T positions · R positions at the end that are asked for · V vocabulary · m
different tokens, after each of the positions that have some
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folio.ngrams.table import NGrams


class Followed(NamedTuple):
    """What followed the last n tokens where they stood earlier in a window."""

    rows: NDArray[np.int32]
    """(m,) after which of the R positions."""
    tokens: NDArray[np.int32]
    """(m,) the tokens, each once for a position."""
    counts: NDArray[np.int32]
    """(m,) how often."""


def expected_in_window(
    ngrams: NGrams, token_ids: NDArray[Any], k: float, n_last: int
) -> NDArray[np.float32]:
    """Predict the next token at the last positions of some windows.

    Args:
        ngrams: of the training text.
        token_ids: (B, T) below V; nothing is known of what stood before them.
        k: as above; 0 leaves the windows out.
        n_last: R, at most T.

    Returns:
        (B, R, V) probabilities.
    """
    near = token_ids[:, max(0, token_ids.shape[1] - n_last - ngrams.order) :]
    found = ngrams.probabilities(near)[:, near.shape[1] - n_last :]
    if k:
        for rows, ids in zip(found, token_ids):
            mix_in(rows, count_window(ids, n_last, ngrams.order), k)
    return found


def count_window(token_ids: NDArray[Any], n_last: int, order: int) -> list[Followed]:
    """Count what followed the last tokens earlier in a window.

    Args:
        token_ids: (T,) the window.
        n_last: R, at most T.
        order: the most tokens, n.

    Returns:
        For n = 1 ... order what followed so many.
    """
    ids, first = np.asarray(token_ids, np.int64), len(token_ids) - n_last
    earlier = np.tri(n_last, len(ids), first - 1, bool)
    here, there = np.nonzero(earlier & (ids[first:, None] == ids))
    here += first  # positions, and earlier ones that end the same tokens
    size, found = ids.max() + 1, list[Followed]()
    for n in range(order):
        same = there >= n
        here, there = here[same], there[same]
        same = ids[here - n] == ids[there - n]
        here, there = here[same], there[same]
        keys, counts = np.unique((here - first) * size + ids[there + 1], return_counts=True)
        found.append(Followed(*(x.astype(np.int32) for x in (*np.divmod(keys, size), counts))))
    return found


def mix_in(found: NDArray[np.float32], window: Sequence[Followed], k: float) -> None:
    """Turn what n-grams expect into what they expect in this window.

    Args:
        found: (R, V) probabilities of the token after each of the last R positions; changed.
        window: from `count_window`.
        k: as above, over 0.
    """
    for n, (rows, tokens, counts) in enumerate(window, 1):
        kept = k / n * np.bincount(rows, minlength=len(found))
        whole = np.maximum(np.bincount(rows, counts, len(found)) + kept, 1)
        seen = kept > 0
        found[seen] *= (kept / whole)[seen, None]
        found[rows, tokens] += counts / whole[rows]
