"""Copies of a model, n-grams and counts, mixed bit by bit: never with what is about to come."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("numba")

from folio.evaluation import context_mixing, learning_ngrams
from folio.evaluation.context_mixing import read_with_counts, words_before
from folio.evaluation.learning_ngrams import LearningNGrams
from folio.evaluation.token_bits import log_odds, n_bits
from tests.evaluation.bits import nats_of

pytestmark = pytest.mark.xdist_group("mixing")
RANDOM = np.random.default_rng(0)
PIECES = ["a", "B", "b", "c", ".", " ", "é", " ab", "1", "", "\n"]
V = len(PIECES)
VERSE = RANDOM.integers(0, V, 25)
TRAINING = np.concatenate([RANDOM.integers(0, V, 100), VERSE, VERSE]).astype(np.uint8)
TEXT = np.concatenate([VERSE, VERSE, RANDOM.integers(0, V, 30), VERSE, VERSE]).astype(np.uint8)


def copies_of(text: NDArray[np.uint8], knows: float) -> NDArray[np.float32]:
    """Two copies: one guesses, the other is surer of the second half of the ids; each is right a
    little more often than not.
    """
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 400, V)))
    odds = np.full((2, len(text), n_bits(V)), np.nan, np.float32)
    targets = torch.from_numpy(text.astype(np.int64))[1:]
    for k, logits in enumerate(noise[:, : len(targets)]):
        logits = logits.scatter_add(
            1, targets[:, None], torch.full((len(targets), 1), knows).double()
        )
        odds[k, 1:] = log_odds(logits + k * torch.arange(V) / V, targets).numpy()
    return odds


def test_no_token_is_predicted_with_what_comes_behind_it():
    other = TEXT.copy()
    other[70:] = (other[70:] + 1) % V
    found, changed = (
        read_with_counts(TRAINING, text, copies_of(text, 1.0), PIECES, V) for text in (TEXT, other)
    )
    np.testing.assert_array_equal(found[:70], changed[:70])
    assert np.isnan(found[0]) and (found[70:] != changed[70:]).all()


def test_the_probabilities_of_all_that_could_come_add_up_to_one():
    total = 0.0
    for token in range(V):
        text = np.append(TEXT[:60], np.uint8(token))
        nats = read_with_counts(TRAINING, text, copies_of(text, 0.0), PIECES, V)
        total += math.exp(-nats[-1])
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_copy_that_is_always_wrong_is_believed_the_other_way_round():
    text = np.random.default_rng(2).integers(0, 2, 3000)
    odds = (2 - 4 * text)[None, :, None].astype(np.float32)
    nats = read_with_counts(text[:1], text, odds, ["a", "b"], 2)
    assert nats[1:100].mean() > math.log(2) > 2 * nats[2000:].mean()


def test_the_mixture_is_better_than_each_of_its_inputs():
    odds = copies_of(TEXT, 1.5)
    mixed = read_with_counts(TRAINING, TEXT, odds, PIECES, V)[1:].mean()
    table = LearningNGrams(V, 1000)
    table.learn(np.append(TRAINING, TEXT[0]))
    for said in (*odds[:, 1:], table.predict(TEXT[1:])):
        assert mixed < nats_of(said, TEXT[1:], V).mean() - 0.1


def test_copies_that_know_more_count_for_more():
    some, much = (
        read_with_counts(TRAINING, TEXT, copies_of(TEXT, knows), PIECES, V)[1:].mean()
        for knows in (0.5, 4.0)
    )
    assert much < 0.6 * some


def test_a_copy_that_leaves_gives_its_weight_to_those_that_stay():
    mixer = context_mixing.ContextMixing(V, 100, 3)
    mixer.let_in_experts()
    before = mixer.weights.copy()
    mixer.go_on_with(np.array([True, False, True]))
    np.testing.assert_allclose(mixer.weights.sum(axis=1), before.sum(axis=1))
    assert (mixer.weights[:, -2] == 0).all()
    assert (mixer.weights[:, -1] == mixer.weights[:, -3]).all()
    odds = copies_of(TEXT, 1.0)
    left = odds.copy()
    left[1, 60:] = np.nan
    whole, part = (read_with_counts(TRAINING, TEXT, o, PIECES, V) for o in (odds, left))
    np.testing.assert_array_equal(whole[:60], part[:60])
    assert np.isfinite(part[1:]).all() and (whole[60:] != part[60:]).all()


def test_a_context_keeps_how_often_each_bit_came_of_late():
    tokens = np.array([0, 0, 0, 0, 1])
    mixer = context_mixing.ContextMixing(2, len(tokens), 1)
    mixer.read(tokens, words_before(tokens, ["a", "b"]), 0, len(tokens))
    (slot,) = np.flatnonzero(mixer.histories[0, :, 2])  # of no token before
    assert mixer.histories[0, slot, :3].tolist() == [4 // 2 + 1, 1, 5]
    p = 0.5
    for n, bit in enumerate(tokens.tolist()):
        p += (bit - p) / (n + 1.5)
    assert mixer.frequencies[0, slot] + 0.5 == pytest.approx(p)
    assert mixer.guesses[0, 1, 0].tolist() == pytest.approx([0.4 / 1.8 * (1 - 1 / 2.5), 1])
    assert mixer.guesses[0, 4, 0].tolist() == pytest.approx([0.4 / 4.8 * 1.5 / 2.5 + 1 / 2.5, 1])


def test_kernels_do_what_they_say_in_python(monkeypatch: pytest.MonkeyPatch):
    text, training = TEXT[:20], TRAINING[-30:]
    odds = copies_of(text, 1.0)
    expected = read_with_counts(training, text, odds, PIECES, V)
    for module in (context_mixing, learning_ngrams):
        for name, value in list(vars(module).items()):
            if plain := getattr(value, "py_func", None):
                monkeypatch.setattr(module, name, plain)
    with np.errstate(over="ignore", divide="ignore"):  # hashes wrap around
        found = read_with_counts(training, text, odds, PIECES, V)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("vocab_size", [1, 2, 3])
def test_small_vocabularies(vocab_size: int):
    text = np.arange(40) % vocab_size
    odds = np.zeros((1, 40, n_bits(vocab_size)), np.float32)
    nats = read_with_counts(text, text, odds, ["a", "b", "c"][:vocab_size], vocab_size)[1:]
    assert (nats == 0).all() if vocab_size == 1 else 0 < nats.mean() < math.log(vocab_size) / 2


def test_a_text_of_one_token_has_nothing_to_predict():
    nothing = np.full((1, 1, n_bits(V)), np.nan, np.float32)
    assert np.isnan(read_with_counts(TRAINING, TEXT[:1], nothing, PIECES, V)).tolist() == [True]


def test_words_are_letters_in_a_row_whatever_their_case():
    def read(*pieces: str) -> tuple[list[int], list[int]]:
        ids = np.array([PIECES.index(piece) for piece in pieces])
        word, before = words_before(ids, PIECES).T.tolist()
        return word, before

    word, before = read("a", "b", " ab", "é", "1", "a", "B", "\n", "a")
    assert word[0] == word[5] == word[8] == 0 and before[:3] == [0, 0, 0]
    assert word[1] == word[6] and word[2] == word[7]  # of "a", and of "ab" and "aB"
    assert word[3] == read(" ab", "a")[0][1] != 0  # a space begins a word
    assert word[4] == read(" ab", "é", "a")[0][2] != word[3]
    assert before[3] == before[4] == word[2]
    assert before[5] == before[6] == before[7] == word[4]
    assert before[8] == word[7]
