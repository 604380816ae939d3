"""Finds what occurs in the training text, exactly or nearly, in texts that were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.matching import Match
from folio.evaluation.passages import pattern_windows
from folio.evaluation.shares import Share, share_of
from folio.tokens.text import TokenText, characters

LONGEST_GRAM = 100
MOSTLY = 0.8
"""Share of a copy that must occur in a second block of the text to be said to stand elsewhere."""
SEED = 16
"""Characters in a row that begin a nearly equal stretch."""
GAP, AGREE = 4, 6
"""A nearly equal stretch may differ in at most GAP characters in a row, followed by AGREE equal
ones."""
EDITS = 0.1
"""Largest share of a nearly equal stretch that may differ."""
REACH = 1500
"""Symbols on either side of a seed that are compared."""


@dataclass(frozen=True)
class Copies:
    """What some texts copy from the training text; patterns do not count, except in
    `with_patterns`.
    """

    copied: Share
    """Characters in copies of `length` and more, of those in texts that are as long; of none where
    all are shorter."""
    with_patterns: Share
    nearly: Share
    """The same for copies in which one character in ten may differ."""
    longest: int
    longest_nearly: int
    mean_match: float
    """Mean length of the longest match that ends at a character, in characters."""
    seen: list[float]
    """Share of the n-grams of n = 1, 2 ... 100 characters that occur in the training text."""
    seen_errors: list[float]


@dataclass(frozen=True)
class Span:
    """Characters start ... stop - 1 of a text, which stand in the training text."""

    start: int
    stop: int
    end: int
    """The place in the training text behind them."""
    elsewhere: bool
    """Whether they stand in a second block of the text, too: another family, or another stretch."""


def measure_copies(matches: Sequence[Match], text: TokenText, length: int) -> Copies:
    """Sum up what was found.

    Args:
        matches: of texts, in clusters.
        text: the training text.
        length: characters from which on it is a copy.
    """
    clusters = np.array([match.query.cluster for match in matches], np.int64)
    sizes = np.array([len(match.codes) for match in matches], np.int64)
    masks = [covered(match, length) for match in matches]
    near = [np.zeros(len(match.codes), bool) for match in matches]
    longest_nearly = 0
    for which, start, stop in _nearly(matches, text, length):
        near[which][start:stop] = True
        longest_nearly = max(longest_nearly, stop - start)
    every = [covered(match, length, patterns=True) for match in matches]
    seen, errors = _seen(matches, clusters)
    counts = [np.array([mask.sum() for mask in of], float) for of in (masks, every, near)]
    fitting = np.where(sizes >= length, sizes, 0)  # others have no room for a copy
    shares = [share_of(count, clusters, fitting) for count in counts]
    n = int(sizes.sum())
    return Copies(
        *shares,
        longest=max((longest_copy(match, length) for match in matches), default=0),
        longest_nearly=longest_nearly,
        mean_match=float(sum(int(match.lengths.sum()) for match in matches) / max(n, 1)),
        seen=seen,
        seen_errors=errors,
    )


def covered(match: Match, length: int, patterns: bool = False) -> NDArray[np.bool_]:
    """(n,) which characters lie in `length` in a row that stand in the training text, and are
    no pattern, unless `patterns` count too.
    """
    ends = np.flatnonzero(_copied(match, length, patterns))
    change = np.zeros(len(match.codes) + 1, np.int64)
    change[ends - length + 1] += 1
    change[ends + 1] -= 1
    return np.cumsum(change)[:-1] > 0


def longest_copy(match: Match, length: int) -> int:
    """Length of the longest copy in characters, without the patterns at its edges."""
    flags = _copied(match, length, patterns=False)
    if not flags.any():
        # Shorter than a passage: the longest that is not a pattern as a whole.
        best = 0
        for i in np.argsort(-match.lengths, kind="stable").tolist()[:50]:
            n = int(match.lengths[i])
            if n > best and not (n >= 8 and pattern_windows(match.codes[i + 1 - n : i + 1], n)[0]):
                best = n
        return min(best, length - 1)
    place = np.arange(len(flags))
    since = place - np.maximum.accumulate(np.where(flags, -1, place))
    return int(np.minimum(since + length - 1, match.lengths)[flags].max())


def spans_of(match: Match, shortest: int) -> list[Span]:
    """Maximal matches of so many characters at least that are not patterns and do not overlap,
    the longest first to be chosen; in order.
    """
    taken = np.zeros(len(match.codes), bool)
    flags = _copied(match, shortest, patterns=False)
    ends = np.flatnonzero(_maximal(match) & (match.lengths >= shortest))
    spans = []
    for i in ends[np.argsort(-match.lengths[ends], kind="stable")].tolist():
        n = int(match.lengths[i])
        start = i + 1 - n
        if flags[start + shortest - 1 : i + 1].any() and not taken[start : i + 1].any():
            taken[start : i + 1] = True
            spans.append(
                Span(start, i + 1, int(match.ends[i]), bool(match.elsewhere[i] >= MOSTLY * n))
            )
    return sorted(spans, key=lambda span: span.start)


def nearly_spans(match: Match, text: TokenText, length: int) -> list[tuple[int, int]]:
    """Start and stop of the nearly equal stretches of one text."""
    return [(start, stop) for _, start, stop in _nearly([match], text, length)]


def _copied(match: Match, length: int, patterns: bool) -> NDArray[np.bool_]:
    """(n,) whether the `length` characters up to each stand in the training text."""
    flags = match.lengths >= length
    if not patterns and flags.any():
        flags[length - 1 :] &= ~pattern_windows(match.codes, length)
    return flags


def _maximal(match: Match) -> NDArray[np.bool_]:
    """(n,) whether the match that ends with a character cannot go on."""
    return np.append(match.lengths[1:] != match.lengths[:-1] + 1, True)


def _seen(matches: Sequence[Match], clusters: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Shares of n-grams that occur in the training text, and their errors."""
    # (K, 101) of each text: characters with a match of n at least, and with n before them at all.
    bins = LONGEST_GRAM + 1
    matched, there = np.zeros((2, len(matches), bins))
    for i, match in enumerate(matches):
        found = np.bincount(np.minimum(match.lengths, LONGEST_GRAM), minlength=bins)
        matched[i] = found[::-1].cumsum()[::-1]
        there[i] = np.maximum(len(match.codes) + 1 - np.arange(bins), 0)
    shares = [share_of(matched[:, n], clusters, there[:, n]) for n in range(1, bins)]
    return [share.value for share in shares], [share.error for share in shares]


def _nearly(matches: Sequence[Match], text: TokenText, length: int) -> list[tuple[int, int, int]]:
    """The text, start and stop of its nearly equal stretches."""
    seeds = []
    for which, match in enumerate(matches):
        flags = _copied(match, SEED, patterns=False)
        for i in np.flatnonzero(_maximal(match) & (match.lengths >= SEED)).tolist():
            n = int(match.lengths[i])
            if flags[i + SEED - n : i + 1].any():
                seeds.append((int(match.ends[i]), which, i, n))
    found = []
    for end, which, i, n in sorted(seeds):  # neighbours in the training text, one after the other
        match = matches[which]
        n_bytes = int(_byte_stop(match, i) - match.starts[i + 1 - n])
        around = text.between(end - n_bytes - REACH, end + REACH)
        codes, starts = characters(around)
        offset = max(end - n_bytes - REACH, 0)
        behind = int(np.searchsorted(starts, end - offset))
        right, edits = _extend(match.codes[i + 1 :], codes[behind:], n, 0)
        left, edits = _extend(
            match.codes[: i + 1 - n][::-1], codes[: behind - n][::-1], n + right, edits
        )
        start, stop = i + 1 - n - left, i + 1 + right
        if stop - start >= length:
            found += [(which, a, b) for a, b in _no_patterns(match.codes, start, stop, length)]
    return found


def _no_patterns(
    codes: NDArray[np.int64], start: int, stop: int, length: int
) -> list[tuple[int, int]]:
    """The stretches of start ... stop - 1 that `length` characters cover which are no pattern."""
    plain = np.flatnonzero(~pattern_windows(codes[start:stop], length)) + start
    edges = np.flatnonzero(np.diff(plain) > length)
    firsts = plain[np.append(0, edges + 1)] if len(plain) else plain
    lasts = plain[np.append(edges, len(plain) - 1)] if len(plain) else plain
    return [(int(a), int(b) + length) for a, b in zip(firsts, lasts)]


def _byte_stop(match: Match, i: int) -> int:
    return match.starts[i + 1] if i + 1 < len(match.starts) else len(match.query.symbols)


_GAPS = sorted(product(range(GAP + 1), repeat=2), key=lambda gap: (max(gap), sum(gap)))[1:]


def _extend(
    mine: NDArray[np.int64], theirs: NDArray[np.int64], length: int, edits: int
) -> tuple[int, int]:
    """Measure how far two texts continue nearly equal.

    Args:
        mine, theirs: characters behind a stretch that is alike.
        length, edits: of that stretch.

    Returns:
        Characters of `mine`, and the edits of both.
    """
    a, b = mine[:REACH].tolist(), theirs.tolist()
    i = j = 0
    while True:
        for skip, other in _GAPS:
            n = 0
            at, of = i + skip, j + other
            while at + n < len(a) and of + n < len(b) and a[at + n] == b[of + n]:
                n += 1
            more = edits + max(skip, other)
            if n >= AGREE and more <= EDITS * (length + at + n):
                i, j, edits = at + n, of + n, more
                break
        else:
            return i, edits
