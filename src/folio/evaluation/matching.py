"""Which pieces of some texts stand in another, much longer one.

The texts are indexed, not the long one, which is read once from front to back: memory grows with
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
"""Symbols that are done before the compiled automaton is loaded."""


@dataclass(frozen=True)
class Query:
    """A text that is looked for, without a BREAK."""

    symbols: Symbols
    cluster: int
    """Texts of one cluster belong together: a sample, or a family of documents."""
    excluded: int = NONE
    """The color of the blocks that do not count; NONE where all do."""


@dataclass(frozen=True)
class Match:
    """What was found of a query of n characters."""

    query: Query
    codes: NDArray[np.int64]
    """(n,) a number for each character."""
    starts: NDArray[np.int64]
    """(n,) the byte at which it begins."""
    lengths: NDArray[np.int64]
    """(n,) of the longest match that ends with it."""
    ends: NDArray[np.int64]
    """(n,) the place in the long text behind that match; NONE where there is none."""
    elsewhere: NDArray[np.int64]
    """(n,) length of the longest match of another color than that of `ends`; 0 where the query
    excludes one."""


@dataclass(frozen=True)
class Blocks:
    """A text as blocks; a match belongs to the one in which it ends."""

    stops: NDArray[np.int64]
    """(K,) the place where each ends, ascending; the last one is the length of the text."""
    colors: NDArray[np.int32]
    """(K,) a number of 0 or more; blocks of one color belong together."""


def find_matches(
    queries: Sequence[Query], chunks: Iterable[Symbols], blocks: Blocks, plain: bool | None = None
) -> list[Match]:
    """Look for every piece of each query.

    Args:
        queries: short texts, some hundred thousand characters in all.
        chunks: the long text, in pieces of any size.
        blocks: of the long text.
        plain: whether the readable automaton does it; None where numba is missing, or for little.
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
    """The stretches between BREAKs, without empty ones."""
    return [part[part != BREAK] for part in np.split(symbols, np.flatnonzero(symbols == BREAK))
            if (part != BREAK).any()]  # fmt: skip


def _in_characters(
    query: Query, lengths: NDArray[Any], ends: NDArray[Any], elsewhere: NDArray[Any]
) -> Match:
    """Lengths in bytes at each byte -> in characters at each character."""
    codes, starts = characters(query.symbols)
    n_bytes = len(query.symbols)
    # How many characters begin before each byte.
    before = np.zeros(n_bytes + 1, np.int64)
    before[1:] = np.cumsum((query.symbols & 0xC0) != 0x80)
    last = np.append(starts[1:], n_bytes)[: len(starts)] - 1  # byte of each character
    stop = last + 1
    return Match(
        query,
        codes,
        starts,
        before[stop] - before[stop - lengths[last]],
        ends[last],
        before[stop] - before[stop - elsewhere[last]],
    )
