"""Modified Kneser-Ney n-grams over symbols: what a table of spellings predicts, to be read.

The chance of a symbol after the n - 1 before it is a discounted count, mixed with that of the next
lower order; a lower order does not count how often something occurred, but after how many different
symbols (Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128, section 3). Counts of
the lower orders are kept while reading: whatever is new in one order counts once in the next lower
one. So the same table can go on learning from the text that it is tested on (`adaptive`), as
compressors do, or not (`static`), as a model does.

`ngram_kernels` does the same in arrays; this one serves where numba is missing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.discounts import ALPHABET, discounts_of
from folio.jit import available
from folio.tokens.text import BREAK, Symbols, TokenText

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
FIRST_ORDER = 6
PLAIN_BELOW = 20_000
"""Symbols in all that are done before the compiled table is loaded."""
CHOOSING = 4_000_000
"""Symbols of the training text, its last ones, on which the order is chosen."""


class NGrams(Protocol):
    """A table of n-grams."""

    def learn(self, symbols: Symbols) -> None:
        """Read (n,) symbols that follow what was read before."""

    def surprise(self, symbols: Symbols, adaptive: bool) -> NDArray[np.float64]:
        """(n,) nats of each symbol, and learn from each once it is known, if `adaptive`."""
        ...


class PlainNGrams:
    """With dictionaries."""

    def __init__(self, order: int) -> None:
        """Begin with an empty table of n-grams up to `order`."""
        self.order = order
        self.history: tuple[int, ...] = ()
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(order)
        ]
        """Of each order, by context: how often each symbol follows."""
        self.of_counts = [[0] * 5 for _ in range(order)]
        """Of each order: how many n-grams have the count 1, 2, 3, 4."""

    def learn(self, symbols: Symbols) -> None:
        """Count."""
        for symbol in symbols.tolist():
            self._count(symbol)
            self._move(symbol)

    def surprise(self, symbols: Symbols, adaptive: bool) -> NDArray[np.float64]:
        """Predict, and count if `adaptive`."""
        nats = []
        for symbol in symbols.tolist():
            nats.append(-math.log(self._probability(symbol)))
            if adaptive:
                self._count(symbol)
            self._move(symbol)
        return np.array(nats)

    def _context(self, n: int) -> tuple[int, ...]:
        return self.history[len(self.history) - n :]

    def _count(self, symbol: int) -> None:
        for n in range(min(self.order - 1, len(self.history)), -1, -1):
            following = self.counts[n][self._context(n)]
            before = following[symbol]
            following[symbol] = before + 1
            of_counts = self.of_counts[n]
            if 0 < before < 5:
                of_counts[before] -= 1
            if before < 4:
                of_counts[before + 1] += 1
            if before:  # it is not new after this context, nor then for a shorter one
                return

    def _move(self, symbol: int) -> None:
        self.history = (*self.history, symbol)[-(self.order - 1) :] if self.order > 1 else ()

    def _probability(self, symbol: int) -> float:
        p = 1 / ALPHABET
        for n in range(min(self.order - 1, len(self.history)) + 1):
            following = self.counts[n].get(self._context(n))
            if not following:
                break
            discounts = discounts_of(*self.of_counts[n][1:])
            total = following.total()
            taken = sum(discounts[min(count, 3) - 1] for count in following.values())
            count = following.get(symbol, 0)
            kept = count - discounts[min(count, 3) - 1] if count else 0.0
            p = (kept + taken * p) / total
        return p


def make_ngrams(order: int, plain: bool | None = None) -> NGrams:
    """A table that is to be filled.

    Args:
        order: n.
        plain: whether the readable one; None where numba is missing.
    """
    if plain is None:
        plain = not available()
    if plain:
        return PlainNGrams(order)
    from folio.evaluation.ngram_kernels import CompiledNGrams

    return CompiledNGrams(order)


def order_for(training: TokenText) -> int:
    """The order that does best on the last symbols of a training text."""
    return choose_order(training.between(len(training) - CHOOSING, len(training)))


def choose_order(training: Symbols) -> int:
    """The order that predicts the last tenth of a text best from the rest of it.

    Args:
        training: (n,) symbols; the last CHOOSING of them count.
    """
    text = training[-CHOOSING:]
    cut = len(text) - len(text) // 10
    losses: dict[int, float] = {}

    def loss(order: int) -> float:
        if order not in losses:
            table = make_ngrams(order, plain=len(text) < PLAIN_BELOW or None)
            table.learn(text[:cut])
            losses[order] = float(table.surprise(text[cut:], adaptive=False).sum())
        return losses[order]

    place = ORDERS.index(FIRST_ORDER)
    step = -1 if loss(ORDERS[place - 1]) < loss(ORDERS[place]) else 1
    while 0 <= place + step < len(ORDERS) and loss(ORDERS[place + step]) < loss(ORDERS[place]):
        place += step
    return ORDERS[place]


def ngram_surprise(
    training: Iterable[Symbols], text: Symbols, order: int, plain: bool | None = None
) -> dict[str, NDArray[np.float64]]:
    """(n,) nats of each symbol of a text, `static` and `adaptive`.

    Args:
        training: what is read before it, in pieces.
        text: what is predicted.
        order: of the table.
        plain: as in `make_ngrams`.
    """
    table = make_ngrams(order, plain)
    for symbols in training:
        table.learn(symbols)
    table.learn(np.array([BREAK], np.int16))
    static = table.surprise(text, adaptive=False)
    # What was read while predicting is only the history, which a break ends.
    table.surprise(np.array([BREAK], np.int16), adaptive=False)
    return {"static": static, "adaptive": table.surprise(text, adaptive=True)}
