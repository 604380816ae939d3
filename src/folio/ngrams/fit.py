"""The best weights of a model and n-grams, on a held-out text.

The loss of their product is convex in the two exponents, so that Newton's method finds the best.

Shapes:  n targets · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import expected_in_window

ROUNDS = 20
"""Of Newton's method, which takes about five."""


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


@torch.inference_mode()
def read_both(
    model: nn.Module,
    ngrams: NGrams,
    tokens: NDArray[np.int64],
    windows: Sequence[tuple[int, int]],
    k: float = 0.0,
) -> Read:
    """Read some windows of a text by a model and by n-grams.

    Args:
        model: (B, T) token ids to (B, T, V) logits, in evaluation mode.
        ngrams: of the same vocabulary.
        tokens: (N,) token ids.
        windows: where each begins, and its number of targets; the inputs are as many.
        k: how the windows themselves count, as in window.py.
    """
    device = next(model.parameters()).device
    each: list[Read] = []
    for start, length in windows:
        ids = tokens[start : start + length][None]
        logits = model(torch.from_numpy(ids).to(device))[0].float().cpu()
        expected = torch.from_numpy(expected_in_window(ngrams, ids, k, length)[0]).log()
        targets = torch.from_numpy(tokens[start + 1 : start + length + 1])
        each.append(Read(logits, expected, targets))
    return Read(*map(torch.cat, zip(*each)))


def best_weights(model: Tensor, ngrams: Tensor, targets: Tensor) -> Weights:
    """Find the exponents with the smallest loss.

    Args:
        model, ngrams, targets: as `Read`.
    """
    both = torch.stack((model, ngrams), dim=2).double()  # (n, V, 2)
    of_targets = both[torch.arange(len(targets)), targets].mean(0)  # (2,)
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    tiny = 1e-9 * torch.eye(2, dtype=torch.float64)  # where both say the same
    for _ in range(ROUNDS):
        expected = (both @ weights).softmax(1)  # (n, V)
        means = torch.einsum("nv,nvk->nk", expected, both)
        squares = torch.einsum("nv,nvk,nvl->kl", expected, both, both)
        gradient = means.mean(0) - of_targets
        curvature = (squares - means.T @ means) / len(targets)
        move = torch.linalg.solve(curvature + tiny, gradient)
        weights = weights - move
        if move.abs().max() < 1e-6:
            break
    return Weights(*weights.tolist())


def held_out_loss(read: Read) -> float:
    """Nats per token of the product, of each half of a text by the weights that are best on the
    other half.
    """
    n, total = len(read.targets), 0.0
    first = np.arange(n) < n // 2
    for half in (first, ~first):
        weights, (model, ngrams, targets) = best_weights(*read.of(~half)), read.of(half)
        logits = weights.product(model, ngrams)
        total += float(F.cross_entropy(logits, targets, reduction="sum"))
    return total / n
