"""Dynamic evaluation: the model learns from the text that it is tested on, as it reads it.

Each window is scored before a gradient step on it is taken, so that every token is predicted from
what stands before it, as a compressor does. A step is divided by the root of the mean square of the
training text's gradients (Krause et al. 2018, https://arxiv.org/abs/1709.07432, and 2019 for
transformers, https://arxiv.org/abs/1904.08378). The number is called `adaptive`, and is never to be
mixed with the exact one, which does not learn from the text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.device import one_thread
from folio.evaluation.score import Window, batches_of, sampled_windows, strided_windows
from folio.tokenizers.base import TokenIds

RATES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3)
"""Sizes of a step, as a share of the usual size of a gradient, of which the best is taken."""
SWEEP_TARGETS = 8192
"""Of the training text, on which it is chosen."""
STATISTICS_TARGETS = 16_384
"""Of the training text, for the size of its gradients."""
PULL = 0.002
"""Share of the way back to the trained weights that each step goes, times their usual gradient."""


class Adaptation:
    """How a model moves while it reads."""

    def __init__(self, model: nn.Module, training: TokenIds, context_length: int) -> None:
        """Measure the size of the gradients on the training text.

        Args:
            model: trained; it is never changed.
            training: (N,) token ids that it learned from.
            context_length: of its windows.
        """
        self.model, self.context_length = model, context_length
        self.roots = _roots(model, training, context_length)

    @one_thread()
    def surprise(self, tokens: TokenIds, rate: float) -> NDArray[np.float64]:
        """(N,) nats of each token of a text, before the model learned from it; nan for the first.

        Args:
            tokens: (N,) at least two.
            rate: 0 does not learn.
        """
        model = _learning_copy(self.model)
        parameters = list(model.parameters())
        begun = [parameter.detach().clone() for parameter in parameters]
        each = np.full(len(tokens), np.nan)
        for window in strided_windows(len(tokens), self.context_length):
            nats, places = _window(model, tokens, window)
            each[places] = nats.detach().double().numpy()
            if not rate:
                continue
            gradients = torch.autograd.grad(nats.mean(), parameters)
            with torch.no_grad():
                for parameter, gradient, start, root in zip(
                    parameters, gradients, begun, self.roots
                ):
                    parameter.sub_(rate * gradient / root)
                    parameter.add_(PULL * (start - parameter))
        return each

    def choose_rate(
        self, training: TokenIds, tell: Callable[[str], None] = lambda line: None
    ) -> float:
        """The rate that does best on a stretch from the middle of the training text.

        That text is known to the model, so the choice is a careful one: it gains less there.
        """
        n = min(SWEEP_TARGETS + 1, len(training))
        start = (len(training) - n) // 2
        stretch = np.asarray(training[start : start + n])
        losses = []
        for rate in RATES:
            losses.append(float(np.nanmean(self.surprise(stretch, rate))))
            tell(f"rate {rate:g}: {losses[-1]:.4f} nats per token of training text")
        return RATES[int(np.argmin(losses))]


def mix(
    surprises: Sequence[NDArray[np.float64]], forgets: float = 0.02
) -> tuple[NDArray[np.float64], list[float]]:
    """The surprise of a mixture whose shares are learned from what was read.

    Each predictor's share is its own before, times how likely it made the last symbol, and a little
    of an even one (fixed share, Herbster & Warmuth 1998, https://doi.org/10.1023/A:1007424614876).

    Args:
        surprises: nats of each symbol, by each predictor; (N,) each.
        forgets: how much of the even share comes back with each symbol.

    Returns:
        (N,) nats, and the mean share of each predictor.

    >>> one, other = np.array([0.1, 0.1, 3.0]), np.array([3.0, 3.0, 0.1])
    >>> bool(mix([one, other])[0].sum() < min(one.sum(), other.sum()) + np.log(2))
    True
    """
    chances = np.exp(-np.stack(surprises, axis=1))  # (N, K)
    shares = np.full(chances.shape[1], 1 / chances.shape[1])
    nats, total = np.zeros(len(chances)), np.zeros(chances.shape[1])
    for i, row in enumerate(chances):
        total += shares
        joint = shares * row
        p = joint.sum()
        nats[i] = -math.log(p)
        shares = (1 - forgets) * joint / p + forgets / len(shares)
    return nats, (total / max(len(chances), 1)).tolist()


def _learning_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(True)


def _window(model: nn.Module, tokens: TokenIds, window: Window) -> tuple[Tensor, NDArray[np.int64]]:
    """(n,) nats of the targets of a window, and their places in the text."""
    inputs, targets, scored, places = next(batches_of(np.asarray(tokens), [window]))
    logits = model(torch.from_numpy(inputs))[0]  # (T, V)
    nats = F.cross_entropy(logits.float(), torch.from_numpy(targets[0]), reduction="none")
    return nats[torch.from_numpy(scored[0])], places[scored]


@one_thread()
def _roots(model: nn.Module, training: TokenIds, context_length: int) -> list[Tensor]:
    """The root of the mean square of each weight's gradient, and its mean over all weights added,
    so that no weight runs away whose gradient is hardly ever more than 0.
    """
    model = _learning_copy(model)
    parameters = list(model.parameters())
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    windows = sampled_windows(len(training), context_length, STATISTICS_TARGETS)
    for window in windows:
        nats, _ = _window(model, training, window)
        for square, gradient in zip(squares, torch.autograd.grad(nats.mean(), parameters)):
            square.add_(gradient.square())
    n_weights = sum(square.numel() for square in squares)
    usual = math.sqrt(sum(float(s.sum()) for s in squares) / len(windows) / n_weights)
    return [(square / len(windows)).sqrt() + usual for square in squares]
