"""The weights are the best ones, and the loss that is told was not fitted."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from folio.ngrams.fit import Read, ReadAt, best_weights, fit, read_both
from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import expected_in_window
from folio.testing import tiny_gpt


def drawn(a: float, b: float, n: int = 40_000) -> Read:
    """Targets that follow the product of two random predictors with these exponents."""
    generator = torch.Generator().manual_seed(1)
    model, ngrams = (torch.randn(n, 7, generator=generator).log_softmax(1) for _ in range(2))
    chances = Weights(a, b).product(model, ngrams).softmax(1)
    return Read(model, ngrams, torch.multinomial(chances, 1, generator=generator)[:, 0])


def loss(read: Read, weights: Weights) -> float:
    return float(F.cross_entropy(weights.product(read.model, read.ngrams), read.targets))


def test_the_exponents_that_made_a_text_are_found():
    weights = best_weights(*drawn(0.7, 0.4))
    assert abs(weights.model - 0.7) < 0.03 and abs(weights.ngrams - 0.4) < 0.03


def test_no_other_weights_are_better():
    read = drawn(0.6, 0.3, n=2000)
    best = best_weights(*read)
    for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, -0.01)):
        assert loss(read, best) < loss(read, Weights(best.model + a, best.ngrams + b))


def at(read: Read) -> ReadAt:
    """The same whatever stands in a window."""
    return lambda k: read


def test_ngrams_that_know_nothing_get_no_say():
    read = drawn(1.0, 0.0)
    even = read._replace(ngrams=torch.full_like(read.ngrams, -np.log(7)))
    assert abs(best_weights(*even).model - 1) < 0.03
    assert abs(fit(at(even)).loss - loss(read, Weights(1, 0))) < 1e-3


def test_each_half_is_told_by_the_weights_of_the_other():
    one, other = drawn(1.0, 0.0, n=3000), drawn(0.0, 1.0, n=3000)
    both = Read(*(torch.cat(parts) for parts in zip(one, other)))
    expected = (loss(one, best_weights(*other)) + loss(other, best_weights(*one))) / 2
    found = fit(at(both))
    assert abs(found.loss - expected) < 1e-5
    assert found.weights[:2] == best_weights(*both)[:2]
    assert found.loss > loss(both, found.weights) + 0.1


def test_the_k_with_the_smallest_loss_is_chosen_for_each_half_by_the_other():
    read = drawn(0.7, 0.4)
    generator = torch.Generator().manual_seed(2)

    def read_at(k: float) -> Read:
        """The best for the first half is 4, for the second 20."""
        n = len(read.targets)
        off = torch.where(torch.arange(n) < n // 2, abs(k - 4), abs(k - 20))[:, None]
        noise = torch.randn(read.ngrams.shape, generator=generator.manual_seed(2))
        return read._replace(ngrams=(read.ngrams + 0.05 * off * noise).log_softmax(1))

    found = fit(read_at)
    half = np.arange(len(read.targets)) < len(read.targets) // 2
    total = 0.0
    for part, k in ((half, 20.0), (~half, 4.0)):  # each by the other's
        weights = best_weights(*read_at(k).of(~part))
        total += loss(read_at(k).of(part), weights) / 2
    assert abs(found.loss - total) < 1e-4
    assert fit(read_at, (4.0,)).weights.window == 4.0


def test_windows_are_read_by_both():
    tokens = np.random.default_rng(1).integers(0, 11, 40)
    model, ngrams = tiny_gpt(), count_ngrams(tokens, 3, 11)
    read_at = read_both(model, ngrams, tokens, [(0, 8), (16, 5)])
    assert read_at(0.0).targets.tolist() == [*tokens[1:9], *tokens[17:22]]
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens[None, 16:21]))[0]
    torch.testing.assert_close(read_at(2.0).model[8:], logits)
    for k in (0.0, 2.0, 0.0):
        expected = expected_in_window(ngrams, tokens[None, 16:21], k, 5)[0]
        np.testing.assert_allclose(read_at(k).ngrams[8:].exp().numpy(), expected, atol=1e-6)
    kept = read_at(0.0).of(np.arange(13) % 2 == 0)
    assert kept.targets.tolist() == read_at(0.0).targets[::2].tolist()
