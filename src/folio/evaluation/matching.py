"""Finds which substrings of some texts occur in another, much longer one.

The short texts are indexed, and the long one is read once from front to back: memory grows with
the former only. All lengths are in characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.automaton import NONE, PlainAutomaton
from folio.jit import available
from folio.tokens.text import BREAK, Symbols, characters

PLAIN_BELOW = 20_000
"""In symbols; for fewer, loading the compiled automaton is not worth it."""


@dataclass(frozen=True)
class Query:
    """A text to look for, without a BREAK."""

    symbols: Symbols
    cluster: int
    """Queries of one cluster belong together: a sample, or a family of documents."""
    excluded: int = NONE
    """The color of the blocks that do not count for it; NONE if all do."""


@dataclass(frozen=True)
class Match:
    """The matches of a query of n characters."""

    query: Query
    codes: NDArray[np.int64]
    """(n,) a number for each character; equal characters have equal numbers."""
    starts: NDArray[np.int64]
    """(n,) the byte at which each character begins."""
    lengths: NDArray[np.int64]
    """(n,) length of the longest match that ends with each character."""
    ends: NDArray[np.int64]
    """(n,) the place in the long text after that match; NONE if there is none."""
    elsewhere: NDArray[np.int64]
    """(n,) length of the longest match of a color other than that of `ends`; 0 if the query
    excludes a color."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a text; a match belongs to the one in which it ends."""

    stops: NDArray[np.int64]
    """(K,) the place where each block ends, ascending; the last is the length of the text."""
    colors: NDArray[np.int32]
    """(K,) a number of 0 or more; blocks of one color belong together."""


def find_matches(
    queries: Sequence[Query], chunks: Iterable[Symbols], blocks: Blocks, plain: bool | None = None
) -> list[Match]:
    """Look up every substring of each query.

    Args:
        queries: short texts, some hundred thousand characters in all.
        chunks: the long text, in pieces of any size.
        blocks: the blocks of the long text.
        plain: whether to use the readable automaton; None uses it without numba, or for short
            input.
    """
    between = np.array([BREAK], np.int16)
    series = [part for query in queries for part in (query.symbols, between)]
    symbols = np.concatenate([np.zeros(0, np.int16), *series])
    if plain is None:
        little = len(symbols) + int(blocks.stops[-1]) < PLAIN_BELOW
        plain = little or not available()
    if plain:
        automaton = PlainAutomaton(symbols)
    else:
        from folio.evaluation.automaton_kernels import Automaton

        automaton = Automaton(symbols)
    for chunk in chunks:
        automaton.read(chunk, blocks.stops, blocks.colors)
    automaton.settle()
    sizes = [len(query.symbols) + 1 for query in queries]
    excluded = np.repeat(np.array([q.excluded for q in queries], np.int32), sizes)
    found = automaton.longest(excluded)
    stops = np.cumsum(sizes)
    return [
        _in_characters(query, *(of[stop - size : stop - 1] for of in found))
        for query, stop, size in zip(queries, stops.tolist(), sizes)
    ]


def split_at_breaks(symbols: Symbols) -> list[Symbols]:
    """The stretches between BREAKs, except empty ones."""
    return [part[part != BREAK] for part in np.split(symbols, np.flatnonzero(symbols == BREAK))
            if (part != BREAK).any()]  # fmt: skip


def _in_characters(
    query: Query, lengths: NDArray[Any], ends: NDArray[Any], elsewhere: NDArray[Any]
) -> Match:
    """Convert lengths in bytes at each byte to lengths in characters at each character."""
    codes, starts = characters(query.symbols)
    n_bytes = len(query.symbols)
    # The number of characters that begin before each byte.
    before = np.zeros(n_bytes + 1, np.int64)
    before[1:] = np.cumsum((query.symbols & 0xC0) != 0x80)
    last = np.append(starts[1:], n_bytes)[: len(starts)] - 1  # last byte of each character
    stop = last + 1
    return Match(
        query,
        codes,
        starts,
        before[stop] - before[stop - lengths[last]],
        ends[last],
        before[stop] - before[stop - elsewhere[last]],
    )
