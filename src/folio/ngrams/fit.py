"""The best weights of a model and n-grams, and the best rule for a window, on a held-out text.

The loss of the product is convex in the two exponents, so that Newton's method finds the best. The
rule is one of a few; what it is mixed with is known by then.

Shapes:  n targets · V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import WindowRule, count_targets, mix_in_targets

ROUNDS = 20
"""Of Newton's method, which takes about four."""
START = (0.65, 0.4)
"""Exponents to begin with, near to what models have."""
RULES = [
    WindowRule(float(k), shortest)
    for shortest, k in product(
        (1, 2, 3, 4), (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
    )
]
"""Rules that are tried: byte pairs begin with one token and k = 10 to 30, characters with three; a
text that does not repeat itself has a large k (docs/experiments.md)."""
FEWEST_TARGETS = 256
"""Of fewer, what is found would be noise."""
MOST_TRIED = 1 << 15
"""Targets by which a rule is found, evenly spaced."""
AT_ONCE = 1 << 20
"""Logits that are worked on at once: 4 MB in float32, which stay in the cache."""


class Read(NamedTuple):
    """What a model and n-grams expected at each of n targets."""

    model: Tensor
    """(n, V) logits."""
    ngrams: Tensor
    """(n, V) log-probabilities."""
    targets: Tensor
    """(n,) the tokens that followed."""
    counts: NDArray[np.int32]
    """(n, LONGEST, 3) of `count_targets`, in the window of each."""

    def of(self, some: slice) -> Read:
        """What was read of some targets."""
        return Read(self.model[some], self.ngrams[some], self.targets[some], self.counts[some])


def join(parts: Sequence[Read]) -> Read:
    """What was read in some windows."""
    model, ngrams, targets = (torch.cat(tensors) for tensors in [*zip(*parts)][:3])
    return Read(model, ngrams, targets, np.concatenate([part.counts for part in parts]))


@torch.inference_mode()
def read_both(
    model: nn.Module,
    ngrams: NGrams,
    tokens: NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    counted: NDArray[np.bool_] | None = None,
) -> list[Read]:
    """Read some windows of a text by a model and by n-grams.

    Args:
        model: (B, T) token ids to (B, T, V) logits, in evaluation mode.
        ngrams: of the same vocabulary.
        tokens: (N,) token ids.
        spans: where each window begins, and its number of targets; the inputs are as many.
        counted: (N - 1,) which targets count; None for all.
    """
    device, windows = next(model.parameters()).device, list[Read]()
    for start, length in spans:
        ids, follow = (tokens[i : i + length] for i in (start, start + 1))
        kept = np.ones(length, np.bool_) if counted is None else counted[start : start + length]
        logits = model(torch.from_numpy(ids[None]).to(device))[0].float().cpu()
        alone = torch.from_numpy(ngrams.probabilities(ids[None])[0][kept]).log_()
        targets = torch.from_numpy(follow[kept])
        counts = count_targets(ids, follow)[kept]
        windows.append(Read(logits[torch.from_numpy(kept)], alone, targets, counts))
    return windows


class Fit(NamedTuple):
    """What was found on a text. Each half of it is told by the numbers of the other half."""

    alone: float
    """Nats per token of the model without n-grams."""
    weights: Weights
    """Those with the smallest loss on the whole text."""
    loss: float
    """Nats per token, by the weights."""
    rule: WindowRule
    """That with the smallest loss on the whole text, beside these weights."""
    loss_in_windows: float
    """Nats per token, by weights and rule."""


def fit(windows: Sequence[Read]) -> Fit:
    """Find weights and rule with the smallest loss, on a text and on each half of it.

    Args:
        windows: two or more, which have targets.
    """
    whole, middle = join(windows), sum(len(w.targets) for w in windows[: len(windows) // 2])
    halves = [whole.of(slice(middle)), whole.of(slice(middle, None))]
    of_halves = [found_on(half) for half in halves]
    product, mixed = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
    for half, (weights, rule) in zip(halves, of_halves[::-1]):
        product.append(likelihoods(half, weights))
        mixed.append(mix_in_targets(product[-1], half.counts, rule))
    weights, rule = found_on(whole)
    losses = [float(-np.log(np.concatenate(parts)).mean()) for parts in (product, mixed)]
    nats = sum(float(F.cross_entropy(w.model, w.targets, reduction="sum")) for w in windows)
    return Fit(nats / len(whole.targets), weights, losses[0], rule, losses[1])


def found_on(read: Read) -> tuple[Weights, WindowRule]:
    """Find the weights, and beside them the rule, with the smallest loss on what was read."""
    weights = best_weights(*read[:3])
    return weights, best_rule(likelihoods(read, weights), read.counts)


def likelihoods(read: Read, weights: Weights) -> NDArray[np.float64]:
    """(n,) the probability of each target by the product."""
    found = [
        weights.product(*both).softmax(1)[torch.arange(len(targets)), targets]
        for *both, targets in _pieces(*read[:3])
    ]
    return torch.cat(found).double().numpy()


def best_rule(expected: NDArray[np.float64], counts: NDArray[np.int32]) -> WindowRule:
    """Find the rule with the smallest loss; arguments as for `mix_in_targets`."""
    apart = max(1, len(expected) // MOST_TRIED)
    expected, counts = expected[::apart], counts[::apart]
    return max(RULES, key=lambda rule: np.log(mix_in_targets(expected, counts, rule)).sum())


def _pieces(model: Tensor, ngrams: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split the targets so that there are `AT_ONCE` logits in a piece."""
    size = max(1, AT_ONCE // model.shape[1])
    return zip(*(x.split(size) for x in (model, ngrams, targets)))


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
        gradient, curvature = -len(targets) * of_targets, torch.zeros(2, 2, dtype=torch.float64)
        for *piece, _ in _pieces(model, ngrams, targets):
            chances = Weights(*weights.tolist()).product(*piece).softmax(1)  # (m, V)
            weighed = [chances * x for x in piece]
            means = torch.stack([x.sum(1) for x in weighed]).double()  # (2, m)
            squares = [[float((x * y).sum(1).double().sum()) for y in piece] for x in weighed]
            gradient += means.sum(1)
            curvature += torch.tensor(squares).double() - means @ means.T
        move = torch.linalg.solve(curvature / len(targets) + tiny, gradient / len(targets))
        weights = weights - move
        if move.abs().max() < 1e-5:
            break
    return Weights(*weights.tolist())
