"""N-grams that learn while they read, against those made of dictionaries."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("numba")

from folio.evaluation.learning_ngrams import LearningNGrams
from folio.evaluation.ngrams import PlainNGrams
from folio.tokens.text import ALPHABET
from tests.evaluation.bits import nats_of

pytestmark = pytest.mark.xdist_group("mixing")
LETTERS = np.array([97, 98, 100, 200], np.uint8)
TEXT = np.random.default_rng(0).choice(LETTERS, 900, p=[0.5, 0.3, 0.1, 0.1])


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("cut", [0, 1, 600])
def test_they_say_what_dictionaries_say(order: int, cut: int):
    plain = PlainNGrams(order)
    plain.learn(TEXT[:cut])
    expected = plain.nll(TEXT[cut:], adaptive=True)
    table = LearningNGrams(ALPHABET, len(TEXT), order)
    table.learn(TEXT[:cut])
    odds = table.predict(TEXT[cut:])
    np.testing.assert_allclose(nats_of(odds, TEXT[cut:], ALPHABET), expected, atol=1e-6)


def test_nothing_known_is_every_id_alike():
    for vocab_size in (1, 2, 11):
        token_ids = np.array([vocab_size - 1])
        odds = LearningNGrams(vocab_size, 1).predict(token_ids)
        assert nats_of(odds, token_ids, vocab_size)[0] == pytest.approx(math.log(vocab_size))


def test_a_text_read_in_parts_is_the_same_text():
    whole, parts = (LearningNGrams(ALPHABET, len(TEXT)) for _ in range(2))
    whole.learn(TEXT)
    parts.learn(TEXT[:300])
    parts.learn(TEXT[300:])
    for one, other in ((whole.nodes, parts.nodes), (whole.contexts, parts.contexts)):
        np.testing.assert_array_equal(one, other)
