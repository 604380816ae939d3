"""Which process updates which weights, where several divide the work of an optimizer.

How far the work can be divided follows from the rule: AdamW and SGD move each weight by itself, and
Muon each parameter, since it needs whole matrices. What another rule looks at, nobody knows, so one
process moves all that it is for:

    parameters of a group    |    a    |    b    |  c  |     three processes
    weight by weight         |0 0 0 0 1|1 1 1 2 2|2 2 2|     as many weights for each
    parameter by parameter   |0 0 0 0 0|1 1 1 1 1|2 2 2|     about as much work for each
    a rule of one's own      |1 1 1 1 1|1 1 1 1 1|1 1 1|     the next group is another one's
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor

from folio.fast.written_for import is_as_written
from folio.training import optimizers
from folio.training.groups import Members
from folio.training.optimizers import SGD, AdamW, Muon, Rule

VECTOR = 64
"""Cuts are at multiples of so many weights, so that vectors of a processor hold the same ones as
without cuts, in case it rounds the last ones, which fill none, in another way; AVX2 does not."""

UNITS: dict[type[Rule], Literal["weight", "parameter"]] = {
    AdamW: "weight",
    SGD: "weight",
    Muon: "parameter",
}
"""What each rule moves by itself; any other one moves a whole group."""


class Shard(NamedTuple):
    """Part of a parameter: its weights from `start` to before `stop`, as they lie in memory."""

    parameter: int
    """Its number in the group."""
    start: int
    stop: int


Shards = list[list[Shard]]
"""For each process the shards that it updates, in the order of their parameters."""


def divide(
    kind: type[Rule],
    members: Members,
    world_size: int,
    turn: int,
    evenly: Callable[[Sequence[Tensor], int], Shards],
) -> Shards:
    """Divide the parameters of a group among processes.

    Args:
        kind: the rule of the group.
        members: the group.
        world_size: number of processes.
        turn: number of the group, so that not all wholes go to the same process.
        evenly: divides parameters where each weight is moved by itself.
    """
    sizes = [p.numel() for p in members.parameters]
    unit = UNITS.get(kind) if is_as_written(optimizers) else None
    if unit == "weight":
        return evenly(members.parameters, world_size)
    if unit == "parameter":
        return share_out(sizes, [_matmul_work(*x) for x in zip(sizes, members.heights)], world_size)
    shards: Shards = [[] for _ in range(world_size)]
    shards[turn % world_size] = [Shard(i, 0, size) for i, size in enumerate(sizes)]
    return shards


def cut_evenly(parameters: Sequence[Tensor], world_size: int) -> Shards:
    """Give each process as many weights of some parameters, but for `VECTOR`."""
    sizes = [p.numel() for p in parameters]
    shards: Shards = [[] for _ in range(world_size)]
    first = 0
    for i, size in enumerate(sizes):
        ends = (sum(sizes) * rank // world_size - first for rank in range(world_size + 1))
        cuts = [size if end >= size else max(end - end % VECTOR, 0) for end in ends]
        for own, (start, stop) in zip(shards, pairwise(cuts)):
            if start < stop:
                own.append(Shard(i, start, stop))
        first += size
    return shards


def share_out(sizes: Sequence[int], work: Sequence[int], world_size: int) -> Shards:
    """Give whole parameters to processes: the next largest to the one that has least to do.

    >>> share_out([2, 2, 2], [9, 5, 4], 2)
    [[Shard(parameter=0, start=0, stop=2)], [Shard(parameter=1, start=0, stop=2), \
Shard(parameter=2, start=0, stop=2)]]
    """
    shards: Shards = [[] for _ in range(world_size)]
    load = [0] * world_size
    for i in sorted(range(len(sizes)), key=lambda i: -work[i]):
        rank = load.index(min(load))
        load[rank] += work[i]
        shards[rank].append(Shard(i, 0, sizes[i]))
    return [sorted(own) for own in shards]


def _matmul_work(size: int, heights: Sequence[int]) -> int:
    """Multiplications to orthogonalize the matrices of a parameter, up to a factor."""
    columns = size // sum(heights)
    return sum(rows * columns * min(rows, columns) for rows in heights)
