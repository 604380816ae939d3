"""A suffix automaton, written to be read: the smallest automaton that accepts every substring of
some texts.

Each state represents the substrings that end at the same places of the texts; those of one state
are suffixes of each other, of lengths `lengths[link] + 1 ... lengths[state]`. `links` lead to the
longest suffix that ends in more places. Blumer et al. 1985,
https://doi.org/10.1016/0304-3975(85)90157-4.

Another text of any length is then read through it symbol by symbol: each place leads to the state
of the longest known substring that ends there, which notes its length and place. Texts have colors,
and a state keeps notes of two different colors, so that afterwards a substring can be looked up in
all texts except those of one color.

`automaton_kernels` does the same with arrays; this one serves where numba is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from folio.tokens.text import BREAK, Symbols

NONE = -1
"""Stands for no color and for no place."""


@dataclass
class State:
    """The substrings that end at the same places."""

    length: int
    """Length of its longest substring."""
    link: State | None = None
    follow: dict[int, State] = field(default_factory=dict)
    notes: list[tuple[int, int, int]] = field(default_factory=list)
    """(length, end, color) of the longest substrings that were read, of at most two colors."""

    def note(self, length: int, end: int, color: int) -> None:
        """Keep a substring if it is longer than those noted before."""
        others = [note for note in self.notes if note[2] != color]
        same = [note for note in self.notes if note[2] == color]
        best = same[0] if same and same[0][0] >= length else (length, end, color)
        self.notes = sorted([best, *others], key=lambda note: -note[0])[:2]


class PlainAutomaton:
    """All substrings of one series of symbols, with BREAK between its texts."""

    def __init__(self, symbols: Symbols) -> None:
        """Build the automaton in linear time."""
        self.root = State(0)
        self.states = [self.root]
        self.prefixes: list[State] = []
        last = self.root
        for symbol in symbols.tolist():
            last = self._extend(last, symbol)
            self.prefixes.append(last)
        self.state, self.length, self.position, self.block = self.root, 0, 0, 0

    def _extend(self, last: State, symbol: int) -> State:
        new = self._add(State(last.length + 1, self.root))
        state: State | None = last
        while state is not None and symbol not in state.follow:
            state.follow[symbol] = new
            state = state.link
        if state is None:
            return new
        old = state.follow[symbol]
        if old.length == state.length + 1:
            new.link = old
            return new
        clone = self._add(State(state.length + 1, old.link, dict(old.follow)))
        while state is not None and state.follow.get(symbol) is old:
            state.follow[symbol] = clone
            state = state.link
        old.link = new.link = clone
        return new

    def _add(self, state: State) -> State:
        self.states.append(state)
        return state

    def read(self, symbols: Symbols, stops: NDArray[np.int64], colors: NDArray[np.int32]) -> None:
        """Continue reading a text.

        Args:
            symbols: (n,) symbols that follow those read before.
            stops: (K,) the places where the blocks of that text end, ascending.
            colors: (K,) color of each block; a substring has that of the block in which it ends.
        """
        for symbol in symbols.tolist():
            while self.position == stops[self.block]:
                self.block += 1
            self.position += 1
            while symbol not in self.state.follow and self.state.link is not None:
                self.state = self.state.link
                self.length = self.state.length
            if symbol == BREAK or symbol not in self.state.follow:
                self.state, self.length = self.root, 0
                continue
            self.state = self.state.follow[symbol]
            self.length += 1
            self.state.note(self.length, self.position, int(colors[self.block]))

    def settle(self) -> None:
        """Pass the notes on between states of longer and shorter substrings."""
        ordered = sorted(self.states, key=lambda state: state.length)
        for state in reversed(ordered):
            if state.link is not None and state.link.link is not None:
                for _, end, color in state.notes:
                    state.link.note(state.link.length, end, color)
        for state in ordered:
            if state.link is not None and len(state.notes) < 2:
                for note in state.link.notes:
                    if len(state.notes) < 2 and note[2] not in [of for _, _, of in state.notes]:
                        state.notes.append(note)

    def longest(
        self, excluded: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """For each place of the indexed texts, find the longest substring that ends there and was
        read.

        Args:
            excluded: (n,) the color that does not count at each place; NONE if all count.

        Returns:
            Its length; where it ended in the text that was read, NONE if there is none; and the
            length of the longest one of a color other than that, 0 where one is excluded.
        """
        found = np.zeros((len(self.prefixes), 3), np.int64)
        for i, (state, color) in enumerate(zip(self.prefixes, excluded.tolist())):
            notes = [note for note in state.notes if note[2] != color]
            (length, end, _), (other, _, _) = [*notes, *repeat((0, NONE, NONE), 2)][:2]
            found[i] = length, end, other if color == NONE else 0
        return found[:, 0].astype(np.int32), found[:, 1], found[:, 2].astype(np.int32)
