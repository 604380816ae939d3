"""The best weights of a model and n-grams, on a held-out text.

The loss of their product is convex in the two exponents, so that Newton's method finds the best.
How much what stands in the window counts is one of a few numbers, WINDOWS.

Shapes:  n targets · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import Followed, count_window, mix_in

ROUNDS = 20
"""Of Newton's method, which takes about four."""
START = (0.65, 0.4)
"""Exponents to begin with, near to what models have."""
WINDOWS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)
"""Numbers k that are tried; a good model and a text that repeats itself have small ones, 0 is none
(docs/experiments.md)."""
USUAL = 6.0
"""The k by which the exponents are found, by which the others are compared."""
MOST_TRIED = 128
"""Windows on which the k are compared, evenly spaced."""


class Read(NamedTuple):
    """What a model and n-grams expected at each of n targets."""

    model: Tensor
    """(n, V) logits."""
    ngrams: Tensor
    """(n, V) log-probabilities."""
    targets: Tensor
    """(n,) the tokens that followed."""


@dataclass(frozen=True)
class Window:
    """A window of T tokens, of which n have a target that counts."""

    token_ids: NDArray[np.int64]
    """(T,) what was read."""
    model: Tensor
    """(n, V) logits."""
    alone: NDArray[np.float32]
    """(T, V) probabilities of the n-grams of the training text alone."""
    targets: Tensor
    """(n,) the tokens that followed."""
    counts: NDArray[np.bool_]
    """(T,) whether each target counts."""
    order: int
    """Most tokens of an n-gram."""

    @cached_property
    def followed(self) -> list[Followed]:
        """What stands in the window, which every k has in common."""
        return count_window(self.token_ids, len(self.token_ids), self.order)

    def expected(self, k: float) -> NDArray[np.float32]:
        """(n, V) probabilities of the n-grams with this k of window.py."""
        found = self.alone
        if k:
            found = found.copy()
            mix_in(found, self.followed, k)
        return found[self.counts]


def join(windows: Sequence[Window], k: float) -> Read:
    """What was read in some windows, with one k; 0 for n-grams of the training text alone."""
    return Read(
        torch.cat([window.model for window in windows]),
        torch.from_numpy(np.concatenate([window.expected(k) for window in windows])).log_(),
        torch.cat([window.targets for window in windows]),
    )


@torch.inference_mode()
def read_both(
    model: nn.Module,
    ngrams: NGrams,
    tokens: NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    counted: NDArray[np.bool_] | None = None,
) -> list[Window]:
    """Read some windows of a text by a model and by n-grams.

    Args:
        model: (B, T) token ids to (B, T, V) logits, in evaluation mode.
        ngrams: of the same vocabulary.
        tokens: (N,) token ids.
        spans: where each window begins, and its number of targets; the inputs are as many.
        counted: (N - 1,) which targets count; None for all.
    """
    device, windows = next(model.parameters()).device, list[Window]()
    for start, length in spans:
        ids, follow = (tokens[i : i + length] for i in (start, start + 1))
        counts = np.ones(length, np.bool_) if counted is None else counted[start : start + length]
        logits = model(torch.from_numpy(ids[None]).to(device))[0].float().cpu()
        alone, kept = ngrams.probabilities(ids[None])[0], torch.from_numpy(counts)
        targets = torch.from_numpy(follow)[kept]
        windows.append(Window(ids, logits[kept], alone, targets, counts, ngrams.order))
    return windows


class Fit(NamedTuple):
    """What was found on a text."""

    weights: Weights
    """Those with the smallest loss on the whole text."""
    loss: float
    """Nats per token, of each half of the text by the weights that are best on the other half."""


def fit(windows: Sequence[Window], tried: Sequence[float] = WINDOWS) -> Fit:
    """Find the exponents and the k with the smallest loss, on a text and on each half of it.

    Args:
        windows: two or more, which have targets.
        tried: numbers k, of which one is chosen.
    """
    halves = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    nats = n = 0.0
    for half, other in (halves, halves[::-1]):
        weights = _best_of(other, tried)
        read = join(half, weights.window)
        nats, n = nats + _loss(read, weights) * len(read.targets), n + len(read.targets)
    return Fit(_best_of(windows, tried), nats / n)


def _best_of(windows: Sequence[Window], tried: Sequence[float]) -> Weights:
    """The exponents and the k; which k is told by the exponents that are best for the usual one."""
    k = tried[0]
    if len(tried) > 1:
        some = windows[:: max(1, len(windows) // MOST_TRIED)]
        usual = best_weights(*join(some, USUAL))
        k = min(tried, key=lambda k: _loss(join(some, k), usual))
    return best_weights(*join(windows, k))._replace(window=k)


def best_weights(model: Tensor, ngrams: Tensor, targets: Tensor) -> Weights:
    """Find the exponents with the smallest loss.

    Args:
        model, ngrams, targets: as `Read`.
    """
    both = (model, ngrams)
    rows = torch.arange(len(targets))
    of_targets = torch.tensor([float(x[rows, targets].double().mean()) for x in both]).double()
    weights = torch.tensor(START, dtype=torch.float64)
    tiny = 1e-9 * torch.eye(2, dtype=torch.float64)  # where both say the same
    for _ in range(ROUNDS):
        chances = Weights(*weights.tolist()).product(model, ngrams).softmax(1)  # (n, V)
        weighed = [chances * x for x in both]
        means = torch.stack([x.sum(1) for x in weighed]).double()  # (2, n)
        squares = torch.tensor(
            [[float((x * y).sum(1).double().mean()) for y in both] for x in weighed]
        ).double()
        gradient = means.mean(1) - of_targets
        curvature = squares - means @ means.T / len(targets)
        move = torch.linalg.solve(curvature + tiny, gradient)
        weights = weights - move
        if move.abs().max() < 1e-5:
            break
    return Weights(*weights.tolist())


def _loss(read: Read, weights: Weights) -> float:
    logits = weights.product(read.model, read.ngrams)
    return float(F.cross_entropy(logits, read.targets))
