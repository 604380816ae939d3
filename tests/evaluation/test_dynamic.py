"""A model that learns as it reads: never from what it is about to predict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folio.evaluation.dynamic import Adaptation, mix
from folio.evaluation.score import strided_windows, surprise_of_each
from folio.testing import tiny_gpt

RANDOM = np.random.default_rng(0)
TRAINING = RANDOM.integers(0, 11, 300).astype(np.uint8)
TEXT = np.tile(np.array([1, 5, 2, 9, 9, 3], np.uint8), 20)


@pytest.fixture
def adaptation() -> Adaptation:
    return Adaptation(tiny_gpt(), TRAINING, 8)


def test_without_steps_it_is_the_strided_loss(adaptation: Adaptation):
    expected = surprise_of_each(adaptation.model, TEXT, strided_windows(len(TEXT), 8))
    np.testing.assert_allclose(adaptation.surprise(TEXT, 0.0), expected, rtol=1e-5)


def test_it_learns_what_repeats(adaptation: Adaptation):
    still, moved = (adaptation.surprise(TEXT, rate) for rate in (0.0, 3e-3))
    assert np.nanmean(moved[60:]) < np.nanmean(still[60:]) - 0.2


def test_no_token_is_predicted_with_what_comes_behind_it(adaptation: Adaptation):
    other = TEXT.copy()
    other[70:] = 4
    found, changed = (adaptation.surprise(text, 3e-3) for text in (TEXT, other))
    np.testing.assert_array_equal(found[:70], changed[:70])
    assert (found[70:] != changed[70:]).all()


def test_the_model_itself_stays_as_it_was(adaptation: Adaptation):
    before = [parameter.clone() for parameter in adaptation.model.parameters()]
    first = adaptation.surprise(TEXT, 3e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, adaptation.model.parameters()))
    np.testing.assert_array_equal(first, adaptation.surprise(TEXT, 3e-3))


def test_small_steps_are_taken_on_one_thread_and_the_others_given_back():
    model, threads = tiny_gpt(), []
    model.register_forward_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Adaptation(model, TRAINING, 8).surprise(TEXT, 3e-3)
        assert set(threads) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_rate_is_chosen_on_the_training_text():
    model = tiny_gpt()
    told: list[str] = []
    repeats = np.tile(np.array([1, 5, 2, 9], np.uint8), 100)
    assert Adaptation(model, repeats, 8).choose_rate(repeats, told.append) > 0
    assert len(told) == 5


@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1, max_size=50))
def test_a_mixture_is_never_worse_than_its_best_part_by_more_than_its_shares_cost(
    pairs: list[tuple[float, float]],
):
    one, other = np.array(pairs).T
    nats, shares = mix([one, other])
    price = math.log(2) + len(pairs) * -math.log(1 - 0.02)
    assert nats.sum() <= min(one.sum(), other.sum()) + price + 1e-9
    assert sum(shares) == pytest.approx(1.0)
