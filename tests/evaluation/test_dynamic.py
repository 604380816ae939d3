"""A model that learns as it reads: never from what it is about to predict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folio.evaluation import dynamic
from folio.evaluation.dynamic import HALVED_AT, RATES, Adaptation, mix
from folio.evaluation.score import score, strided_windows
from folio.evaluation.token_bits import n_bits
from folio.testing import tiny_gpt
from tests.evaluation.bits import nats_of

RANDOM = np.random.default_rng(0)
TRAINING = RANDOM.integers(0, 11, 300).astype(np.uint8)
TEXT = np.tile(np.array([1, 5, 2, 9, 9, 3], np.uint8), 20)
LONG = np.tile(TEXT, 2)


@pytest.fixture
def adaptation() -> Adaptation:
    return Adaptation(tiny_gpt(), TRAINING, 8)


def test_without_steps_it_is_the_strided_loss(adaptation: Adaptation):
    expected = list[np.ndarray]()
    score(adaptation.model, TEXT, strided_windows(len(TEXT), 8), "strided", expected)
    reading = adaptation.read(TEXT, ())
    assert math.isnan(reading.nats[0])
    np.testing.assert_allclose(reading.nats[1:], np.concatenate(expected), rtol=1e-5)


def test_the_odds_of_each_copy_are_those_of_its_tokens(adaptation: Adaptation):
    reading = adaptation.read(LONG)
    there = ~np.isnan(reading.of_each)
    assert (~np.isnan(reading.odds) == there[:, :, None]).all()
    assert reading.odds.shape == (len(RATES) + 1, len(LONG), n_bits(11))
    for odds, nats, here in zip(reading.odds, reading.of_each, there):
        np.testing.assert_allclose(nats_of(odds[here], LONG[here], 11), nats[here], atol=1e-5)


def test_it_tells_how_far_it_is_and_which_rates_go_on(adaptation: Adaptation):
    told = list[str]()
    adaptation.read(LONG, tell=told.append)
    assert sum("going on at rates" in line for line in told) == 2 and len(told) == 8
    read = [int(line.split(" of 240 tokens")[0]) for line in told]
    assert read == sorted(set(read)) and read[-1] < len(LONG)


def test_it_learns_what_repeats(adaptation: Adaptation):
    still, moved = adaptation.read(TEXT, (3e-3,)).of_each
    assert np.nanmean(moved[60:]) < np.nanmean(still[60:]) - 0.2


def test_no_token_is_predicted_with_what_comes_behind_it(adaptation: Adaptation):
    other = TEXT.copy()
    other[70:] = 4
    found, changed = (adaptation.read(text, (1e-3, 3e-3)).nats for text in (TEXT, other))
    np.testing.assert_array_equal(found[:70], changed[:70])
    assert (found[70:] != changed[70:]).all()


def test_the_model_itself_stays_as_it_was():
    model = tiny_gpt()
    before = [parameter.clone() for parameter in model.parameters()]
    adaptation = Adaptation(model, TRAINING, 8)
    first = adaptation.read(TEXT, (3e-3,)).nats
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    np.testing.assert_array_equal(first, adaptation.read(TEXT, (3e-3,)).nats)


def test_the_worse_half_leaves_and_the_model_as_it_was_trained_stays(adaptation: Adaptation):
    of_each = adaptation.read(LONG).of_each
    windows = strided_windows(len(LONG), 8)
    first, then = (windows[math.ceil(len(windows) * share) - 1] for share in HALVED_AT)
    ends = [window.start + window.length + 1 for window in (first, then)]
    there = ~np.isnan(of_each[:, 1:])
    assert there[0].all() and there[1:, : ends[0] - 1].all()
    assert there[1:, ends[0] - 1 : ends[1] - 1].all(axis=1).sum() == len(RATES) / 2
    assert there[1:, ends[1] - 1 :].all(axis=1).sum() == len(RATES) / 4
    sums = of_each[1:, 1 : ends[0]].sum(axis=1)
    stayed = there[1:, ends[0] - 1]
    assert sums[stayed].max() <= sums[~stayed].min()


def test_a_rate_is_learned_while_reading(adaptation: Adaptation):
    reading = adaptation.read(LONG)
    still = np.nanmean(reading.of_each[0])
    best = min(np.mean(each[1:]) for each in reading.of_each if not np.isnan(each[1:]).any())
    assert np.nanmean(reading.nats) < best + 0.1 < still - 0.2


def test_windows_are_half_a_context_unless_that_is_short(monkeypatch: pytest.MonkeyPatch):
    model, lengths = tiny_gpt(), list[int]()
    adaptation = Adaptation(model, TRAINING, 8)
    adaptation.model.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    for shortest, expected in ((128, 8), (5, 5), (2, 4)):
        lengths.clear()
        monkeypatch.setattr(dynamic, "SHORTEST", shortest)
        adaptation.read(TEXT, ())
        assert max(lengths) == lengths[0] == expected


def test_steps_that_ruin_a_copy_do_not_ruin_the_mixture(adaptation: Adaptation):
    reading = adaptation.read(TEXT, (1e30,))
    assert np.isinf(reading.of_each[1]).any() and not np.isnan(reading.odds[:, 1:]).any()
    assert np.nanmean(reading.nats) < np.nanmean(reading.of_each[0]) + 0.02


def test_processes_share_the_copies_to_the_same_bits(adaptation: Adaptation):
    one, two = (adaptation.read(LONG, world_size=n) for n in (1, 2))
    np.testing.assert_array_equal(one.of_each, two.of_each)
    np.testing.assert_array_equal(one.nats, two.nats)


def test_small_steps_are_taken_on_one_thread_and_the_others_given_back():
    model, threads = tiny_gpt(), []
    model.register_forward_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Adaptation(model, TRAINING, 8).read(TEXT, (3e-3,))
        assert set(threads) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_who_has_left_a_mixture_leaves_its_share_to_the_others():
    one, other, third = np.random.default_rng(1).uniform(0.1, 2.0, (3, 40))
    left = np.where(np.arange(40) < 15, third, np.nan)
    nats = mix([one, other, left])
    shares = np.ones(3) / 3
    for i, row in enumerate(np.exp(-np.stack([one, other, third], axis=1))):
        if i == 15:
            shares = shares[:2] / shares[:2].sum()
        joint = shares * row[: len(shares)]
        assert nats[i] == pytest.approx(-math.log(joint.sum()))
        shares = 0.98 * joint / joint.sum() + 0.02 / len(joint)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1, max_size=50))
def test_a_mixture_is_never_worse_than_its_best_part_by_more_than_its_shares_cost(
    pairs: list[tuple[float, float]],
):
    one, other = np.array(pairs).T
    nats = mix([one, other])
    price = math.log(2) + len(pairs) * -math.log(1 - 0.02)
    assert nats.sum() <= min(one.sum(), other.sum()) + price + 1e-9
