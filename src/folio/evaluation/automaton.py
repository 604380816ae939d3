"""A suffix automaton, to be read: the smallest machine that knows every piece of some texts.

Each state stands for the pieces that end at the same places of the texts; those of one state are
suffixes of each other, of lengths `lengths[link] + 1 ... lengths[state]`. `links` lead to the
longest suffix that ends in more places. Blumer et al. 1985,
https://doi.org/10.1016/0304-3975(85)90157-4.

Another text is read through it, symbol by symbol, however long it is: at each place the state of
the longest piece that ends there is found, and notes it, with where it was. Texts have colors,
and a state notes the longest piece of two different ones, so that afterwards any piece can be
looked up in all texts but those of one color.

`automaton_kernels` does the same with arrays; this one serves where numba is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from folio.tokens.text import BREAK, Symbols

NONE = -1
"""No color, and no place."""


@dataclass
class State:
    """Pieces that end at the same places."""

    length: int
    """That of the longest of its pieces."""
    link: State | None = None
    follow: dict[int, State] = field(default_factory=dict)
    notes: list[tuple[int, int, int]] = field(default_factory=list)
    """(length, end, color) of the longest pieces that were read, of two colors at most."""

    def note(self, length: int, end: int, color: int) -> None:
        """Keep a piece where it is longer than what is known."""
        others = [note for note in self.notes if note[2] != color]
        same = [note for note in self.notes if note[2] == color]
        best = same[0] if same and same[0][0] >= length else (length, end, color)
        self.notes = sorted([best, *others], key=lambda note: -note[0])[:2]


class PlainAutomaton:
    """Pieces of one series of symbols; BREAK stands between its texts."""

    def __init__(self, symbols: Symbols) -> None:
        """Build it, in time that grows with the texts."""
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
        """Read on in a text.

        Args:
            symbols: (n,) those that follow what was read before.
            stops: (K,) the places where the blocks of that text end, ascending.
            colors: (K,) of the blocks; a piece has that of the block in which it ends.
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
        """Let each state know what was read of longer pieces, and of shorter ones."""
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
        """For each place of the texts, the longest piece that ends there and was read.

        Args:
            excluded: (n,) the color that does not count there; NONE where all do.

        Returns:
            Its length; where it ended in the text that was read, NONE where there is no piece; and
            the length of the longest one of another color than that, 0 where one is excluded.
        """
        found = np.zeros((len(self.prefixes), 3), np.int64)
        for i, (state, color) in enumerate(zip(self.prefixes, excluded.tolist())):
            notes = [note for note in state.notes if note[2] != color]
            (length, end, _), (other, _, _) = [*notes, *repeat((0, NONE, NONE), 2)][:2]
            found[i] = length, end, other if color == NONE else 0
        return found[:, 0].astype(np.int32), found[:, 1], found[:, 2].astype(np.int32)
