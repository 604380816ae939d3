"""Modified Kneser-Ney n-grams over bytes, written to be read: a baseline that only knows spelling.

The probability of a byte after n - 1 others is a discounted count, mixed with that of the next
lower order; a lower order does not count occurrences, but the number of different bytes before them
(Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128, section 3). Counts of the lower orders
are kept while reading: whatever is new in one order counts once in the next lower one. So the same
table can continue to learn from the test text (`adaptive`), as compressors do, or not (`static`),
like a model. The discounts are those of the training text in both cases. A byte of 0 precedes the
first text and separates texts.

`ngram_kernels` does the same by sorting; this one serves where numba is missing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from folio.jit import available
from folio.ngrams.discounts import Discounts, discounts_of
from folio.tokens.text import ALPHABET, Bytes

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
FIRST_ORDER = 6
PLAIN_BELOW = 20_000
"""In bytes, training included; for fewer, loading the kernels is not worth it."""
CHOOSING = 10_000_000
"""The order is chosen on so many bytes at the end of the training text."""


class PlainNGrams:
    """An n-gram model made of dictionaries."""

    def __init__(self, order: int) -> None:
        """Begin with an empty table of n-grams up to `order`."""
        self.order = order
        self.history: tuple[int, ...] = (0,) * (order - 1)
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(order)
        ]
        """For each order, by context: how often each byte follows."""
        self.of_counts = [[0] * 5 for _ in range(order)]
        """For each order: how many n-grams have the count 1, 2, 3, 4."""

    def learn(self, text: Bytes) -> None:
        """Learn from (n,) bytes that follow those read before."""
        for byte in text.tolist():
            self._count(byte)
            self._move(byte)

    def nll(self, text: Bytes, adaptive: bool) -> NDArray[np.float64]:
        """(n,) nats of each byte.

        With `adaptive` the table learns from each byte after predicting it; without, it is
        unchanged.
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
            if before:  # not new in this context, nor in any shorter one
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


def ngram_nll(
    training: Bytes, text: Bytes, order: int, plain: bool | None = None
) -> dict[str, NDArray[np.floating]]:
    """(n,) nats of each byte of a text, `static` and `adaptive`.

    Args:
        training: (m,) text to learn from; a byte of 0 separates the two.
        text: (n,) text to predict.
        order: n of the n-grams.
        plain: whether to use the readable table; None uses it without numba, or for short input.
    """
    return _predictor(training, text, plain)(order)


def choose_order(training: Bytes, plain: bool | None = None) -> int:
    """Choose the order that best predicts the last tenth of a text from the rest of it.

    Args:
        training: (n,) bytes; the last CHOOSING of them count.
        plain: as in `ngram_nll`.
    """
    text = training[-CHOOSING:]
    cut = len(text) - len(text) // 10
    nll = _predictor(text[:cut], text[cut:], plain)
    loss = cache(lambda place: float(nll(ORDERS[place])["static"].sum()))
    place = ORDERS.index(FIRST_ORDER)
    step = -1 if loss(place - 1) < loss(place) else 1
    while 0 <= place + step < len(ORDERS) and loss(place + step) < loss(place):
        place += step
    return ORDERS[place]


def _predictor(
    training: Bytes, text: Bytes, plain: bool | None
) -> Callable[[int], dict[str, NDArray[np.floating]]]:
    """Return a function from an order to the nats of each byte."""
    if plain is None:
        plain = len(training) + len(text) < PLAIN_BELOW or not available()
    if not plain:
        from folio.evaluation.ngram_kernels import CompiledNGrams

        return CompiledNGrams(training, text).nll

    def nll(order: int) -> dict[str, NDArray[np.floating]]:
        table = PlainNGrams(order)
        table.learn(training)
        table.learn(np.zeros(1, np.uint8))
        return {
            "static": table.nll(text, adaptive=False),
            "adaptive": table.nll(text, adaptive=True),
        }

    return nll
