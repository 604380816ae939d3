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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby

import numpy as np
import torch
from torch import Tensor, nn

from folio.fast import calls, int8
from folio.training.config import OptimizerConfig
from folio.training.optimizers import (
    EPSILON,
    LONG_POLYNOMIALS,
    SQUARE_POLYNOMIALS,
    matrix_heights,
)
from folio.training.replicas import Replica, Replicas, part
from folio.training.tape import Taped
from folio.training.weights import new_row

TINY = 1e-14
"""So that nothing is divided by 0."""

RANGE = (2.0**-12, 2.0**10)
"""Within which the largest number of a matrix may lie, so that neither its fourth powers, nor the
squares of those, leave what float32 has."""

MOST_BYTES = 20_000_000
"""Of the memory of a tape. Where a step takes more, what comes between its operations is little."""


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape that lie one after the other: views into the rows."""

    weights: Tensor
    """(S, R, C)"""
    gradients: Tensor
    momenta: Tensor
    mean_squares: Tensor
    """(S, R, 1) of the orthogonal moves of each neuron."""
    working: Tensor
    """(S, R, C) the weights as the copies read them; or nothing."""


Job = list[list[Stack]]
"""What a copy does at once: for each shape its stacks. All are square, or all have the same smaller
side."""


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
        shapes = _shapes(model, replicas.weights.members["hidden"])
        momentum, mean_square = (
            new_row(n, row.dtype, row.device) for n in (len(row), sum(r for r, _ in shapes))
        )
        self.tensors = {
            "momentum": momentum,
            "mean_square": mean_square,
        }
        assert row.grad is not None
        rows = row.data, row.grad, momentum, mean_square, replicas.weights.to_refresh(row.data)
        n, device = len(replicas.copies), replicas.device
        precision = device.dtype, device.config.precision == "int8"
        self._moves = [
            Taped(partial(move, _jobs(rows, shapes, i, n), config, *precision), MOST_BYTES)
            for i in range(n)
        ]

    def step(self, replica: Replica, learning_rate: float, scale: float) -> None:
        """Momentum, then the nearest orthogonal matrices, then the change."""
        numbers = scale, learning_rate, learning_rate * self.config.matrix_weight_decay
        device = replica.gradients.device
        self._moves[replica.number](torch.tensor(numbers, dtype=torch.float32, device=device))


def _jobs(
    rows: Sequence[Tensor], shapes: list[tuple[int, int]], number: int, n_copies: int
) -> list[Job]:
    """An equal share of the matrices of each shape.

    Args:
        rows: weights, gradients and momenta; mean squares of neurons; what the copies read.
        shapes: of all matrices, in the order in which they lie there.
        number: of the copy.
        n_copies: how many share the work.
    """
    weights, gradients, momenta, mean_squares, working = rows
    starts = list(accumulate((r * c for r, c in shapes), initial=0))
    neurons = list(accumulate((r for r, _ in shapes), initial=0))
    jobs: dict[tuple[int, bool], Job] = defaultdict(list)
    for shape in dict.fromkeys(shapes):
        same = [i for i, other in enumerate(shapes) if other == shape]
        mine = same[part(len(same), number, n_copies)]
        stacks = []
        # What lies side by side has numbers that rise as fast as their places in the list.
        for _, run in groupby(enumerate(mine), key=lambda pair: pair[1] - pair[0]):
            stacked = [i for _, i in run]
            n, first, end = len(stacked), stacked[0], stacked[-1] + 1
            span = slice(starts[first], starts[end])
            stacks.append(
                Stack(
                    weights=weights[span].view(n, *shape),
                    gradients=gradients[span].view(n, *shape),
                    momenta=momenta[span].view(n, *shape),
                    mean_squares=mean_squares[neurons[first] : neurons[end]].view(n, -1, 1),
                    working=working[span].view(n if len(working) else 0, *shape),
                )
            )
        if stacks:
            jobs[min(shape), shape[0] == shape[1]].append(stacks)
    return list(jobs.values())


def move(
    jobs: list[Job],
    config: OptimizerConfig,
    dtype: torch.dtype,
    in_bytes: bool,
    numbers: Tensor,
) -> Tensor:
    """A step of some matrices.

    Args:
        jobs: which.
        config: how much is kept of what.
        dtype: of the products.
        in_bytes: whether bytes may be multiplied.
        numbers: (3,) the scale of the gradients, the rate, and that times the decay.

    Returns:
        The numbers, since a tape must have an outcome.
    """
    for job in jobs:
        ahead = [look_ahead(stacks, config.matrix_momentum, dtype, numbers) for stacks in job]
        for stacks, moves in zip(job, orthogonalize(ahead, in_bytes)):
            for stack, some in zip(stacks, moves.split([len(s.weights) for s in stacks])):
                change(stack, some, config, numbers)
    return numbers


def look_ahead(stacks: list[Stack], keep: float, dtype: torch.dtype, numbers: Tensor) -> Tensor:
    """The momenta learn from the gradients.

    Args:
        stacks: of one shape.
        keep: how much of the momentum is kept.
        dtype, numbers: as for `move`.

    Returns:
        (S, R, C), the next momenta as Nesterov looks at them.
    """
    lengths = [len(stack.weights) for stack in stacks]
    first = stacks[0].weights
    ahead = first.new_empty(sum(lengths), *first.shape[1:], dtype=dtype)
    for stack, places in zip(stacks, ahead.split(lengths)):
        if calls.serves(stack.weights):
            from folio.fast.kernels import training as kernels

            arrays = calls.arrays(stack.gradients, stack.momenta, places, numbers)
            calls.call(kernels.look_ahead, *arrays, np.float32(keep))
        else:
            scaled = numbers[0] * stack.gradients
            stack.momenta.lerp_(scaled, 1 - keep)
            places.copy_(scaled.lerp(stack.momenta, keep))
    return ahead


def change(stack: Stack, moves: Tensor, config: OptimizerConfig, numbers: Tensor) -> None:
    """Subtract moves whose rows are made even, and what decays.

    Args:
        stack: whose weights change; its gradients become the weights as they were.
        moves: (S, R, C), close to orthogonal.
        config: whether rows are made even and decay is cautious.
        numbers: as for `move`.
    """
    weights, mean_squares, working = stack.weights, stack.mean_squares, stack.working
    rows, columns = weights.shape[1:]
    longer = max(1.0, rows / columns) ** 0.5  # so that tall ones change what comes out as much
    beta2 = config.matrix_beta2
    if calls.serves(weights):
        from folio.fast.kernels import training as kernels

        arrays = calls.arrays(weights, stack.gradients, moves, mean_squares, working, numbers)
        parts = np.float32(longer), np.float32(beta2), config.cautious_decay, np.float32(EPSILON)
        calls.call(kernels.change, *arrays, *parts)
        return
    moves = moves.float()
    if beta2 < 1:
        mean_squares.lerp_(moves.square().mean(2, keepdim=True), 1 - beta2)
        even = moves / (mean_squares.sqrt() + EPSILON)
        before, after = (torch.linalg.matrix_norm(x, keepdim=True) for x in (moves, even))
        moves = even * (before / (after + EPSILON))
    stack.gradients.copy_(weights)
    _, rate, decay = numbers
    lost = decay * weights
    if config.cautious_decay:
        lost = lost * (moves * weights > 0)
    weights.sub_(lost).sub_(longer * rate * moves)
    working.copy_(weights[: len(working)])


def _shapes(model: nn.Module, members: list[nn.Parameter]) -> list[tuple[int, int]]:
    """Of the matrices one by one; queries, keys and values lie in one parameter, but are three."""
    heights = matrix_heights(model, members)
    return [(n, p.shape[1]) for p, rows in zip(members, heights) for n in rows]


def orthogonalize(stacks: list[Tensor], in_bytes: bool = False) -> list[Tensor]:
    """Singular values to about 1.

    A polynomial of a matrix is the matrix times one of its square, which is M x M.

    Args:
        stacks: (S, R, C) each, of one smaller side M; all square or none. Of any scale: what lies
            outside of RANGE is changed in place.
        in_bytes: whether the squares of long ones are made of bytes: fast/int8.py.
    """
    for x in stacks:
        bring_into_range(x)
    if stacks[0].shape[1] == stacks[0].shape[2]:
        return [_orthogonalize_square(x) for x in stacks]
    return _orthogonalize_long(stacks, in_bytes)


def bring_into_range(x: Tensor) -> None:
    """Multiply matrices whose largest number is outside of RANGE by powers of two, in place, which
    leaves their directions exactly as they are.

    Without it, momenta of 1e-9 came out as NaN, since their eighth powers are no float32.

    Args:
        x: (S, R, C). A matrix of denormal numbers only, which other operations take for 0, becomes
            that.
    """
    low, high = RANGE
    if calls.serves(x):
        from folio.fast.kernels import training as kernels

        calls.call(kernels.bring_into_range, *calls.arrays(x), np.float32(low), np.float32(high))
        return
    largest = x.abs().amax((1, 2), keepdim=True).float()
    factor = torch.exp2(-largest.log2().round().clamp(-120, 120))  # itself a normal number
    factor = torch.where((largest >= low) & (largest <= high), 1.0, factor)
    factor = torch.where(largest < torch.finfo(torch.float32).tiny, 0.0, factor)
    x.mul_(factor.to(x.dtype))


def _orthogonalize_square(x: Tensor) -> Tensor:
    """(S, M, M) -> the same; all products are equally cheap."""
    for number, coefficients in enumerate(SQUARE_POLYNOMIALS):
        x = torch.bmm(polynomial(torch.bmm(x, x.mT), coefficients, first=number == 0), x)
    return x


def _orthogonalize_long(stacks: list[Tensor], in_bytes: bool) -> list[Tensor]:
    """(S, R, C) each -> the same. Each is read twice: its next squares follow from the first, for
    all of them at once, and it is multiplied by all polynomials in the end."""
    m, lengths = min(stacks[0].shape[1:]), [len(x) for x in stacks]
    square = stacks[0].new_empty(sum(lengths), m, m)
    for x, place in zip(stacks, square.split(lengths)):
        if in_bytes:
            for matrix, one in zip(x, place):
                int8.square(matrix, one)
        else:
            torch.bmm(*((x.mT, x) if _is_tall(x) else (x, x.mT)), out=place)
    whole = factor = polynomial(square, LONG_POLYNOMIALS[0], first=True)
    for coefficients in LONG_POLYNOMIALS[1:]:
        square = torch.bmm(factor, torch.bmm(square, factor))
        factor = polynomial(square, coefficients, first=False)
        whole = torch.bmm(whole, factor)
    return [
        torch.bmm(x, some) if _is_tall(x) else torch.bmm(some, x)
        for x, some in zip(stacks, whole.split(lengths))
    ]


def polynomial(square: Tensor, coefficients: Sequence[float], first: bool) -> Tensor:
    """What a matrix x is multiplied by to become a x + b x^3 + c x^5, and so on.

    Args:
        square: (S, M, M), of x.
        coefficients: an odd number of them, three or more.
        first: whether x is yet to be divided by its length.

    Returns:
        (S, M, M).
    """
    fourth = torch.bmm(square, square)
    scales = inverse_lengths(square, fourth) if first else square.new_empty(0, dtype=torch.float32)
    *others, a, b, c = coefficients
    factor = combine(square, fourth, (a, b, c), scales, whole=not others)
    while others:
        *others, a, b = others
        product = torch.bmm(fourth, factor)
        factor = combine(square, product, (a, b, 1.0), scales, whole=not others)
    return factor


def inverse_lengths(square: Tensor, fourth: Tensor) -> Tensor:
    """One over the eighth root of the sum of the eighth powers of all singular values.

    That is hardly more than the largest of them, 1.00 to 1.07 times as much for momenta, where
    the root of the sum of squares is twice as much; https://arxiv.org/abs/2305.16173.

    Args:
        square, fourth: (S, M, M), of matrices.

    Returns:
        (S,) float32; 0 of a matrix that is 0.
    """
    if calls.serves(square):
        from folio.fast.kernels import training as kernels

        y = square.new_empty(len(square), dtype=torch.float32)
        given = *calls.arrays(square, fourth), np.float32(TINY)
        calls.call(kernels.inverse_lengths, *given, *calls.arrays(y))
        return y
    traces = square.diagonal(dim1=1, dim2=2).float().sum(1)
    even = fourth.float() / (traces**2 + TINY**2)[:, None, None]
    lengths = (traces.square() * torch.linalg.matrix_norm(even)) ** 0.25
    return torch.where(lengths > 0, 1 / lengths, 0)


def combine(
    square: Tensor,
    fourth: Tensor,
    numbers: tuple[float, float, float],
    scales: Tensor,
    whole: bool,
) -> Tensor:
    """a + b x^2 + c x^4, with x^2 and x^4 given.

    Args:
        square, fourth: (S, M, M).
        numbers: a, b and c.
        scales: (S,) x is yet to be multiplied by; or none.
        whole: whether the outcome is to be multiplied by it too.

    Returns:
        (S, M, M).
    """
    if calls.serves(square):
        from folio.fast.kernels import training as kernels

        y = torch.empty_like(fourth)
        arrays = calls.arrays(square, fourth, y, scales)
        calls.call(kernels.combine, *arrays, *(np.float32(x) for x in numbers), whole)
        return y
    a, b, c = numbers
    s = scales[:, None, None] if len(scales) else torch.ones((), device=square.device)
    y = b * square.float() * s**2 + c * fourth.float() * s**4
    y.diagonal(dim1=1, dim2=2).add_(a)
    return (y * s if whole else y).to(square.dtype)


def _is_tall(x: Tensor) -> bool:
    return x.shape[1] > x.shape[2]
