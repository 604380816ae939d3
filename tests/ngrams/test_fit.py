"""The weights are the best ones, and the loss that is told was not fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from folio.ngrams.fit import RULES, Read, best_rule, best_weights, fit, join, likelihoods, read_both
from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import LONGEST, WindowRule, count_targets, mix_in_targets
from folio.testing import tiny_gpt


def drawn(a: float, b: float, n: int = 40_000) -> Read:
    """Targets that follow the product of two random predictors with these exponents."""
    generator = torch.Generator().manual_seed(1)
    model, ngrams = (torch.randn(n, 7, generator=generator).log_softmax(1) for _ in range(2))
    chances = Weights(a, b).product(model, ngrams).softmax(1)
    targets = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return Read(model, ngrams, targets, nothing_stood_before(n))


def nothing_stood_before(n: int) -> NDArray[np.int32]:
    return np.zeros((n, LONGEST, 3), np.int32)


def loss(read: Read, weights: Weights) -> float:
    return float(F.cross_entropy(weights.product(read.model, read.ngrams), read.targets))


def test_the_exponents_that_made_a_text_are_found():
    weights = best_weights(*drawn(0.7, 0.4)[:3])
    assert abs(weights.model - 0.7) < 0.03 and abs(weights.ngrams - 0.4) < 0.03


def test_no_other_weights_are_better():
    read = drawn(0.6, 0.3, n=2000)
    best = best_weights(*read[:3])
    for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, -0.01)):
        assert loss(read, best) < loss(read, Weights(best.model + a, best.ngrams + b))


def in_windows(read: Read, n: int) -> list[Read]:
    """The same in windows of n targets."""
    return [read.of(slice(i, i + n)) for i in range(0, len(read.targets), n)]


@pytest.mark.parametrize("at_once", [3, 7 * 999, 7 * 2000])
def test_pieces_of_a_text_say_what_all_of_it_says(at_once: int, monkeypatch: pytest.MonkeyPatch):
    read = drawn(0.6, 0.3, n=2000)
    whole = best_weights(*read[:3])
    monkeypatch.setattr("folio.ngrams.fit.AT_ONCE", at_once)
    assert np.allclose(best_weights(*read[:3]), whole, atol=1e-6)
    expected = -F.cross_entropy(whole.product(*read[:2]), read.targets, reduction="none")
    assert np.allclose(likelihoods(read, whole), expected.exp(), atol=1e-6)
    assert abs(fit(in_windows(read, 300)).alone - loss(read, Weights(1, 0))) < 1e-5


def test_ngrams_that_know_nothing_get_no_say():
    read = drawn(1.0, 0.0)
    even = read._replace(ngrams=torch.full_like(read.ngrams, -np.log(7)))
    assert abs(best_weights(*even[:3]).model - 1) < 0.03
    assert abs(fit(in_windows(even, 100)).loss - loss(read, Weights(1, 0))) < 1e-3


def test_each_half_is_told_by_the_weights_of_the_other():
    one, other = drawn(1.0, 0.0, n=3000), drawn(0.0, 1.0, n=3000)
    both = join([one, other])
    expected = (loss(one, best_weights(*other[:3])) + loss(other, best_weights(*one[:3]))) / 2
    found = fit(in_windows(both, 100))
    assert abs(found.loss - expected) < 1e-4
    assert np.allclose(found.weights, best_weights(*both[:3]), atol=1e-4)
    assert found.loss > loss(both, found.weights) + 0.1


def repeating(n: int, share: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Probabilities of targets, and counts of a window in which one token stood after the last
    three, and nothing after the last four; it is the target as often as a share.
    """
    generator = np.random.default_rng(1)
    counts = nothing_stood_before(n)
    counts[:, :2, :2] = generator.integers(1, 5, (n, 2, 1))  # as many as there are different ones
    counts[:, 2, :2] = 1
    counts[:, 2, 2] = generator.random(n) < share
    return np.full(n, 0.01), counts


def test_the_rule_that_made_a_window_is_found():
    expected, counts = repeating(20_000, share=1.12 / 13)
    rule = best_rule(expected, counts)
    assert rule == WindowRule(12.0, 3)
    best = np.log(mix_in_targets(expected, counts, rule)).sum()
    for other in RULES:
        assert np.log(mix_in_targets(expected, counts, other)).sum() <= best


def test_each_half_is_told_by_the_rule_of_the_other():
    read = drawn(0.7, 0.4, n=20_000)
    for half, share in ((slice(10_000), 1 / 3), (slice(10_000, None), 1 / 33)):
        read.counts[half] = repeating(10_000, share)[1]
    one, other = in_windows(read, 10_000)
    found, total = fit([one, other]), 0.0
    for half, by in ((one, other), (other, one)):
        weights = best_weights(*by[:3])
        rule = best_rule(likelihoods(by, weights), by.counts)
        total -= np.log(mix_in_targets(likelihoods(half, weights), half.counts, rule)).sum()
    assert abs(found.loss_in_windows - total / 20_000) < 1e-6
    assert found.rule == best_rule(likelihoods(read, found.weights), read.counts)


def test_windows_are_read_by_both():
    tokens = np.random.default_rng(1).integers(0, 11, 40)
    model, ngrams = tiny_gpt(), count_ngrams(tokens, 3, 11)
    counted = np.arange(39) % 2 == 0
    both = join(read_both(model, ngrams, tokens, [(0, 8), (16, 5)], counted))
    assert both.targets.tolist() == [*tokens[1:9:2], *tokens[17:22:2]]
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens[None, 16:21]))[0]
    torch.testing.assert_close(both.model[4:], logits[::2])
    expected = ngrams.probabilities(tokens[None, 16:21])[0, ::2]
    np.testing.assert_allclose(both.ngrams[4:].exp().numpy(), expected, atol=1e-6)
    counts = count_targets(tokens[16:21], tokens[17:22])[::2]
    np.testing.assert_array_equal(both.counts[4:], counts)
