"""Muon: a step in which all directions of a matrix count alike.

The momentum of a matrix is replaced by the nearest orthogonal matrix, so that directions
with small gradients move as far as those with large ones. Newton-Schulz iterations find it
with products alone.

Source: Jordan 2024, https://kellerjordan.github.io/posts/muon.

Shapes:  M x K a matrix, M <= K after a transposition · S matrices of one shape
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from folio.model.attention import Attention
from folio.training.optimizers import OptimizerConfig
from folio.training.replicas import Replica, Replicas
from folio.training.weights import new_row

POLYNOMIALS = (
    (8.1360, -23.0214, 16.3849),
    (3.8385, -2.7526, 0.5065),
    (3.1124, -2.2431, 0.4509),
    (2.1895, -1.5672, 0.4079),
)
"""a x + b x^3 + c x^5, one after the other: each is the best at bringing what the ones before it
left nearer to 1, from 0.005 to 1 at first (the Polar Express, https://arxiv.org/abs/2505.16932;
all but the last a little flatter, for rounding). Together 0.92 to 1.08."""


class Muon:
    """For the matrices between hidden layers, which lie in one row."""

    def __init__(
        self, row: nn.Parameter, config: OptimizerConfig, model: nn.Module, replicas: Replicas
    ) -> None:
        """
        Args:
            row: (N,) weights and gradients of all matrices.
            config: rate, momentum and decay.
            model: whose matrices they are.
            replicas: whose threads share the work, in their precision.
        """
        self.row, self.config = row, config
        self.learning_rate = config.matrix_learning_rate
        self.tensors = {"momentum": torch.zeros_like(row.data)}
        self._update = new_row(len(row), replicas.device.dtype, row.device)
        matrices = _matrices(model, replicas.weights.members["hidden"])
        views = [self._view(matrix) for matrix in matrices]
        # Each thread takes an equal share of each shape.
        n = len(replicas.copies)
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for view in views:
            by_shape[view.shape].append(view)
        self._jobs = [
            [same for stack in by_shape.values() if (same := stack[i::n])] for i in range(n)
        ]
        self._orthogonalize = replicas.task(self._do_job)

    def step(self, learning_rate: float) -> None:
        """Momentum, then the nearest orthogonal matrices, then the change."""
        gradient, momentum = self.row.grad, self.tensors["momentum"]
        assert gradient is not None
        keep = self.config.matrix_momentum
        momentum.lerp_(gradient, 1 - keep)
        self._update.copy_(gradient.lerp(momentum, keep))  # Nesterov's look ahead
        self._orthogonalize(range(len(self._jobs)))
        self.row.data.mul_(1 - learning_rate * self.config.matrix_weight_decay)
        self.row.data.sub_(self._update, alpha=learning_rate)

    def _do_job(self, _: Replica, number: int) -> None:
        for same in self._jobs[number]:
            _orthogonalize_in_place(same)

    def _view(self, matrix: Tensor) -> Tensor:
        """The place of a matrix in the row of updates."""
        offset = matrix.storage_offset() - self.row.data.storage_offset()
        return self._update[offset : offset + matrix.numel()].view(matrix.shape)


def _matrices(model: nn.Module, members: list[nn.Parameter]) -> list[Tensor]:
    """The matrices one by one; queries, keys and values lie in one parameter, but are three."""
    widths = {m.qkv_proj.weight: m.widths for m in model.modules() if isinstance(m, Attention)}
    return [
        matrix
        for parameter in members
        for matrix in parameter.detach().split(widths.get(parameter, len(parameter)))
    ]


def _orthogonalize_in_place(matrices: list[Tensor]) -> None:
    """Matrices of one shape; tall ones are scaled up, so that their outputs change as much."""
    rows, columns = matrices[0].shape
    scale = max(1.0, rows / columns) ** 0.5
    orthogonal = orthogonalize(torch.stack(matrices)).mul_(scale)
    for matrix, found in zip(matrices, orthogonal):
        matrix.copy_(found)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Singular values to about 1: (S, R, C) -> (S, R, C), in the same precision."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # (S, M, K), the smaller square in the products
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for a, b, c in POLYNOMIALS:
        square = torch.bmm(x, x.mT)  # (S, M, M)
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x
