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
from folio.training.weights import new_row

POLYNOMIALS = (
    (8.2165, -23.7120, 17.2123),
    (3.8765, -2.8352, 0.5321),
    (3.1746, -2.3804, 0.4978),
)
"""a x + b x^3 + c x^5, one after the other: each is the best at bringing what the ones before it
left nearer to 1, from 0.005 to 1 at first (the Polar Express, https://arxiv.org/abs/2505.16932;
all but the last a little flatter, for rounding). Together 0.5 to 1.5: a fourth would make it 0.92
to 1.08, which takes a third more and gains nothing."""

WIDE = 1.5
"""K / M from which less is multiplied in the space of M x M."""

EPSILON = 1e-8
"""So that what has no gradient stays."""


class Stack(NamedTuple):
    """Matrices of one shape lying down, which a copy moves together: views into the rows."""

    weights: list[Tensor]
    gradients: list[Tensor]
    momenta: list[Tensor]
    mean_squares: list[Tensor]
    """(R, 1) of the orthogonal moves of each neuron."""


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
        pairs = zip(matrices, mean_square.split([len(m) for m in matrices]))
        for matrix, neurons in sorted(pairs, key=lambda pair: pair[0].shape):
            places = (_place(matrix, row.data, other) for other in (row.data, row.grad, momentum))
            by_shape[_lying(matrix).shape].append((*places, neurons[:, None]))
        n = len(replicas.copies)  # of which each takes an equal share of each shape
        self._jobs = [
            [Stack(*map(list, zip(*some))) for same in by_shape.values() if (some := same[i::n])]
            for i in range(n)
        ]

    def step(self, replica: Replica, learning_rate: float) -> None:
        """Momentum, then the nearest orthogonal matrices, then the change."""
        decay = learning_rate * self.config.matrix_weight_decay
        keep, dtype = self.config.matrix_momentum, replica.gradients.dtype
        for stack in self._jobs[replica.number]:
            ahead = [
                _lying(look_ahead(gradient, momentum, keep, dtype))
                for gradient, momentum in zip(stack.gradients, stack.momenta)
            ]
            moves = orthogonalize(torch.stack(ahead))
            for weight, move, mean_square in zip(stack.weights, moves, stack.mean_squares):
                rows, columns = weight.shape
                scale = max(1.0, rows / columns) ** 0.5  # the outputs of tall ones change as much
                upright = (move if move.shape == weight.shape else move.mT).contiguous()
                change(weight, upright, mean_square, learning_rate * scale, decay, self.config)


def look_ahead(gradient: Tensor, momentum: Tensor, keep: float, dtype: torch.dtype) -> Tensor:
    """The momentum learns from the gradient.

    Args:
        gradient, momentum: (R, C).
        keep: how much of the momentum is kept.
        dtype: of the products.

    Returns:
        (R, C), the next momentum as Nesterov looks at it.
    """
    if fused.serves(momentum):
        from folio.training import muon_kernels

        ahead = torch.empty_like(momentum, dtype=dtype)
        arrays = fused.arrays(gradient, momentum, ahead)
        muon_kernels.look_ahead(*arrays, keep=np.float32(keep))
        return ahead
    momentum.lerp_(gradient, 1 - keep)
    return gradient.lerp(momentum, keep).to(dtype)


def change(
    weight: Tensor,
    move: Tensor,
    mean_square: Tensor,
    rate: float,
    decay: float,
    config: OptimizerConfig,
) -> None:
    """Subtract a move whose rows are made even, and what decays.

    Args:
        weight: (R, C), changed in place.
        move: (R, C), close to orthogonal.
        mean_square: (R, 1) of the moves of late, which learns from this one.
        rate: times the move.
        decay: times the weight.
        config: whether rows are made even and decay is cautious.
    """
    if fused.serves(weight):
        from folio.training import muon_kernels

        arrays = fused.arrays(weight, move, mean_square)
        numbers = [np.float32(x) for x in (config.matrix_beta2, rate, decay)]
        muon_kernels.change(*arrays, *numbers, cautious=config.cautious_decay)
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


def _place(matrix: Tensor, row: Tensor, other: Tensor) -> Tensor:
    """What belongs to a matrix of a row in another row."""
    first = matrix.storage_offset() - row.storage_offset() + other.storage_offset()
    return other.as_strided(matrix.shape, matrix.stride(), first)


def _matrices(model: nn.Module, members: list[nn.Parameter]) -> list[Tensor]:
    """The matrices one by one; queries, keys and values lie in one parameter, but are three."""
    widths = {m.qkv_proj.weight: m.widths for m in model.modules() if isinstance(m, Attention)}
    return [
        matrix
        for parameter in members
        for matrix in parameter.detach().split(widths.get(parameter, len(parameter)))
    ]


def _lying(matrix: Tensor) -> Tensor:
    """(R, C) -> (M, K), transposed where it is tall: the smaller square is in the products."""
    return matrix.mT if len(matrix) > matrix.shape[1] else matrix


def orthogonalize(x: Tensor) -> Tensor:
    """Singular values to about 1: (S, M, K) -> (S, M, K), in the same precision.

    A polynomial of x is x times one of its square. Where x is wide, the squares that come next
    and the product of all polynomials are found in the small space, and x is read twice.
    """
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    if x.shape[2] < WIDE * x.shape[1]:
        for a, b, c in POLYNOMIALS:
            square = torch.bmm(x, x.mT)  # (S, M, M)
            x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x
    square, factors = torch.bmm(x, x.mT), []
    for a, b, c in POLYNOMIALS:
        if factors:
            square = torch.bmm(factors[-1], torch.bmm(square, factors[-1]))
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors.append(factor)
    return torch.bmm(reduce(torch.bmm, factors), x)
