"""The rules of `optimizers.py` on flat buffers, where each worker updates a shard.

A rule makes one pass over its shard: it reads gradients, updates master weights and state, and
writes the compute weights. Clipping happens in the same pass. A rule without a sharded version is
run by rank 0 as it is written.

Shapes:  N parameters in the group
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from folio.fast import calls
from folio.fast.kernels import training as kernels
from folio.fast.written_for import is_as_written
from folio.training import optimizers
from folio.training.config import OptimizerConfig
from folio.training.groups import Members
from folio.training.optimizers import SGD, AdamW, Muon, Rule, assign_rules, flatten
from folio.training.parallel.data_parallel import DataParallel, Replica
from folio.training.parallel.muon import ShardedMuon
from folio.training.state import require_same_tensors
from folio.workers import shared_buffer


class ShardedRule(Protocol):
    """Updates the parameters of one group, and their compute weights."""

    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Update the worker's shard in place; the gradients become the old weights."""

    def updated_by(self, replica: Replica) -> list[Tensor]:
        """Return the master weights that the worker updates, as views."""
        ...

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state kept from step to step; may be written to."""
        ...


class WeightByWeight:
    """A rule that moves each weight by itself, so that workers may divide the buffer anywhere."""

    parameter: nn.Parameter
    """(N,) master weights."""

    def updated_by(self, replica: Replica) -> list[Tensor]:
        """Return the worker's shard."""
        return [replica.shard(self.parameter.data)]


class ShardedAdamW(WeightByWeight):
    """`AdamW` in one pass over weights, gradients and both means."""

    def __init__(
        self,
        parameter: nn.Parameter,
        members: Members,
        config: OptimizerConfig,
        parallel: DataParallel,
    ) -> None:
        """Start with empty state.

        Args:
            parameter: (N,) master weights and gradients, in memory that all workers see.
            members: the parameters in it.
            config: learning rate and decay rates.
            parallel: the workers that share the work.
        """
        self.config, self.weight_decay = config, members.weight_decay
        self.parameter, n = parameter, len(parameter)
        self.tensors = {
            "mean": shared_buffer(n, torch.float32),
            "mean_square": shared_buffer(n, torch.float32),
            "steps": shared_buffer(1, torch.float32).view(()),
        }
        assert parameter.grad is not None
        compute = parallel.parameters.compute_weights_of(parameter.data)
        means = self.tensors["mean"], self.tensors["mean_square"]
        buffers = parameter.data, parameter.grad, *means, compute
        self._arrays = [calls.arrays(*map(r.shard, buffers)) for r in parallel.replicas]
        """Shards of the buffers for each worker."""

    def count(self) -> None:
        """Count a step; to be called once, before the workers update their shards."""
        steps = self.tensors["steps"].numpy()
        steps += 1

    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Update the worker's shard."""
        config, n = self.config, self.tensors["steps"].item()
        lr = lr_scale * config.learning_rate
        numbers = {
            "scale": gradient_scale,
            "rate": lr / (1 - config.beta1**n),
            "decay": lr * self.weight_decay,
            "beta1": config.beta1,
            "beta2": config.beta2,
            "rest1": 1 - config.beta1,
            "rest2": 1 - config.beta2,
            "correction": 1 / math.sqrt(1 - config.beta2**n),
            "epsilon": config.epsilon,
        }
        with np.errstate(over="ignore"):  # an infinite rate shows in the weights
            singles = {name: np.float32(x) for name, x in numbers.items()}
        weights, gradients, means, mean_squares, compute = self._arrays[replica.rank]
        kernels.adamw(weights, gradients, means, mean_squares, compute, **singles)


class ShardedSGD(WeightByWeight):
    """`SGD` on shards, with torch operations."""

    def __init__(
        self,
        parameter: nn.Parameter,
        members: Members,
        config: OptimizerConfig,
        parallel: DataParallel,
    ) -> None:
        """Start with empty state; arguments as for ShardedAdamW."""
        self.parameter, self.config, self.weight_decay = parameter, config, members.weight_decay
        self.compute = parallel.parameters.compute_weights_of(parameter.data)
        self.tensors: dict[str, Tensor] = {}
        if config.momentum:
            self.tensors["velocity"] = shared_buffer(len(parameter), torch.float32)

    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Update the worker's shard."""
        assert self.parameter.grad is not None
        weights, gradients = (replica.shard(x) for x in (self.parameter.data, self.parameter.grad))
        compute = replica.shard(self.compute)
        update = gradient_scale * gradients + self.weight_decay * weights
        if self.config.momentum:
            velocity = replica.shard(self.tensors["velocity"])
            update = velocity.mul_(self.config.momentum).add_(update)
        gradients.copy_(weights)
        weights.sub_(update, alpha=lr_scale * self.config.learning_rate)
        compute.copy_(weights[: len(compute)])


class UnshardedRule:
    """A rule as it is written, which rank 0 runs while the others wait."""

    def __init__(self, rule: Rule, parameter: nn.Parameter, parallel: DataParallel) -> None:
        """Take over the state of a rule.

        Args:
            rule: a rule whose parameters and gradients are views of those of `parameter`.
            parameter, parallel: as for ShardedAdamW.
        """
        self.rule, self.parameter = rule, parameter
        self.tensors = flatten(rule.state)
        self.compute = parallel.parameters.compute_weights_of(parameter.data)

    @torch.no_grad()
    def step(self, replica: Replica, lr_scale: float, gradient_scale: float) -> None:
        """Update all parameters on rank 0; do nothing on the other workers."""
        if replica.rank > 0:
            return
        assert self.parameter.grad is not None
        weights, gradients = self.parameter.data, self.parameter.grad
        before = weights.clone()
        views = [(p, p.data, p.grad) for p in self.rule.parameters]
        gradients.mul_(gradient_scale)
        self.rule.step(lr_scale)
        for p, own, gradient in views:  # a rule may have replaced them by other tensors
            if p.data_ptr() != own.data_ptr():
                own.copy_(p.data)
            p.data, p.grad = own, gradient
        gradients.copy_(before)
        self.compute.copy_(weights[: len(self.compute)])

    def updated_by(self, replica: Replica) -> list[Tensor]:
        """Return all parameters on rank 0, none on the other workers."""
        return [self.parameter.data] if replica.rank == 0 else []


SHARDED: dict[
    type[Rule], Callable[[nn.Parameter, Members, OptimizerConfig, DataParallel], ShardedRule]
] = {AdamW: ShardedAdamW, SGD: ShardedSGD, Muon: ShardedMuon}
"""Plain rule -> its sharded version."""


def is_sharded(kind: type[Rule]) -> bool:
    """Whether a rule has a sharded version that was written for it: exactly this class,
    unedited.
    """
    return kind in SHARDED and is_as_written(optimizers)


def not_sharded(config: OptimizerConfig, model: nn.Module) -> list[str]:
    """Name the rules of a model that only rank 0 runs, as they are written."""
    kinds = dict.fromkeys(kind for _, kind, _ in assign_rules(config, model))
    return [f"{kind.__name__} (the optimizer)" for kind in kinds if not is_sharded(kind)]


class ParallelOptimizer:
    """One rule per group of parameters; all workers update their shards at the same time."""

    def __init__(self, config: OptimizerConfig, model: nn.Module, parallel: DataParallel) -> None:
        """Assign the rules to the flat parameters of a model.

        Args:
            config: the rules and their settings.
            model: the model with these parameters.
            parallel: the workers that share the work.
        """
        self.rules: dict[str, ShardedRule] = {}
        for group, kind, members in assign_rules(config, model):
            parameter = parallel.parameters.groups[group]
            if is_sharded(kind):
                self.rules[group] = SHARDED[kind](parameter, members, config, parallel)
            else:
                rule = kind(members, config)
                self.rules[group] = UnshardedRule(rule, parameter, parallel)
        self._max_norm = config.gradient_clip or math.inf
        self._world_size = len(parallel.replicas)
        self._parameters = parallel.parameters
        after = parallel.after_update
        self._update = parallel.task(self._update_phase, *after)
        self._undo = parallel.task(self._undo_phase, *after)

    def step(self, lr_scale: float, norm: float = 0.0) -> None:
        """Update all parameters.

        Args:
            lr_scale: factor on the peak learning rates.
            norm: norm of all gradients together, for clipping.

        Raises:
            FloatingPointError: a weight would be infinite or NaN. All weights are then those before
                the step, to the byte, and the state is finite: numbers in it that were not start
                again from 0.
        """
        gradient_scale = self._max_norm / norm if norm > self._max_norm else 1.0
        counts = [x for x in self.tensors.values() if x.dim() == 0]
        before = [x.clone() for x in counts]
        for rule in self.rules.values():
            if isinstance(rule, ShardedAdamW):
                rule.count()
        if all(self._update([(lr_scale, gradient_scale)] * self._world_size)):
            return
        self._undo([None] * self._world_size)
        for count, old in zip(counts, before):
            count.copy_(old)
        for tensor in self.tensors.values():
            tensor.nan_to_num_(0.0, 0.0, 0.0)
        raise FloatingPointError("a step makes weights that are not finite")

    def _update_phase(self, replica: Replica, message: tuple[float, float]) -> bool:
        """Update the worker's shards; return whether its weights are finite."""
        for rule in self.rules.values():
            rule.step(replica, *message)
        updated = [x for rule in self.rules.values() for x in rule.updated_by(replica)]
        # Both are NaN if any weight is. torch's largest absolute value takes 20 times as long.
        some = [x for x in updated if x.numel()]
        return all(math.isfinite(y.item()) for x in some for y in torch.aminmax(x))

    def _undo_phase(self, replica: Replica, _: Any) -> None:
        """Restore the old weights, which the rules left in the gradient buffer."""
        master, compute = self._parameters.master, self._parameters.compute
        replica.shard(master).copy_(replica.shard(self._parameters.gradients))
        if compute is not master:
            replica.shard(compute).copy_(replica.shard(master))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """State by name, such as `hidden.mean`."""
        return {
            f"{group}.{name}": tensor
            for group, rule in self.rules.items()
            for name, tensor in rule.tensors.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave, in this or in the plain optimizer.

        Raises:
            UserError: names or shapes differ from this optimizer's.
        """
        own = self.tensors
        require_same_tensors(own, tensors, "optimizer")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
