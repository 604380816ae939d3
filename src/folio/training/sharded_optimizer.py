"""An optimizer whose state processes divide: each has that of the weights it updates (ZeRO).

    rank 0                              rank 1
    ------                              ------
    gradients of all weights            gradients of all weights       (distributed.py)
    state of shards a, c                state of shards b, d
    update a, c                         update b, d
    =============== is everything finite? (one number is added up) ==================
    =============== broadcast of a, c by rank 0; of b, d by rank 1 ==================
    weights a, b, c, d                  weights a, b, c, d

Each shard is updated by the same rule from the same gradient as in one process, so no bit of a
weight depends on how many there are. `Replicated` is for models that each process has whole;
`fsdp_rows.py` for those that are divided, too.

Source: Rajbhandari et al. 2019, https://arxiv.org/abs/1910.02054 (stage 1).
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from folio.training.config import OptimizerConfig
from folio.training.distributed import Processes
from folio.training.gradients import gradient_of, total_norm
from folio.training.groups import Members
from folio.training.optimizers import Optimizer, Rule, assign_rules, flatten
from folio.training.shards import Shard, Shards, cut_evenly, divide
from folio.training.state import require_same_tensors


class Exchange(Protocol):
    """Brings gradients to the process that updates a shard, and weights from there."""

    def evenly(self, parameters: Sequence[Tensor], world_size: int) -> Shards:
        """Divide parameters of which each weight is moved by itself."""
        ...

    def place(self, parameter: nn.Parameter, shard: Shard, owner: int) -> Tensor:
        """Note who updates a shard; returns its weights, whose values count for the owner only: in
        the parameter's shape where they are all, else (n,).
        """
        ...

    def fetch(self) -> None:
        """Set the gradient of each own shard."""

    def send(self) -> None:
        """Have all processes take over the weights of each other's shards."""


class Replicated:
    """The Exchange of processes each of which has all weights and gradients."""

    def __init__(self, group: Processes) -> None:
        self.group = group
        self.placed: list[list[tuple[nn.Parameter, Shard, Tensor]]] = [
            [] for _ in range(group.world_size)
        ]
        """For each process the shards that it updates, with their weights."""

    def evenly(self, parameters: Sequence[Tensor], world_size: int) -> Shards:
        return cut_evenly(parameters, world_size)

    def place(self, parameter: nn.Parameter, shard: Shard, owner: int) -> Tensor:
        weights = part_of(parameter.detach(), shard)
        self.placed[owner].append((parameter, shard, weights))
        return weights

    def fetch(self) -> None:
        for parameter, shard, weights in self.placed[self.group.rank]:
            weights.grad = part_of(gradient_of(parameter), shard)

    def send(self) -> None:
        for owner, placed in enumerate(self.placed):
            if not placed:
                continue
            weights = [tensor.view(-1) for _, _, tensor in placed]
            together = torch.cat(weights)
            self.group.broadcast(together, owner)
            if owner != self.group.rank:
                for own, values in zip(
                    weights, torch.split(together, [x.numel() for x in weights])
                ):
                    own.copy_(values)


def part_of(tensor: Tensor, shard: Shard) -> Tensor:
    """A view of the numbers of a shard: (n,), or the whole tensor in its shape."""
    if shard.stop - shard.start == tensor.numel():
        return tensor
    return tensor.view(-1)[shard.start : shard.stop]


class Piece(NamedTuple):
    """Numbers of a flat tensor of the state that one process has."""

    owner: int
    start: int
    size: int


class ShardedOptimizer:
    """An optimizer whose state processes divide: each updates a part of the parameters."""

    def __init__(
        self,
        config: OptimizerConfig,
        model: nn.Module,
        group: Processes,
        exchange: Exchange,
        whole: nn.Module | None = None,
    ) -> None:
        """Divide the parameters of a model, and make the state of the own ones.

        Args:
            config: the rules and their settings.
            model: the model in float32.
            group: the processes that divide it; all have the same model.
            exchange: says where weights and gradients are.
            whole: the same model where `model` is divided itself.
        """
        self.config, self.group, self.exchange = config, group, exchange
        self.model = model if whole is None else whole
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.rules: list[Rule] = []
        self.state: dict[str, Tensor] = {}
        """State of the own shards by name, such as `hidden.mean`; each flat."""
        self._shapes: dict[str, Tensor] = {}
        """The state of the whole model, as tensors without values."""
        self._pieces: dict[str, list[Piece]] = {}
        self._gathered: dict[str, Tensor] | None = None
        for turn, (name, kind, members) in enumerate(assign_rules(config, model)):
            shards = divide(kind, members, group.world_size, turn, exchange.evenly)
            self._lay_out(name, kind, members, shards)
            own = self._place(members, shards)
            if own.parameters:
                rule = kind(own, config)
                self.rules.append(rule)
                self.state |= {f"{name}.{key}": x for key, x in flatten(rule.state).items()}
        counts = [x for x in self.state.values() if x.dim() == 0]
        self._changing = [x for rule in self.rules for x in rule.parameters] + counts
        self._before = [x.clone() for x in self._changing]

    def _place(self, members: Members, shards: Shards) -> Members:
        """The own shards of a group, as a rule takes its members."""
        weights, heights = list[nn.Parameter](), list[tuple[int, ...]]()
        for owner, placed in enumerate(shards):
            for shard in placed:
                tensor = self.exchange.place(members.parameters[shard.parameter], shard, owner)
                if owner == self.group.rank:
                    weights.append(cast(nn.Parameter, tensor))  # without autograd, as it is updated
                    of_whole = members.heights[shard.parameter]
                    n_rows = tensor.shape[0] if tensor.dim() else 1
                    heights.append(of_whole if sum(of_whole) == n_rows else (n_rows,))
        return Members(weights, heights, members.weight_decay)

    def _lay_out(self, name: str, kind: type[Rule], members: Members, shards: Shards) -> None:
        """Note which process has which numbers of the state of a group."""
        empty = [torch.empty(p.shape, device="meta") for p in members.parameters]
        state = kind(members._replace(parameters=empty), self.config).state
        sizes = {key: [x.numel() for x in tensors] for key, tensors in state.items()}
        owners = [rank for rank, placed in enumerate(shards) if placed]
        for key, whole in flatten(state).items():
            firsts = [0, *accumulate(sizes[key])]
            pieces = [Piece(owners[0], 0, whole.numel())]
            if whole.dim() and len(owners) > 1:
                pieces = [
                    Piece(owner, firsts[i] + start, stop - start)
                    if stop - start < empty[i].numel()
                    else Piece(owner, firsts[i], sizes[key][i])
                    for owner, placed in enumerate(shards)
                    for i, start, stop in placed
                ]
            self._shapes[f"{name}.{key}"] = whole
            self._pieces[f"{name}.{key}"] = pieces

    def step(self, lr_scale: float) -> None:
        """Update all parameters by their gradients: each process its shards.

        Args:
            lr_scale: factor on the peak learning rates.

        Raises:
            FloatingPointError: in all processes, where a weight of any of them would be NaN, or its
                square infinite. All weights are then those before the step, and the state is
                finite.
            WorkerError: a process died or hung; weights may be of either step.
        """
        self.exchange.fetch()
        square = torch.zeros((), device=self.parameters[0].device)
        with torch.no_grad():
            if self._changing:
                torch._foreach_copy_(self._before, self._changing)
                for rule in self.rules:
                    rule.step(lr_scale)
                square += total_norm(self._changing).square()
            self.group.all_reduce(square)
            if square.isfinite():
                self.exchange.send()
                return
        for x, old in zip(self._changing, self._before):
            x.copy_(old)
        for x in self.state.values():
            x.nan_to_num_(0.0, 0.0, 0.0)
        raise FloatingPointError("a step makes weights that are not finite")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state of the whole model by name, as Optimizer has it: in the first process while it
        is `gathered`, and in any before training begins.
        """
        if self._gathered is not None:
            return self._gathered
        return Optimizer(self.config, copy.deepcopy(self.model).cpu()).tensors

    @contextmanager
    def gathered(self) -> Generator[None]:
        """Put the state of all processes together in the main memory of the first one, tensor by
        tensor; all must come here at the same time.

        Raises:
            WorkerError: a process died or hung before it came here.
        """
        self._gathered = {name: x for name in self._shapes if (x := self._whole(name)) is not None}
        try:
            yield
        finally:
            self._gathered = None

    def _whole(self, name: str) -> Tensor | None:
        """One tensor of the state in the first process, None in the others."""
        rank, shape = self.group.rank, self._shapes[name]
        whole = torch.empty(shape.shape, dtype=shape.dtype) if rank == 0 else None
        for owner in range(self.group.world_size):
            pieces = [piece for piece in self._pieces[name] if piece.owner == owner]
            if not pieces or rank not in (0, owner):
                continue
            sizes = [piece.size for piece in pieces]
            if owner == rank:
                values = self.state[name].cpu().view(-1)
            else:
                values = torch.empty(sum(sizes), dtype=shape.dtype)
            if owner:
                self.group.send(values, owner, 0)
            if whole is not None:
                for piece, part in zip(pieces, torch.split(values, sizes)):
                    whole.view(-1)[piece.start : piece.start + piece.size] = part
        return whole

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the own part of what `tensors` gave, in this or another optimizer.

        Raises:
            UserError: names or shapes differ from this optimizer's.
        """
        require_same_tensors(self._shapes, tensors, "optimizer")
        for name, own in self.state.items():
            if own.dim() == 0:
                own.copy_(tensors[name])
                continue
            pieces = [piece for piece in self._pieces[name] if piece.owner == self.group.rank]
            for piece, part in zip(pieces, torch.split(own, [piece.size for piece in pieces])):
                part.copy_(tensors[name][piece.start : piece.start + piece.size])
