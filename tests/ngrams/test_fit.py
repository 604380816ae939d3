"""The weights are the best ones, and the loss that is told was not fitted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from folio.ngrams.fit import Read, Window, best_weights, fit, join, read_both
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


def in_windows(read: Read, n: int) -> list[Window]:
    """The same in windows of n tokens that are all different, so that nothing stands twice."""
    return [
        Window(
            np.arange(n),
            read.model[i : i + n],
            read.ngrams[i : i + n].exp().numpy(),
            read.targets[i : i + n],
            np.ones(n, np.bool_),
            order=3,
        )
        for i in range(0, len(read.targets), n)
    ]


def test_ngrams_that_know_nothing_get_no_say():
    read = drawn(1.0, 0.0)
    even = read._replace(ngrams=torch.full_like(read.ngrams, -np.log(7)))
    assert abs(best_weights(*even).model - 1) < 0.03
    assert abs(fit(in_windows(even, 100)).loss - loss(read, Weights(1, 0))) < 1e-3


def test_each_half_is_told_by_the_weights_of_the_other():
    one, other = drawn(1.0, 0.0, n=3000), drawn(0.0, 1.0, n=3000)
    both = Read(*(torch.cat(parts) for parts in zip(one, other)))
    expected = (loss(one, best_weights(*other)) + loss(other, best_weights(*one))) / 2
    found = fit(in_windows(both, 100))
    assert abs(found.loss - expected) < 1e-4
    assert np.allclose(found.weights[:2], best_weights(*both)[:2], atol=1e-4)
    assert found.loss > loss(both, found.weights) + 0.1


class Repeating(NamedTuple):
    """A window in which one k is the best."""

    read: Read
    k: float

    @property
    def model(self) -> Tensor:
        return self.read.model

    @property
    def targets(self) -> Tensor:
        return self.read.targets

    def expected(self, k: float) -> NDArray[np.float32]:
        noise = torch.randn(self.read.ngrams.shape, generator=torch.Generator().manual_seed(2))
        return (
            (self.read.ngrams + 0.3 * abs(np.log2(max(k, 0.1) / self.k)) * noise).softmax(1).numpy()
        )


def test_the_k_with_the_smallest_loss_is_chosen_for_each_half_by_the_other():
    read = drawn(0.7, 0.4, n=20_000)
    halves = Read(*(x[:10_000] for x in read)), Read(*(x[10_000:] for x in read))
    windows: Any = [Repeating(half, k) for half, k in zip(halves, (4.0, 20.0))]
    total = 0.0
    for window, other in (windows, windows[::-1]):
        of_other = best_weights(*join([other], other.k))._replace(window=other.k)
        total += loss(join([window], other.k), of_other) / 2
    assert abs(fit(windows).loss - total) < 1e-4
    assert fit(windows, (3.0,)).weights.window == 3.0


def test_windows_are_read_by_both():
    tokens = np.random.default_rng(1).integers(0, 11, 40)
    model, ngrams = tiny_gpt(), count_ngrams(tokens, 3, 11)
    counted = np.arange(39) % 2 == 0
    read = read_both(model, ngrams, tokens, [(0, 8), (16, 5)], counted)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens[None, 16:21]))[0]
    for k in (0.0, 2.0, 0.0):
        both = join(read, k)
        assert both.targets.tolist() == [*tokens[1:9:2], *tokens[17:22:2]]
        torch.testing.assert_close(both.model[4:], logits[::2])
        expected = expected_in_window(ngrams, tokens[None, 16:21], k, 5)[0, ::2]
        np.testing.assert_allclose(both.ngrams[4:].exp().numpy(), expected, atol=1e-6)
