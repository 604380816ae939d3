"""Muon for flat buffers: the products of many matrices at once.

`optimizers.py` has the rule as it is read. Here matrices of one shape are stacked, since a product
of small ones takes longer to begin than to make; each worker moves its own; what is not a product
is a kernel. A matrix that is longer than wide is read twice only: its next gram matrices follow
from the first one, and it is multiplied by all polynomials in the end.

Shapes:  R x C a matrix · M the smaller side · S matrices of one shape
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
from folio.fast.kernels import training as kernels
from folio.training.config import OptimizerConfig
from folio.training.groups import Members
from folio.training.optimizers import EPSILON, LONG_POLYNOMIALS, SQUARE_POLYNOMIALS
from folio.training.parallel.capture import CapturedStep
from folio.training.parallel.data_parallel import DataParallel, Replica, shard
from folio.workers import shared_buffer

TINY = 1e-14
"""So that nothing is divided by 0."""

RANGE = (2.0**-12, 2.0**10)
"""Within which the largest number of a matrix may lie, so that neither its fourth powers, nor the
squares of those, leave what float32 has."""

MAX_BYTES = 20_000_000
"""Of the memory of a captured step. Where one takes more, what comes between its operations is
little."""


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape that lie one after the other: views of the flat buffers."""

    weights: Tensor
    """(S, R, C)"""
    gradients: Tensor
    momenta: Tensor
    mean_squares: Tensor
    """(S, R, 1) of the orthogonal updates of each neuron."""
    compute: Tensor
    """(S, R, C) the compute weights; or nothing."""


Job = list[list[Stack]]
"""What a worker does at once: for each shape its stacks. All are square, or all have the same
smaller side."""


class ShardedMuon:
    """`Muon` for the matrices between hidden layers, each moved by one worker."""

    def __init__(
        self,
        parameter: nn.Parameter,
        members: Members,
        config: OptimizerConfig,
        parallel: DataParallel,
    ) -> None:
        """Give each worker its matrices.

        Args:
            parameter: (N,) master weights and gradients, in memory that all workers see.
            members: that lie in it.
            config: rate, momentum and decay.
            parallel: whose workers share the work, in the precision of their device.
        """
        self.config = config
        rows = zip(members.parameters, members.heights)
        shapes = [(height, p.shape[1]) for p, heights in rows for height in heights]
        momentum = shared_buffer(len(parameter), torch.float32)
        mean_square = shared_buffer(sum(rows for rows, _ in shapes), torch.float32)
        self.tensors = {"momentum": momentum, "mean_square": mean_square}
        assert parameter.grad is not None
        compute = parallel.parameters.compute_weights_of(parameter.data)
        buffers = parameter.data, parameter.grad, momentum, mean_square, compute
        device = parallel.device
        precision = device.dtype, device.config.precision == "int8"
        self._updates = [
            CapturedStep(
                partial(update_matrices, _jobs(buffers, shapes, r), config, *precision), MAX_BYTES
            )
            for r in parallel.replicas
        ]

    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Move the worker's matrices."""
        lr = lr_scale * self.config.matrix_learning_rate
        numbers = gradient_scale, lr, lr * self.config.matrix_weight_decay
        self._updates[replica.rank](torch.tensor(numbers, dtype=torch.float32))


def _jobs(buffers: Sequence[Tensor], shapes: list[tuple[int, int]], replica: Replica) -> list[Job]:
    """Give a worker an equal share of the matrices of each shape.

    Args:
        buffers: weights, gradients and momenta; mean squares of neurons; compute weights.
        shapes: of all matrices, in the order in which they lie there.
        replica: of the worker.
    """
    weights, gradients, momenta, mean_squares, compute = buffers
    starts = list(accumulate((r * c for r, c in shapes), initial=0))
    neurons = list(accumulate((r for r, _ in shapes), initial=0))
    jobs: dict[tuple[int, bool], Job] = defaultdict(list)
    for shape in dict.fromkeys(shapes):
        same = [i for i, other in enumerate(shapes) if other == shape]
        own = same[shard(len(same), replica.rank, replica.world_size)]
        stacks: list[Stack] = []
        # What lies side by side has numbers that rise as fast as their positions in the list.
        for _, run in groupby(enumerate(own), key=lambda pair: pair[1] - pair[0]):
            stacked = [i for _, i in run]
            n, first, end = len(stacked), stacked[0], stacked[-1] + 1
            span = slice(starts[first], starts[end])
            stacks.append(
                Stack(
                    weights=weights[span].view(n, *shape),
                    gradients=gradients[span].view(n, *shape),
                    momenta=momenta[span].view(n, *shape),
                    mean_squares=mean_squares[neurons[first] : neurons[end]].view(n, -1, 1),
                    compute=compute[span].view(n if len(compute) else 0, *shape),
                )
            )
        if stacks:
            jobs[min(shape), shape[0] == shape[1]].append(stacks)
    return list(jobs.values())


def update_matrices(
    jobs: list[Job],
    config: OptimizerConfig,
    dtype: torch.dtype,
    in_int8: bool,
    numbers: Tensor,
) -> Tensor:
    """Take a step of some matrices.

    Args:
        jobs: which.
        config: how much is kept of what.
        dtype: of the products.
        in_int8: whether gram matrices may be products of int8.
        numbers: (3,) the scale of the gradients, the rate, and that times the decay.

    Returns:
        The numbers, since a captured step must have an outcome.
    """
    for job in jobs:
        ahead = [nesterov(stacks, config.matrix_momentum, dtype, numbers) for stacks in job]
        for stacks, updates in zip(job, orthogonalize(ahead, in_int8)):
            for stack, own in zip(stacks, torch.split(updates, [len(s.weights) for s in stacks])):
                apply_update(stack, own, config, numbers)
    return numbers


def nesterov(stacks: list[Stack], momentum: float, dtype: torch.dtype, numbers: Tensor) -> Tensor:
    """Let the momenta learn from the gradients.

    Args:
        stacks: of one shape.
        momentum: how much of it is kept.
        dtype, numbers: as for `update_matrices`.

    Returns:
        (S, R, C), the next momenta as Nesterov looks at them.
    """
    lengths = [len(stack.weights) for stack in stacks]
    first = stacks[0].weights
    ahead = first.new_empty(sum(lengths), *first.shape[1:], dtype=dtype)
    for stack, out in zip(stacks, torch.split(ahead, lengths)):
        arrays = calls.arrays(stack.gradients, stack.momenta, out, numbers)
        calls.call(kernels.nesterov, *arrays, np.float32(momentum))
    return ahead


def apply_update(stack: Stack, updates: Tensor, config: OptimizerConfig, numbers: Tensor) -> None:
    """Subtract updates whose rows are made even, and what decays.

    Args:
        stack: whose weights change; its gradients become the weights as they were.
        updates: (S, R, C), close to orthogonal.
        config: whether rows are made even and decay is cautious.
        numbers: as for `update_matrices`.
    """
    rows, columns = stack.weights.shape[1:]
    taller = max(1.0, rows / columns) ** 0.5
    arrays = calls.arrays(
        stack.weights, stack.gradients, updates, stack.mean_squares, stack.compute, numbers
    )
    settings = np.float32(config.matrix_beta2), config.cautious_decay
    calls.call(kernels.apply_update, *arrays, np.float32(taller), *settings, np.float32(EPSILON))


def orthogonalize(stacks: list[Tensor], in_int8: bool = False) -> list[Tensor]:
    """Bring singular values to about 1.

    A polynomial of a matrix is the matrix times one of its gram matrix, which is M x M.

    Args:
        stacks: (S, R, C) each, of one smaller side M; all square or none. Of any scale: what lies
            outside of RANGE is changed in place.
        in_int8: whether the gram matrices of long ones are products of int8: fast/int8.py.
    """
    for x in stacks:
        bring_into_range(x)
    if stacks[0].shape[1] == stacks[0].shape[2]:
        return [_orthogonalize_square(x) for x in stacks]
    return _orthogonalize_long(stacks, in_int8)


def bring_into_range(x: Tensor) -> None:
    """Multiply matrices whose largest number is outside of RANGE by powers of two, in place, which
    leaves their directions exactly as they are.

    Without it, momenta of 1e-9 came out as NaN, since their eighth powers are no float32.

    Args:
        x: (S, R, C). A matrix of denormal numbers only, which other operations take for 0, becomes
            that.
    """
    calls.call(kernels.bring_into_range, *calls.arrays(x), *map(np.float32, RANGE))


def _orthogonalize_square(x: Tensor) -> Tensor:
    """(S, M, M) -> the same; all products are equally cheap."""
    for i, coefficients in enumerate(SQUARE_POLYNOMIALS):
        x = torch.bmm(polynomial(torch.bmm(x, x.mT), coefficients, is_first=i == 0), x)
    return x


def _orthogonalize_long(stacks: list[Tensor], in_int8: bool) -> list[Tensor]:
    """(S, R, C) each -> the same."""
    m, lengths = min(stacks[0].shape[1:]), [len(x) for x in stacks]
    gram = stacks[0].new_empty(sum(lengths), m, m)
    for x, out in zip(stacks, torch.split(gram, lengths)):
        if in_int8:
            for matrix, own in zip(x, out):
                int8.square(matrix, own)
        else:
            torch.bmm(*((x.mT, x) if _is_tall(x) else (x, x.mT)), out=out)
    product = factor = polynomial(gram, LONG_POLYNOMIALS[0], is_first=True)
    for coefficients in LONG_POLYNOMIALS[1:]:
        gram = torch.bmm(factor, torch.bmm(gram, factor))
        factor = polynomial(gram, coefficients, is_first=False)
        product = torch.bmm(product, factor)
    return [
        torch.bmm(x, own) if _is_tall(x) else torch.bmm(own, x)
        for x, own in zip(stacks, torch.split(product, lengths))
    ]


def polynomial(gram: Tensor, coefficients: Sequence[float], is_first: bool) -> Tensor:
    """Compute what a matrix x is multiplied by to become a x + b x^3 + c x^5, and so on.

    Args:
        gram: (S, M, M), of x.
        coefficients: an odd number of them, three or more.
        is_first: whether x is yet to be divided by its length.

    Returns:
        (S, M, M).
    """
    gram_squared = torch.bmm(gram, gram)
    none = gram.new_empty(0, dtype=torch.float32)
    scales = inverse_lengths(gram, gram_squared) if is_first else none
    *others, a, b, c = coefficients
    factor = combine(gram, gram_squared, (a, b, c), scales, is_last=not others)
    while others:
        *others, a, b = others
        product = torch.bmm(gram_squared, factor)
        factor = combine(gram, product, (a, b, 1.0), scales, is_last=not others)
    return factor


def inverse_lengths(gram: Tensor, gram_squared: Tensor) -> Tensor:
    """Compute one over `optimizers.largest_singular_value` of matrices.

    Args:
        gram, gram_squared: (S, M, M), of the matrices.

    Returns:
        (S,) float32; 0 of a matrix that is 0.
    """
    y = gram.new_empty(len(gram), dtype=torch.float32)
    given = *calls.arrays(gram, gram_squared), np.float32(TINY)
    calls.call(kernels.inverse_lengths, *given, *calls.arrays(y))
    return y


def combine(
    gram: Tensor,
    gram_squared: Tensor,
    numbers: tuple[float, float, float],
    scales: Tensor,
    is_last: bool,
) -> Tensor:
    """Compute a + b s + c s^2, with s and s^2 given.

    Args:
        gram, gram_squared: (S, M, M).
        numbers: a, b and c.
        scales: (S,) x is yet to be multiplied by; or none.
        is_last: whether the outcome is to be multiplied by it too.

    Returns:
        (S, M, M).
    """
    y = torch.empty_like(gram_squared)
    arrays = calls.arrays(gram, gram_squared, y, scales)
    calls.call(kernels.combine, *arrays, *(np.float32(x) for x in numbers), is_last)
    return y


def _is_tall(x: Tensor) -> bool:
    return x.shape[1] > x.shape[2]
