"""The weights of a model of which each process has some rows (FSDP2), as an optimizer needs them.

AdamW and SGD move each weight by itself, so each process moves the rows that it has. Muon moves
whole matrices: a gradient comes to the process that owns the matrix, which goes back in rows.

    rank 0           rank 1                        rank 0           rank 1
    ------           ------                        ------           ------
    g0 of a, b       g1 of a, b    all-to-all      g0, g1 of a      g0, g1 of b      gradients
                                   ---------->     move a           move b
    w0 of a, b       w1 of a, b    <----------     w0, w1 of a      w0, w1 of b      weights

Shapes:  R rows of a parameter, of which a process has ceil(R / world_size), or what is left
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from folio.training.distributed import Processes
from folio.training.gradients import gradient_of
from folio.training.shards import Shard, Shards


def rows_of(shape: torch.Size, rank: int, world_size: int) -> tuple[int, int]:
    """The numbers of a tensor that a process has: from the first to before the last, as they lie in
    memory.

    >>> [rows_of(torch.Size([5, 10]), rank, 3) for rank in range(3)]
    [(0, 20), (20, 40), (40, 50)]
    """
    each = -(-shape[0] // world_size)
    first, last = (min(rows, shape[0]) for rows in (each * rank, each * (rank + 1)))
    width = shape.numel() // shape[0]
    return first * width, last * width


@torch.no_grad()
def own_rows(tensor: Tensor) -> Tensor:
    """The rows that this process has of a divided tensor; they may be written to."""
    return cast(Any, tensor).to_local().detach()


class Rows:
    """The Exchange of processes that have some rows of each parameter."""

    def __init__(self, group: Processes, device: torch.device) -> None:
        self.group, self.nothing = group, torch.zeros(0, device=device)
        self.local: list[tuple[nn.Parameter, Tensor]] = []
        """Parameters of which this process moves its rows, with these."""
        self.whole: list[list[tuple[nn.Parameter, Tensor]]] = [[] for _ in range(group.world_size)]
        """For each process the parameters that it moves as a whole, with all their weights there,
        and none elsewhere."""

    def evenly(self, parameters: Sequence[Tensor], world_size: int) -> Shards:
        of_each = [self._spans(parameters, rank) for rank in range(world_size)]
        return [[Shard(i, *ends) for i, ends in enumerate(x) if ends[0] < ends[1]] for x in of_each]

    def place(self, parameter: nn.Parameter, shard: Shard, owner: int) -> Tensor:
        is_own, (ends,) = owner == self.group.rank, self._spans([parameter], owner)
        if (shard.start, shard.stop) == ends:
            weights = own_rows(parameter)
            if is_own:
                self.local.append((parameter, weights))
            return weights
        weights = torch.zeros(parameter.shape if is_own else (0,), device=parameter.device)
        weights.grad = torch.zeros_like(weights)
        self.whole[owner].append((parameter, weights))
        return weights

    def refresh(self) -> None:
        """Have owners take over the rows of others, where somebody has changed these."""
        self._collect(lambda parameter: parameter, lambda weights: weights)

    def fetch(self) -> None:
        for parameter, weights in self.local:
            weights.data = own_rows(parameter)  # FSDP may have put them elsewhere
            weights.grad = own_rows(gradient_of(parameter))
        self._collect(gradient_of, gradient_of)

    def _collect(
        self, given: Callable[[nn.Parameter], Tensor], into: Callable[[Tensor], Tensor]
    ) -> None:
        """Put together the rows of the parameters that are moved as a whole, at their owners.

        Args:
            given: a parameter -> the tensor whose rows are sent.
            into: its weights at the owner -> the tensor that gets them.
        """
        if not any(self.whole):
            return
        parts = [self._flat(own_rows(given(p)) for p, _ in owned) for owned in self.whole]
        owned = self.whole[self.group.rank]
        spans = [self._spans([p for p, _ in owned], rank) for rank in range(self.group.world_size)]
        came = self.group.all_to_all(parts, [sum(map(_length, ends)) for ends in spans])
        for ends_of_all, rows_of_all in zip(spans, came):
            pieces = torch.split(rows_of_all, [*map(_length, ends_of_all)])
            for (_, weights), (start, stop), rows in zip(owned, ends_of_all, pieces):
                into(weights).view(-1)[start:stop] = rows

    def send(self) -> None:
        if not any(self.whole):
            return
        owned, parts = self.whole[self.group.rank], list[Tensor]()
        for rank in range(self.group.world_size):
            spans = self._spans([p for p, _ in owned], rank)
            parts.append(self._flat(w.view(-1)[slice(*ends)] for (_, w), ends in zip(owned, spans)))
        mine = [[own_rows(p).view(-1) for p, _ in placed] for placed in self.whole]
        came = self.group.all_to_all(parts, [sum(map(len, rows)) for rows in mine])
        for rows_of_all, values in zip(mine, came):
            for rows, moved in zip(rows_of_all, torch.split(values, [*map(len, rows_of_all)])):
                rows.copy_(moved)

    def _flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """(n,) some tensors one after the other; n may be 0."""
        return torch.cat([self.nothing, *(x.reshape(-1) for x in tensors)])

    def _spans(self, parameters: Sequence[Tensor], rank: int) -> list[tuple[int, int]]:
        return [rows_of(p.shape, rank, self.group.world_size) for p in parameters]


def _length(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0]
