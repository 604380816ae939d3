"""Kneser-Ney n-grams, against the definition written out over the whole text."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from folio.evaluation.ngrams import (
    ALPHABET,
    choose_order,
    discounts_of,
    make_ngrams,
    ngram_surprise,
)
from folio.tokens.text import BREAK, Symbols, from_text

TEXT = "the cat sat on the mat and the rat sat on the cat that ate the hat " * 3
BOTH = pytest.mark.parametrize("plain", [True, False], ids=["plain", "compiled"])


def by_definition(text: list[int], order: int) -> dict[int, dict[tuple, Counter]]:
    """Of each order the counts: of the highest how often, of others after how many symbols."""
    counts: dict[int, dict[tuple, Counter]] = {}
    for n in range(1, order + 1):
        table: dict[tuple, Counter] = defaultdict(Counter)
        seen = set()
        for i in range(n - 1, len(text)):
            gram = tuple(text[i - n + 1 : i + 1])
            if n == order or i == n - 1:
                table[gram[:-1]][gram[-1]] += 1
            else:
                longer = tuple(text[i - n : i + 1])
                if longer not in seen:
                    seen.add(longer)
                    table[gram[:-1]][gram[-1]] += 1
        counts[n] = table
    return counts


def probability(counts: dict, order: int, history: list[int], symbol: int) -> float:
    p = 1 / ALPHABET
    for n in range(1, order + 1):
        context = tuple(history[len(history) - n + 1 :]) if n > 1 else ()
        following = counts[n].get(context)
        if len(context) < n - 1 or not following:
            break
        all_counts = [c for of in counts[n].values() for c in of.values()]
        first, second, third = discounts_of(*(all_counts.count(c) for c in (1, 2, 3, 4)))
        off = {c: (first, second, third)[min(c, 3) - 1] for c in set(following.values())}
        total = sum(following.values())
        rest = sum(off[c] for c in following.values()) / total
        count = following.get(symbol, 0)
        p = (count - off[count] if count else 0) / total + rest * p
    return p


@BOTH
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_static_chances_are_those_of_the_definition(order: int, plain: bool):
    training, text = from_text(TEXT), from_text("that mat ate the zebra")
    table = make_ngrams(order, plain)
    table.learn(training)
    nats = table.surprise(text, adaptive=False)
    counts = by_definition(training.tolist(), order)
    history = training.tolist()
    for symbol, found in zip(text.tolist(), nats.tolist()):
        assert found == pytest.approx(-math.log(probability(counts, order, history, symbol)))
        history.append(symbol)


@BOTH
def test_adaptive_chances_are_those_of_a_table_that_read_all_before(plain: bool):
    training, text = from_text(TEXT), from_text("a zebra, a zebra, a zebra")
    table = make_ngrams(4, plain)
    table.learn(training)
    found = table.surprise(text, adaptive=True)
    for i in range(len(text)):
        before = np.concatenate([training, text[:i]]).tolist()
        p = probability(by_definition(before, 4), 4, before, int(text[i]))
        assert found[i] == pytest.approx(-math.log(p))
    assert found[-8:].sum() < found[:8].sum() / 2, "it learns from what it reads"


@BOTH
def test_chances_of_all_symbols_sum_to_one(plain: bool):
    def chance(symbol: int) -> float:
        table = make_ngrams(4, plain)
        table.learn(from_text(TEXT))
        return math.exp(-table.surprise(np.array([symbol], np.int16), adaptive=False)[0])

    assert sum(map(chance, range(ALPHABET))) == pytest.approx(1.0)


def test_both_ways_agree_on_any_text_in_any_pieces():
    random.seed(2)
    symbols = np.array([random.choice([97, 98, 99, BREAK]) for _ in range(3000)], np.int16)
    training, text = symbols[:2500], symbols[2500:]
    pieces = np.array_split(training, 7)
    plain = ngram_surprise(pieces, text, 6, plain=True)
    compiled = ngram_surprise([training], text, 6, plain=False)
    for kind in ("static", "adaptive"):
        np.testing.assert_allclose(plain[kind], compiled[kind], rtol=1e-12)


def test_the_order_that_is_chosen_predicts_best_of_its_neighbours():
    def of_words(n: int) -> Symbols:
        chosen = random.Random(n)
        words = ["one", "two", "three", "four", "five", "six", "seven"]
        return from_text(" ".join(chosen.choice(words) for _ in range(n)))

    text = of_words(2000)
    order = choose_order(text)
    cut = len(text) - len(text) // 10

    def loss(n: int) -> float:
        table = make_ngrams(n, plain=False)
        table.learn(text[:cut])
        return float(table.surprise(text[cut:], adaptive=False).sum())

    assert 2 <= order <= 12
    assert loss(order) <= min(loss(2), loss(6), loss(12)) + 1e-9


def test_tables_that_grow_keep_what_they_have():
    random.seed(1)
    symbols = np.array([random.randrange(256) for _ in range(60_000)], np.int16)
    table = make_ngrams(3, plain=False)
    table.learn(symbols)
    nats = table.surprise(symbols[:100], adaptive=False)
    reference = make_ngrams(3, plain=True)
    reference.learn(symbols)
    np.testing.assert_allclose(nats, reference.surprise(symbols[:100], adaptive=False))
