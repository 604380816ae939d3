"""The best weights of a model and n-grams, on a held-out text.

The loss of their product is convex in the two exponents, so that Newton's method finds the best.
How much what stands in the window counts is one of a few numbers, WINDOWS.

Shapes:  n targets · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import mix_in_window

ROUNDS = 20
"""Of Newton's method, which takes about four."""
START = (0.65, 0.4)
"""Exponents to begin with, near to what models have."""
WINDOWS = (1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0)
"""Numbers k that are tried: a good model and a text that repeats itself have small ones
(docs/experiments.md)."""
USUAL = 6.0
"""The k by which the exponents are found, by which the others are compared."""


class Read(NamedTuple):
    """What a model and n-grams expected at each of n targets."""

    model: Tensor
    """(n, V) logits."""
    ngrams: Tensor
    """(n, V) log-probabilities."""
    targets: Tensor
    """(n,) the tokens that followed."""

    def of(self, chosen: NDArray[np.bool_]) -> Read:
        """Keep some of the targets, by (n,) flags."""
        kept = torch.from_numpy(chosen)
        return Read(*(part[kept] for part in self))


ReadAt = Callable[[float], Read]
"""What was read, for each k of window.py; 0 for n-grams of the training text alone."""


@torch.inference_mode()
def read_both(
    model: nn.Module, ngrams: NGrams, tokens: NDArray[np.int64], windows: Sequence[tuple[int, int]]
) -> ReadAt:
    """Read some windows of a text by a model and by n-grams.

    Args:
        model: (B, T) token ids to (B, T, V) logits, in evaluation mode.
        ngrams: of the same vocabulary.
        tokens: (N,) token ids.
        windows: where each begins, and its number of targets; the inputs are as many.
    """
    device = next(model.parameters()).device
    inputs = [tokens[start : start + length] for start, length in windows]
    each = [model(torch.from_numpy(ids[None]).to(device))[0].float().cpu() for ids in inputs]
    alone = [ngrams.probabilities(ids[None])[0] for ids in inputs]
    targets = np.concatenate([tokens[start + 1 : start + 1 + n] for start, n in windows])
    read = torch.cat(each), torch.from_numpy(targets)

    def read_at(k: float) -> Read:
        found = [rows.copy() for rows in alone]
        for rows, ids in zip(found, inputs):
            if k:
                mix_in_window(rows, ids, k, ngrams.order)
        return Read(read[0], torch.from_numpy(np.concatenate(found)).log_(), read[1])

    return read_at


class Fit(NamedTuple):
    """What was found on a text."""

    weights: Weights
    """The best ones."""
    loss: float
    """Nats per token, of each half of the text by the weights that are best on the other half."""


def fit(read_at: ReadAt, windows: Sequence[float] = WINDOWS) -> Fit:
    """Find the exponents and the k with the smallest loss; which k is told by the exponents that
    are best for the usual one.

    Args:
        read_at: what was read.
        windows: numbers k, of which one is chosen.
    """
    usual = read_at(USUAL if USUAL in windows else windows[0])
    n = len(usual.targets)
    first = np.arange(n) < n // 2
    parts = np.ones(n, np.bool_), first, ~first
    exponents = [best_weights(*usual.of(part)) for part in parts]
    losses = [
        [_loss(read.of(part), of) for part, of in zip(parts, exponents)]
        for read in map(read_at, windows)
    ]
    found = list[Weights]()
    for part, of_part in zip(parts, zip(*losses)):
        k = windows[int(np.argmin(of_part))]
        found.append(best_weights(*read_at(k).of(part))._replace(window=k))
    best, of_first, of_second = found
    total = sum(
        _loss(read_at(weights.window).of(half), weights) * int(half.sum())
        for half, weights in ((first, of_second), (~first, of_first))
    )
    return Fit(best, total / n)


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
