"""What stands earlier in the window that is read, beside what a model expects.

A text repeats its own names and words more than any other text does. So where the last tokens stood
in the window before, what followed them there is mixed in: by Witten and Bell's rule (1991,
https://doi.org/10.1109/18.87000, method C), by which that counts the more, the more often they
stood there and the fewer different tokens followed:

    p(token) = (count + k * different * p_shorter(token)) / (total + k * different)

after the last n tokens, from the shortest n that counts on; before it, p is what the model expects.
Two or three characters stand everywhere, so that their n begins later than that of byte pairs.

Shapes:  T tokens of a window · R positions at its end that are asked for · V vocabulary · m
different tokens, after each of the positions that have some · n targets
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST = 10
"""Most tokens that are looked for."""


class WindowRule(NamedTuple):
    """Says how much the window counts."""

    k: float
    shortest: int
    """Fewest tokens that are looked for, 1 to LONGEST."""


class Followed(NamedTuple):
    """What followed the last n tokens where they stood earlier in a window."""

    rows: NDArray[np.int32]
    """(m,) after which of the R positions."""
    tokens: NDArray[np.int32]
    """(m,) the tokens, each once for a position."""
    counts: NDArray[np.int32]
    """(m,) how often."""


def count_window(token_ids: NDArray[Any], n_last: int) -> list[Followed]:
    """Count what followed the last tokens earlier in a window.

    Args:
        token_ids: (T,) the window.
        n_last: R, at most T.

    Returns:
        For n = 1 ... LONGEST what followed so many.
    """
    ids, first = np.asarray(token_ids, np.int64), len(token_ids) - n_last
    earlier = np.tri(n_last, len(ids), first - 1, bool)
    here, there = np.nonzero(earlier & (ids[first:, None] == ids))
    here += first  # positions, and earlier ones that end the same tokens
    size, found = ids.max() + 1, list[Followed]()
    for n in range(LONGEST):
        same = there >= n
        here, there = here[same], there[same]
        same = ids[here - n] == ids[there - n]
        here, there = here[same], there[same]
        keys, counts = np.unique((here - first) * size + ids[there + 1], return_counts=True)
        found.append(Followed(*(x.astype(np.int32) for x in (*np.divmod(keys, size), counts))))
    return found


def mix_in(expected: NDArray[np.float32], window: Sequence[Followed], rule: WindowRule) -> None:
    """Turn what a model expects into what is to be expected in this window.

    Args:
        expected: (R, V) probabilities of the token after each of the last R positions; changed.
        window: from `count_window`.
        rule: how much it counts.
    """
    for rows, tokens, counts in window[rule.shortest - 1 :]:
        kept = rule.k * np.bincount(rows, minlength=len(expected))
        whole = np.maximum(np.bincount(rows, counts, len(expected)) + kept, 1)
        seen = kept > 0
        expected[seen] *= (kept / whole)[seen, None]
        expected[rows, tokens] += counts / whole[rows]


def count_targets(token_ids: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.int32]:
    """Count a whole window, as far as the probability of what did follow needs it.

    Args:
        token_ids: (T,) the window.
        targets: (T,) the token after each.

    Returns:
        (T, LONGEST, 3): how many tokens followed so many, how many different ones, and how often
        the target did.
    """
    ids, follow = np.asarray(token_ids, np.int64), np.asarray(targets, np.int64)
    found = np.zeros((len(ids), LONGEST, 3), np.int32)
    size, ends = max(ids.max(), follow.max()) + 1, ids  # ends: a number for each end of n tokens
    for n in range(min(LONGEST, len(ids))):
        hits = _sum_before(ends * size + follow[n:], np.ones_like(ends))
        found[n:, n, 0] = _sum_before(ends, np.ones_like(ends))
        found[n:, n, 1] = _sum_before(ends, (hits == 0).astype(np.int64))
        found[n:, n, 2] = hits
        ends = np.unique(ends[:-1] * size + ids[n + 1 :], return_inverse=True)[1]
    return found


def _sum_before(keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) the sum of the values that stand earlier and have the same key."""
    order = np.argsort(keys, kind="stable")
    begins = np.diff(keys[order], prepend=keys.min() - 1) != 0  # a new key
    sums = np.cumsum(values[order]) - values[order]
    before = np.empty_like(sums)
    before[order] = sums - sums[begins][np.cumsum(begins) - 1]
    return before


def mix_in_targets(
    expected: NDArray[np.float64], counts: NDArray[np.int32], rule: WindowRule
) -> NDArray[np.float64]:
    """(n,) what `mix_in` makes of the probabilities of the targets alone.

    Args:
        expected: (n,) by the model.
        counts: (n, LONGEST, 3) from `count_targets`.
        rule: how much the window counts.
    """
    for total, different, hits in counts[:, rule.shortest - 1 :].transpose(1, 2, 0):
        kept = rule.k * different
        mixed = (hits + kept * expected) / np.maximum(total + kept, 1)
        expected = np.where(different > 0, mixed, expected)
    return expected
