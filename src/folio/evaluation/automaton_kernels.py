"""The suffix automaton of `automaton.py` in arrays, compiled: some 10 MB/s on one core.

A state is a number, the root 0. All transitions are in one open-addressing hash table, with key and
target adjacent, so that a look-up is one memory access. The entries of a state are chained, so that
a state can be copied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.automaton import NONE
from folio.jit import kernel
from folio.tokens.text import BREAK, Symbols

_MIX = np.uint64(0x9E3779B97F4A7C15)
_WIDTH = np.uint64(512)
_ONE, _ZERO = np.uint64(1), np.uint64(0)
_BREAK = np.int64(BREAK)

LENGTH, END, COLOR, OTHER = 0, 1, 2, 3
"""Columns of the notes: the longest substring, and from OTHER on that of another color."""


class Automaton:
    """The automaton of `PlainAutomaton` in arrays, built and read by kernels."""

    def __init__(self, symbols: Symbols) -> None:
        """Build the automaton, which takes some 200 bytes per symbol."""
        n = len(symbols)
        bits = max(4, int(4.5 * n).bit_length())  # for at most 3 n entries
        self.entries = np.zeros((1 << bits, 2), np.uint64)
        self.shift = np.uint64(64 - bits)
        chain = np.empty(1 << bits, np.int32)
        heads = np.full(2 * n + 2, -1, np.int32)
        self.lengths = np.zeros(2 * n + 2, np.int32)
        self.links = np.full(2 * n + 2, -1, np.int32)
        self.prefixes = np.zeros(n, np.int32)
        states = (self.lengths, self.links, heads, chain)
        n_states = _build(symbols, self.entries, self.shift, states, self.prefixes)
        self.lengths, self.links = self.lengths[:n_states], self.links[:n_states]
        self.notes = np.tile(np.array([0, NONE, NONE] * 2, np.int64), (n_states, 1))
        self.cursor = np.zeros(4, np.int64)

    def read(self, symbols: Symbols, stops: NDArray[np.int64], colors: NDArray[np.int32]) -> None:
        """Continue reading a text."""
        states = (self.lengths, self.links)
        _read(
            symbols, stops, colors, self.entries, self.shift, states, self.notes, self.cursor
        )  # fmt: skip

    def settle(self) -> None:
        """Pass the notes on between states of longer and shorter substrings."""
        order = np.argsort(self.lengths, kind="stable").astype(np.int32)
        _settle(order, self.lengths, self.links, self.notes)

    def longest(
        self, excluded: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """For each place of the indexed texts, find the longest substring that ends there and was
        read.
        """
        found = self.notes[self.prefixes]
        first, other = found[:, :OTHER], found[:, OTHER:]
        skip = (first[:, LENGTH] > 0) & (first[:, COLOR] == excluded)
        best = np.where(skip[:, None], other, first)
        elsewhere = np.where(excluded == NONE, other[:, LENGTH], 0)
        return best[:, LENGTH].astype(np.int32), best[:, END], elsewhere.astype(np.int32)


@kernel()
def _find(entries, shift, state, symbol):
    """The slot of the transition from a state by a symbol, or the empty slot where it belongs."""
    key = np.uint64(state) * _WIDTH + np.uint64(symbol) + _ONE
    mask = np.uint64(len(entries) - 1)
    slot = (key * _MIX) >> shift
    while entries[slot, 0] != key and entries[slot, 0] != _ZERO:
        slot = (slot + _ONE) & mask
    return np.int64(slot)


@kernel()
def _put(entries, shift, states, state, symbol, target):
    _, _, heads, chain = states
    slot = _find(entries, shift, state, symbol)
    entries[slot, 0] = np.uint64(state) * _WIDTH + np.uint64(symbol) + _ONE
    entries[slot, 1] = np.uint64(target)
    chain[slot] = heads[state]
    heads[state] = slot


@kernel()
def _build(symbols, entries, shift, states, prefixes):
    lengths, links, heads, chain = states
    last, n = 0, 1
    for i in range(len(symbols)):
        symbol = np.int64(symbols[i])
        new = n
        n += 1
        lengths[new] = lengths[last] + 1
        links[new] = 0
        state = last
        slot = _find(entries, shift, state, symbol)
        while state >= 0 and entries[slot, 0] == _ZERO:
            _put(entries, shift, states, state, symbol, new)
            state = np.int64(links[state])
            if state >= 0:
                slot = _find(entries, shift, state, symbol)
        if state >= 0:
            old = np.int64(entries[slot, 1])
            if lengths[old] == lengths[state] + 1:
                links[new] = old
            else:
                clone = n
                n += 1
                lengths[clone] = lengths[state] + 1
                links[clone] = links[old]
                entry = np.int64(heads[old])
                while entry >= 0:
                    follows = np.int64((entries[entry, 0] - _ONE) % _WIDTH)
                    _put(entries, shift, states, clone, follows, entries[entry, 1])
                    entry = np.int64(chain[entry])
                while state >= 0:
                    slot = _find(entries, shift, state, symbol)
                    if entries[slot, 0] == _ZERO or np.int64(entries[slot, 1]) != old:
                        break
                    entries[slot, 1] = np.uint64(clone)
                    state = np.int64(links[state])
                links[old] = clone
                links[new] = clone
        last = new
        prefixes[i] = new
    return n


@kernel()
def _write(notes, state, column, length, end, color):
    notes[state, column + LENGTH] = length
    notes[state, column + END] = end
    notes[state, column + COLOR] = color


@kernel()
def _note(notes, state, length, end, color):
    if notes[state, COLOR] == color:
        if length > notes[state, LENGTH]:
            _write(notes, state, 0, length, end, color)
    elif length > notes[state, LENGTH]:
        for column in range(OTHER):
            notes[state, OTHER + column] = notes[state, column]
        _write(notes, state, 0, length, end, color)
    elif length > notes[state, OTHER + LENGTH]:
        _write(notes, state, OTHER, length, end, color)


@kernel()
def _read(symbols, stops, colors, entries, shift, states, notes, cursor):
    lengths, links = states
    state, length, position, block = cursor[0], cursor[1], cursor[2], cursor[3]
    for i in range(len(symbols)):
        while position == stops[block]:
            block += 1
        position += 1
        symbol = np.int64(symbols[i])
        if symbol == _BREAK:
            state, length = np.int64(0), np.int64(0)
            continue
        slot = _find(entries, shift, state, symbol)
        while entries[slot, 0] == _ZERO and state > 0:
            state = np.int64(links[state])
            length = np.int64(lengths[state])
            slot = _find(entries, shift, state, symbol)
        if entries[slot, 0] == _ZERO:
            length = np.int64(0)
            continue
        state = np.int64(entries[slot, 1])
        length += 1
        _note(notes, state, length, position, np.int64(colors[block]))
    cursor[0], cursor[1], cursor[2], cursor[3] = state, length, position, block


@kernel()
def _settle(order, lengths, links, notes):
    for i in range(len(order) - 1, 0, -1):
        state = np.int64(order[i])
        link = np.int64(links[state])
        if link > 0:
            for column in (0, OTHER):
                if notes[state, column + LENGTH] > 0:
                    end, color = notes[state, column + END], notes[state, column + COLOR]
                    _note(notes, link, np.int64(lengths[link]), end, color)
    for i in range(1, len(order)):
        state = np.int64(order[i])
        link = np.int64(links[state])
        if link > 0:
            for column in (0, OTHER):
                length, color = notes[link, column + LENGTH], notes[link, column + COLOR]
                if length > 0:
                    end = notes[link, column + END]
                    if notes[state, LENGTH] == 0:
                        _write(notes, state, 0, length, end, color)
                    elif notes[state, OTHER + LENGTH] == 0 and notes[state, COLOR] != color:
                        _write(notes, state, OTHER, length, end, color)
