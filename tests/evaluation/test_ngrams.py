"""Kneser-Ney n-grams, against the definition written out over the whole text."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from folio.evaluation import ngram_kernels
from folio.evaluation.ngrams import (
    ALPHABET,
    choose_order,
    discounts_of,
    ngram_nll,
)
from folio.tokens.text import Bytes

TEXT = "the cat sat on the mat and the rat sat on the cat that ate the hat " * 3
BOTH = pytest.mark.parametrize("plain", [True, False], ids=["plain", "compiled"])
CLOSE = 2e-6
"""Nats, since kernels keep probabilities in float32."""


def some(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


Table = dict[tuple[int, ...], Counter[int]]
"""Bytes that came before -> how often each byte followed."""


def by_definition(text: list[int], order: int) -> dict[int, Table]:
    """Of each order the counts: of the highest how often, of others after how many bytes."""
    counts: dict[int, Table] = {}
    text = [0] * (order - 1) + text
    for n in range(1, order + 1):
        table: Table = defaultdict(Counter)
        seen = set()
        for i in range(order - 1, len(text)):
            gram = tuple(text[i - n + 1 : i + 1])
            longer = tuple(text[i - n : i + 1])
            if n == order or longer not in seen:
                seen.add(longer)
                table[gram[:-1]][gram[-1]] += 1
        counts[n] = table
    return counts


def probability(
    counts: dict[int, Table],
    order: int,
    history: list[int],
    byte: int,
    discounting: dict[int, Table] | None = None,
) -> float:
    p = 1 / ALPHABET
    history = [0] * order + history
    for n in range(1, order + 1):
        context = tuple(history[len(history) - n + 1 :]) if n > 1 else ()
        following = counts[n].get(context)
        if not following:
            break
        all_counts = [c for of in (discounting or counts)[n].values() for c in of.values()]
        first, second, third = discounts_of(*(all_counts.count(c) for c in (1, 2, 3, 4)))
        off = {c: (first, second, third)[min(c, 3) - 1] for c in set(following.values())}
        total = sum(following.values())
        rest = sum(off[c] for c in following.values()) / total
        count = following.get(byte, 0)
        p = (count - off[count] if count else 0) / total + rest * p
    return p


@BOTH
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_static_chances_are_those_of_the_definition(order: int, plain: bool):
    training, text = some(TEXT), some("that mat ate the zebra")
    nats = ngram_nll(training, text, order, plain)["static"]
    history = [*training.tolist(), 0]
    counts = by_definition(history, order)
    for byte, found in zip(text.tolist(), nats.tolist()):
        expected = -math.log(probability(counts, order, history, byte))
        assert found == pytest.approx(expected, abs=CLOSE)
        history.append(byte)


@BOTH
def test_adaptive_chances_are_those_of_a_table_that_read_all_before(plain: bool):
    training, text = some(TEXT), some("a zebra, a zebra, a zebra")
    found = ngram_nll(training, text, 4, plain)["adaptive"]
    discounting = by_definition([*training.tolist(), 0], 4)
    for i in range(len(text)):
        before = [*training.tolist(), 0, *text[:i].tolist()]
        p = probability(by_definition(before, 4), 4, before, int(text[i]), discounting)
        assert found[i] == pytest.approx(-math.log(p), abs=CLOSE)
    assert found[-8:].sum() < found[:8].sum() / 2, "it learns from what it reads"


@BOTH
def test_chances_of_all_bytes_sum_to_one(plain: bool):
    def chance(byte: int) -> float:
        text = np.array([*b"the c", byte], np.uint8)
        return math.exp(-ngram_nll(some(TEXT), text, 4, plain)["static"][-1])

    assert sum(map(chance, range(ALPHABET))) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("part", [1, 300, 1 << 24], ids=["pairs", "parts", "one part"])
def test_both_ways_agree_on_any_text_in_parts_of_any_size(
    part: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ngram_kernels, "PART", part)
    random.seed(2)
    drawn = np.array([random.choice([97, 98, 255, 0]) for _ in range(1500)], np.uint8)
    training, text = np.concatenate([drawn[:1300], some(TEXT * 5), drawn[700:900]]), drawn[850:]
    for order in (1, 4, 6, 13):
        plain = ngram_nll(training, text, order, plain=True)
        compiled = ngram_nll(training, text, order, plain=False)
        for kind in ("static", "adaptive"):
            np.testing.assert_allclose(plain[kind], compiled[kind], 0, CLOSE)


def test_both_ways_agree_on_short_texts_in_which_few_contexts_recur():
    random.seed(3)
    for _ in range(150):
        letters = random.choice([b"ab", b"abc", bytes(range(97, 123))])
        training, text = (
            np.array(random.choices(letters, k=random.randint(1, 60)), np.uint8) for _ in "ab"
        )
        order = random.randint(1, 12)
        plain, compiled = (ngram_nll(training, text, order, plain=p) for p in (True, False))
        for kind in ("static", "adaptive"):
            np.testing.assert_allclose(plain[kind], compiled[kind], 0, CLOSE)


@BOTH
def test_the_order_that_is_chosen_predicts_best_of_its_neighbours(plain: bool):
    chosen = random.Random(3)
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    text = some(" ".join(chosen.choice(words) for _ in range(600)))
    order = choose_order(text, plain)
    cut = len(text) - len(text) // 10

    def loss(n: int) -> float:
        return float(ngram_nll(text[:cut], text[cut:], n, plain=True)["static"].sum())

    assert 2 <= order <= 12
    assert loss(order) <= min(loss(2), loss(6), loss(12)) + 1e-3
