"""Muon: a step in which all directions of a matrix count alike.

The momentum of a matrix is replaced by the nearest orthogonal matrix, so that directions
with small gradients move as far as those with large ones. Newton-Schulz iterations find it
with products alone. Each of its rows, which moves one neuron, is then divided by how far that
neuron moved lately, so that no few of them take all of the way (NorMuon), and decay spares
the weights that the move makes larger.

Sources: Jordan 2024, https://kellerjordan.github.io/posts/muon; Li et al. 2025,
https://arxiv.org/abs/2510.05491; Chen et al. 2025, https://arxiv.org/abs/2510.12402.

Shapes:  R x C a matrix · M x K the same lying down, M <= K · S matrices of one M x K
"""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from folio.model import fused
from folio.model.attention import Attention
from folio.training.optimizers import OptimizerConfig
from folio.training.replicas import Replica, Replicas
from folio.training.weights import new_row, same_place

POLYNOMIALS = (
    (8.2165, -23.7120, 17.2123),
    (3.8765, -2.8352, 0.5321),
    (3.1746, -2.3804, 0.4978),
)
"""a x + b x^3 + c x^5, one after the other: each is the best at bringing what the ones before it
left nearer to 1, from 0.005 to 1 at first (the Polar Express, https://arxiv.org/abs/2505.16932;
all but the last a little flatter, for rounding). Together 0.5 to 1.5: a fourth would make it 0.92
to 1.08, which takes a third more and gains nothing."""

EPSILON = 1e-8
"""So that what has no gradient stays."""

TINY = 1e-14
"""The same for squared lengths of gradients."""


class Stack(NamedTuple):
    """Matrices of one shape, which a copy moves together: views into the rows."""

    weights: list[Tensor]
    gradients: list[Tensor]
    momenta: list[Tensor]
    mean_squares: list[Tensor]
    """(R, 1) of the orthogonal moves of each neuron."""
    working: list[Tensor]
    """The weights as the copies read them, or nothing."""


class Muon:
    """For the matrices between hidden layers, which lie in one row."""

    def __init__(
        self, row: nn.Parameter, config: OptimizerConfig, model: nn.Module, replicas: Replicas
    ) -> None:
        """
        Args:
            row: (N,) weights and gradients of all matrices, in memory that all copies see.
            config: rate, momentum and decay.
            model: whose matrices they are.
            replicas: which share the work, in their precision.
        """
        self.config = config
        self.learning_rate = config.matrix_learning_rate
        matrices = _matrices(model, replicas.weights.members["hidden"])
        momentum, mean_square = (
            new_row(n, row.dtype, row.device) for n in (len(row), sum(map(len, matrices)))
        )
        self.tensors = {
            "momentum": momentum,
            "mean_square": mean_square,
        }
        assert row.grad is not None
        by_shape: dict[torch.Size, list[tuple[Tensor, ...]]] = defaultdict(list)
        for matrix, neurons in zip(matrices, mean_square.split([len(m) for m in matrices])):
            rows = (row.data, row.grad, momentum)
            places = (same_place(matrix, row.data, other) for other in rows)
            working = replicas.weights.to_refresh(matrix)
            by_shape[matrix.shape].append((*places, neurons[:, None], working))
        n = len(replicas.copies)  # of which each takes an equal share of each shape
        self._jobs: list[dict[int, list[Stack]]] = [defaultdict(list) for _ in range(n)]
        """Of each copy, those with the same smaller side together."""
        for shape, same in by_shape.items():
            for i, job in enumerate(self._jobs):
                if some := same[i::n]:
                    job[min(shape)].append(Stack(*map(list, zip(*some))))

    def step(self, replica: Replica, learning_rate: float, scale: float) -> None:
        """Momentum, then the nearest orthogonal matrices, then the change."""
        decay = learning_rate * self.config.matrix_weight_decay
        keep, dtype = self.config.matrix_momentum, replica.gradients.dtype
        for stacks in self._jobs[replica.number].values():
            ahead = [look_ahead(s.gradients, s.momenta, scale, keep, dtype) for s in stacks]
            for stack, moves in zip(stacks, orthogonalize(ahead)):
                rows, columns = stack.weights[0].shape
                rate = (
                    learning_rate * max(1.0, rows / columns) ** 0.5
                )  # tall ones change outputs as much
                which = zip(stack.weights, moves, stack.mean_squares, stack.working)
                for matrices in which:
                    change(*matrices, rate, decay, self.config)


def look_ahead(
    gradients: list[Tensor],
    momenta: list[Tensor],
    scale: float,
    keep: float,
    dtype: torch.dtype,
) -> Tensor:
    """The momenta learn from the gradients.

    Args:
        gradients, momenta: S of (R, C).
        scale: of the gradients.
        keep: how much of the momentum is kept.
        dtype: of the products.

    Returns:
        (S, R, C), the next momenta as Nesterov looks at them.
    """
    ahead = torch.empty(len(momenta), *momenta[0].shape, dtype=dtype, device=momenta[0].device)
    for gradient, momentum, place in zip(gradients, momenta, ahead):
        if fused.serves(momentum):
            from folio.training import kernels

            arrays = fused.arrays(gradient, momentum, place)
            kernels.look_ahead(*arrays, scale=np.float32(scale), keep=np.float32(keep))
        else:
            momentum.lerp_(scale * gradient, 1 - keep)
            place.copy_((scale * gradient).lerp(momentum, keep))
    return ahead


def change(
    weight: Tensor,
    move: Tensor,
    mean_square: Tensor,
    working: Tensor,
    rate: float,
    decay: float,
    config: OptimizerConfig,
) -> None:
    """Subtract a move whose rows are made even, and what decays.

    Args:
        weight: (R, C), changed in place.
        move: (R, C), close to orthogonal.
        mean_square: (R, 1) of the moves of late, which learns from this one.
        working: (R, C), the weights are written to it too; or empty.
        rate: times the move.
        decay: times the weight.
        config: whether rows are made even and decay is cautious.
    """
    if fused.serves(weight):
        from folio.training import kernels

        arrays = fused.arrays(weight, move, mean_square, working)
        numbers = [np.float32(x) for x in (config.matrix_beta2, rate, decay)]
        kernels.change(*arrays, *numbers, cautious=config.cautious_decay)
        return
    move, beta2 = move.float(), config.matrix_beta2
    if beta2 < 1:
        mean_square.lerp_(move.square().mean(1, keepdim=True), 1 - beta2)
        even = move / (mean_square.sqrt() + EPSILON)
        move = even * (move.norm() / (even.norm() + EPSILON))
    lost = decay * weight
    if config.cautious_decay:
        lost *= move * weight > 0
    weight.sub_(lost).sub_(move, alpha=rate)
    working.copy_(weight[: len(working)])


def _matrices(model: nn.Module, members: list[nn.Parameter]) -> list[Tensor]:
    """The matrices one by one; queries, keys and values lie in one parameter, but are three."""
    widths = {m.qkv_proj.weight: m.widths for m in model.modules() if isinstance(m, Attention)}
    return [
        matrix
        for parameter in members
        for matrix in parameter.detach().split(widths.get(parameter, len(parameter)))
    ]


def orthogonalize(stacks: list[Tensor]) -> list[Tensor]:
    """Singular values to about 1: (S, R, C) each, of one smaller side M -> the same.

    A polynomial of a matrix is the matrix times one of its square. So all polynomials, and the
    squares that come between them, are found in the space of M x M, for all stacks at once.
    """
    m = min(stacks[0].shape[1:])
    square = stacks[0].new_empty(sum(map(len, stacks)), m, m)
    parts = square.split([len(x) for x in stacks])
    for x, part in zip(stacks, parts):
        torch.bmm(*((x.mT, x) if _is_tall(x) else (x, x.mT)), out=part)
    factors: list[Tensor] = []
    for coefficients in POLYNOMIALS:
        if factors:
            square = torch.bmm(factors[-1], torch.bmm(square, factors[-1]))
        factors.append(polynomial(square, *coefficients, first=not factors))
    parts = reduce(torch.bmm, factors).split([len(x) for x in stacks])
    return [
        torch.bmm(x, part) if _is_tall(x) else torch.bmm(part, x) for x, part in zip(stacks, parts)
    ]


def polynomial(square: Tensor, a: float, b: float, c: float, first: bool) -> Tensor:
    """What a matrix x is multiplied by to become a x + b x^3 + c x^5.

    Args:
        square: (S, M, M), of x.
        first: whether x is yet to be divided by its length, the root of all its numbers squared.

    Returns:
        (S, M, M).
    """
    factor = torch.bmm(square, square)
    if fused.serves(square):
        from folio.training import kernels

        numbers = [np.float32(x) for x in (a, b, c)]
        kernels.polynomial(*fused.arrays(square, factor), *numbers, first=first)
        return factor
    lengths = torch.ones((), device=square.device)
    if first:  # on the diagonal are the squared lengths of rows
        lengths = (square.diagonal(dim1=1, dim2=2).float().sum(1) + TINY).sqrt()[:, None, None]
    factor = b * square.float() / lengths**2 + c * factor.float() / lengths**4
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return (factor / lengths).to(square.dtype)


def _is_tall(x: Tensor) -> bool:
    return x.shape[1] > x.shape[2]
