"""Modified Kneser-Ney n-grams over bytes: what a table of spellings predicts, to be read.

The chance of a byte after the n - 1 before it is a discounted count, mixed with that of the next
lower order; a lower order does not count how often something occurred, but after how many different
bytes (Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128, section 3). Counts of
the lower orders are kept while reading: whatever is new in one order counts once in the next lower
one. So the same table can go on learning from the text that it is tested on (`adaptive`), as
compressors do, or not (`static`), as a model does. What is taken off a count is that of the
training text in both. A byte of 0 stands where no text goes on, and before the first one.

`ngram_kernels` does the same by sorting; this one serves where numba is missing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.discounts import ALPHABET, Discounts, discounts_of
from folio.jit import available
from folio.tokens.text import Bytes

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
FIRST_ORDER = 6
PLAIN_BELOW = 20_000
"""Bytes in all that are done before the kernels are loaded."""
CHOOSING = 10_000_000
"""Bytes of the training text, its last ones, on which the order is chosen."""


class PlainNGrams:
    """With dictionaries."""

    def __init__(self, order: int) -> None:
        """Begin with an empty table of n-grams up to `order`."""
        self.order = order
        self.history: tuple[int, ...] = (0,) * (order - 1)
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(order)
        ]
        """Of each order, by context: how often each byte follows."""
        self.of_counts = [[0] * 5 for _ in range(order)]
        """Of each order: how many n-grams have the count 1, 2, 3, 4."""

    def learn(self, text: Bytes) -> None:
        """Read (n,) bytes that follow what was read before."""
        for byte in text.tolist():
            self._count(byte)
            self._move(byte)

    def surprise(self, text: Bytes, adaptive: bool) -> NDArray[np.float64]:
        """(n,) nats of each byte, and learn from each once it is known, if `adaptive`; else
        nothing of them stays.
        """
        discounts = [discounts_of(*of_counts[1:]) for of_counts in self.of_counts]
        before, nats = self.history, []
        for byte in text.tolist():
            nats.append(-math.log(self._probability(byte, discounts)))
            if adaptive:
                self._count(byte)
            self._move(byte)
        if not adaptive:
            self.history = before
        return np.array(nats)

    def _context(self, n: int) -> tuple[int, ...]:
        return self.history[len(self.history) - n :]

    def _count(self, byte: int) -> None:
        for n in range(self.order - 1, -1, -1):
            following = self.counts[n][self._context(n)]
            before = following[byte]
            following[byte] = before + 1
            of_counts = self.of_counts[n]
            if 0 < before < 5:
                of_counts[before] -= 1
            if before < 4:
                of_counts[before + 1] += 1
            if before:  # it is not new after this context, nor then for a shorter one
                return

    def _move(self, byte: int) -> None:
        self.history = (*self.history, byte)[-(self.order - 1) :] if self.order > 1 else ()

    def _probability(self, byte: int, discounts: Sequence[Discounts]) -> float:
        p = 1 / ALPHABET
        for n in range(self.order):
            following = self.counts[n].get(self._context(n))
            if not following:
                break
            total = following.total()
            taken = sum(discounts[n][min(count, 3) - 1] for count in following.values())
            count = following.get(byte, 0)
            kept = count - discounts[n][min(count, 3) - 1] if count else 0.0
            p = (kept + taken * p) / total
        return p


def ngram_surprise(
    training: Bytes, text: Bytes, order: int, plain: bool | None = None
) -> dict[str, NDArray[np.floating]]:
    """(n,) nats of each byte of a text, `static` and `adaptive`.

    Args:
        training: (m,) what is read before it; a byte of 0 comes between.
        text: (n,) what is predicted.
        order: of the n-grams.
        plain: whether the readable table does it; None where numba is missing, or for little.
    """
    return _predictor(training, text, plain)(order)


def choose_order(training: Bytes, plain: bool | None = None) -> int:
    """The order that predicts the last tenth of a text best from the rest of it.

    Args:
        training: (n,) bytes; the last CHOOSING of them count.
        plain: as in `ngram_surprise`.
    """
    text = training[-CHOOSING:]
    cut = len(text) - len(text) // 10
    surprise = _predictor(text[:cut], text[cut:], plain)
    loss = cache(lambda place: float(surprise(ORDERS[place])["static"].sum()))
    place = ORDERS.index(FIRST_ORDER)
    step = -1 if loss(place - 1) < loss(place) else 1
    while 0 <= place + step < len(ORDERS) and loss(place + step) < loss(place):
        place += step
    return ORDERS[place]


def _predictor(
    training: Bytes, text: Bytes, plain: bool | None
) -> Callable[[int], dict[str, NDArray[np.floating]]]:
    """Return what computes, of an order, the nats of each byte."""
    if plain is None:
        plain = len(training) + len(text) < PLAIN_BELOW or not available()
    if not plain:
        from folio.evaluation.ngram_kernels import CompiledNGrams

        return CompiledNGrams(training, text).surprise

    def surprise(order: int) -> dict[str, NDArray[np.floating]]:
        table = PlainNGrams(order)
        table.learn(training)
        table.learn(np.zeros(1, np.uint8))
        return {
            "static": table.surprise(text, adaptive=False),
            "adaptive": table.surprise(text, adaptive=True),
        }

    return surprise
