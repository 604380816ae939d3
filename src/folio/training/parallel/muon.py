"""Muon on flat buffers, with the matmuls of many matrices at once.

`optimizers.py` has the rule written to be read. Here matrices of one shape are stacked, since a
small matmul takes longer to start than to compute; each worker updates its own; everything except
matmuls runs in kernels. A matrix that is longer than wide is read only twice: its further gram
matrices follow from the first one, and it is multiplied by all polynomials at the end.

Shapes:  N matrices of one shape, (out, in) each · M the smaller side
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
"""Prevents division by 0."""

RANGE = (2.0**-12, 2.0**10)
"""Range of the largest number of a matrix in which its fourth powers, and their squares, fit
float32."""

MAX_BYTES = 20_000_000
"""Largest memory of a captured step. In a larger one the time between operations matters little."""


@dataclass(frozen=True)
class Stack:
    """Consecutive matrices of one shape, as views of the flat buffers."""

    weights: Tensor
    """(N, out, in) master weights."""
    gradients: Tensor
    momenta: Tensor
    mean_squares: Tensor
    """(N, out, 1) mean squared update of each neuron."""
    compute: Tensor
    """(N, out, in) compute weights; empty if the master weights are used."""


Job = list[list[Stack]]
"""The stacks that a worker updates at once, by shape. All are square, or all have the same smaller
side."""


class ShardedMuon:
    """`Muon` for the matrices between hidden layers, each updated by one worker."""

    def __init__(
        self,
        parameter: nn.Parameter,
        members: Members,
        config: OptimizerConfig,
        parallel: DataParallel,
    ) -> None:
        """Assign matrices to workers.

        Args:
            parameter: (n,) master weights and gradients, in memory that all workers see.
            members: the matrices in it.
            config: learning rate, momentum and decay.
            parallel: the workers, and the precision of their device.
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
        jobs = [_jobs(buffers, shapes, r) for r in parallel.replicas]
        self._updates = [
            CapturedStep(partial(update_matrices, own, config, *precision), MAX_BYTES)
            for own in jobs
        ]
        self._updated = [
            [s.weights for job in own for stacks in job for s in stacks] for own in jobs
        ]

    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Update the worker's matrices."""
        lr = lr_scale * self.config.matrix_learning_rate
        numbers = gradient_scale, lr, lr * self.config.matrix_weight_decay
        self._updates[replica.rank](torch.tensor(numbers, dtype=torch.float32))

    def updated_by(self, replica: Replica) -> list[Tensor]:
        """Return the worker's matrices."""
        return self._updated[replica.rank]


def _jobs(buffers: Sequence[Tensor], shapes: list[tuple[int, int]], replica: Replica) -> list[Job]:
    """Select an equal share of the matrices of each shape for a worker.

    Args:
        buffers: weights, gradients and momenta; mean squares of neurons; compute weights.
        shapes: shapes of all matrices, in the order of the buffers.
        replica: the worker's replica.
    """
    weights, gradients, momenta, mean_squares, compute = buffers
    starts = list(accumulate((r * c for r, c in shapes), initial=0))
    neurons = list(accumulate((r for r, _ in shapes), initial=0))
    jobs: dict[tuple[int, bool], Job] = defaultdict(list)
    for shape in dict.fromkeys(shapes):
        same = [i for i, other in enumerate(shapes) if other == shape]
        own = same[shard(len(same), replica.rank, replica.world_size)]
        stacks: list[Stack] = []
        # Adjacent matrices have consecutive numbers in the list.
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
    """Update some matrices.

    Args:
        jobs: the matrices.
        config: momentum, decay rates and the like.
        dtype: dtype of the matmuls.
        in_int8: whether gram matrices may be computed in int8.
        numbers: (3,) the scale of the gradients, the learning rate, and the learning rate times the
            decay.

    Returns:
        The numbers, since a captured step must return something.
    """
    for job in jobs:
        ahead = [nesterov(stacks, config.matrix_momentum, dtype, numbers) for stacks in job]
        for stacks, updates in zip(job, orthogonalize(ahead, in_int8)):
            for stack, own in zip(stacks, torch.split(updates, [len(s.weights) for s in stacks])):
                apply_update(stack, own, config, numbers)
    return numbers


def nesterov(stacks: list[Stack], momentum: float, dtype: torch.dtype, numbers: Tensor) -> Tensor:
    """Update the momenta.

    Args:
        stacks: stacks of one shape.
        momentum: decay of the momentum.
        dtype, numbers: as for `update_matrices`.

    Returns:
        (N, out, in), Nesterov momenta.
    """
    lengths = [len(stack.weights) for stack in stacks]
    first = stacks[0].weights
    ahead = first.new_empty(sum(lengths), *first.shape[1:], dtype=dtype)
    for stack, out in zip(stacks, torch.split(ahead, lengths)):
        arrays = calls.arrays(stack.gradients, stack.momenta, out, numbers)
        calls.call(kernels.nesterov, *arrays, np.float32(momentum), np.float32(1 - momentum))
    return ahead


def apply_update(stack: Stack, updates: Tensor, config: OptimizerConfig, numbers: Tensor) -> None:
    """Subtract the updates, with rows scaled evenly, and the decay.

    Args:
        stack: its weights are updated; its gradients become the old weights.
        updates: (N, out, in), close to orthogonal.
        config: whether rows are scaled evenly and decay is cautious.
        numbers: as for `update_matrices`.
    """
    rows, columns = stack.weights.shape[1:]
    taller = max(1.0, rows / columns) ** 0.5
    arrays = calls.arrays(
        stack.weights, stack.gradients, updates, stack.mean_squares, stack.compute, numbers
    )
    beta2 = config.matrix_beta2
    factors = map(np.float32, (taller, beta2, 1 - beta2))
    settings = *factors, config.cautious_decay, np.float32(EPSILON)
    calls.call(kernels.apply_update, *arrays, *settings)


def orthogonalize(stacks: list[Tensor], in_int8: bool = False) -> list[Tensor]:
    """Bring singular values to about 1.

    A polynomial of a matrix is the matrix times one of its gram matrix, which is M x M.

    Args:
        stacks: (N, out, in) each, with the same smaller side M; all square or none. Any scale:
            matrices outside RANGE are rescaled in place.
        in_int8: whether the gram matrices of long ones are computed in int8: fast/int8.py.
    """
    for x in stacks:
        bring_into_range(x)
    if stacks[0].shape[1] == stacks[0].shape[2]:
        return [_orthogonalize_square(x) for x in stacks]
    return _orthogonalize_long(stacks, in_int8)


def bring_into_range(x: Tensor) -> None:
    """Multiply matrices whose largest number is outside RANGE by powers of two, in place, which
    keeps their directions exactly.

    Without it, momenta of 1e-9 came out as NaN, since float32 cannot hold their eighth powers.

    Args:
        x: (N, out, in). A matrix of denormal numbers only, which other operations treat as 0,
            becomes 0.
    """
    calls.call(kernels.bring_into_range, *calls.arrays(x), *map(np.float32, RANGE))


def _orthogonalize_square(x: Tensor) -> Tensor:
    """(N, M, M) -> the same shape; all matmuls are equally cheap."""
    for i, coefficients in enumerate(SQUARE_POLYNOMIALS):
        x = torch.bmm(polynomial(torch.bmm(x, x.mT), coefficients, is_first=i == 0), x)
    return x


def _orthogonalize_long(stacks: list[Tensor], in_int8: bool) -> list[Tensor]:
    """(N, out, in) each -> the same shapes."""
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
    """Compute the factor that turns a matrix x into a x + b x^3 + c x^5, and so on.

    Args:
        gram: (N, M, M), the gram matrix of x.
        coefficients: an odd number of them, three or more.
        is_first: whether x must still be divided by its norm.

    Returns:
        (N, M, M).
    """
    gram_squared = torch.bmm(gram, gram)
    none = gram.new_empty(0, dtype=torch.float32)
    scales = inverse_norms(gram, gram_squared) if is_first else none
    *others, a, b, c = coefficients
    factor = combine(gram, gram_squared, (a, b, c), scales, is_last=not others)
    while others:
        *others, a, b = others
        product = torch.bmm(gram_squared, factor)
        factor = combine(gram, product, (a, b, 1.0), scales, is_last=not others)
    return factor


def inverse_norms(gram: Tensor, gram_squared: Tensor) -> Tensor:
    """Compute one over `optimizers.largest_singular_value` of matrices.

    Args:
        gram, gram_squared: (N, M, M), gram matrix and its square.

    Returns:
        (N,) float32; 0 for a matrix of zeros.
    """
    y = gram.new_empty(len(gram), dtype=torch.float32)
    given = *calls.arrays(gram, gram_squared), np.float32(TINY)
    calls.call(kernels.inverse_norms, *given, *calls.arrays(y))
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
        gram, gram_squared: (N, M, M).
        numbers: a, b and c.
        scales: (N,) factors by which x must still be multiplied; or empty.
        is_last: whether the result is multiplied by them, too.

    Returns:
        (N, M, M).
    """
    y = torch.empty_like(gram_squared)
    arrays = calls.arrays(gram, gram_squared, y, scales)
    calls.call(kernels.combine, *arrays, *(np.float32(x) for x in numbers), is_last)
    return y


def _is_tall(x: Tensor) -> bool:
    return x.shape[1] > x.shape[2]
