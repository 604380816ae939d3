"""AdamW and SGD on long rows of weights, and the optimizer that puts a rule to each group.

A row is all weights of a group side by side, so that a step is a handful of calls however
many layers there are. All copies of a model work on it, each on a part.

Shapes:  N weights in the group
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from folio.fast import calls
from folio.training.config import OptimizerConfig
from folio.training.muon import Muon
from folio.training.replicas import Replica, Replicas
from folio.training.state import require_same_tensors
from folio.training.weights import new_row


class Rule(Protocol):
    """Changes the weights of one group by their gradients, and what the copies read of them."""

    learning_rate: float
    """At the peak of the schedule."""

    def step(self, replica: Replica, learning_rate: float, scale: float) -> None:
        """Change what falls to a copy of the weights, in place, by gradients times a scale. The
        gradients become the weights as they were."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it remembers from step to step; may be written to."""
        ...


class AdamW:
    """Steps of a size that hardly depends on that of the gradient; decay beside them.

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.
    """

    def __init__(
        self, row: nn.Parameter, config: OptimizerConfig, weight_decay: float, replicas: Replicas
    ) -> None:
        """
        Args:
            row: (N,) weights and gradients, in memory that all copies see.
            config: rate, and how long means last.
            weight_decay: times the rate, the share of a weight that is lost.
            replicas: which share the work.
        """
        self.row, self.config, self.weight_decay = row, config, weight_decay
        self.learning_rate = config.learning_rate
        self.tensors = {
            "mean": new_row(len(row), row.dtype, row.device),
            "mean_square": new_row(len(row), row.dtype, row.device),
            "steps": new_row(1, row.dtype, torch.device("cpu")).view(()),
        }
        assert row.grad is not None
        rows = row.data, row.grad, self.tensors["mean"], self.tensors["mean_square"]
        working = replicas.weights.to_refresh(row.data)
        self._parts = [[c.part_of(x) for x in (*rows, working)] for c in replicas.copies]
        """Of each copy."""
        compiled = calls.serves(replicas.weights.values)
        self._arrays = [calls.arrays(*parts) for parts in self._parts] if compiled else []

    def count(self, n: int) -> None:
        """So many steps more: once, before the copies take them."""
        steps = self.tensors["steps"].numpy()
        steps += n

    def step(self, replica: Replica, learning_rate: float, scale: float) -> None:
        """One pass over weights, gradients and both means."""
        config, steps = self.config, self.tensors["steps"]
        if self._arrays:
            from folio.fast.kernels import training as kernels

            n = steps.item()
            numbers = {
                "scale": scale,
                "rate": learning_rate / (1 - config.beta1**n),
                "decay": learning_rate * self.weight_decay,
                "beta1": config.beta1,
                "beta2": config.beta2,
                "correction": 1 / math.sqrt(1 - config.beta2**n),
                "epsilon": config.epsilon,
            }
            arrays = self._arrays[replica.number]
            with np.errstate(over="ignore"):  # an infinite rate is found in the weights
                singles = {name: np.float32(x) for name, x in numbers.items()}
            kernels.adamw(*arrays, **singles)
            return
        *rows, working = self._parts[replica.number]
        before = rows[0].clone()
        torch.ops.aten._fused_adamw_(
            *([row] for row in rows),
            [],
            [steps.to(self.row.device)],
            lr=learning_rate,
            beta1=config.beta1,
            beta2=config.beta2,
            weight_decay=self.weight_decay,
            eps=config.epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=None if scale == 1 else 1 / torch.tensor(scale, device=self.row.device),
        )
        rows[1].copy_(before)
        working.copy_(rows[0][: len(working)])


class SGD:
    """Against the gradient, with momentum and decay."""

    def __init__(
        self, row: nn.Parameter, config: OptimizerConfig, weight_decay: float, replicas: Replicas
    ) -> None:
        self.row, self.momentum, self.weight_decay = row, config.momentum, weight_decay
        self.working = replicas.weights.to_refresh(row.data)
        self.learning_rate = config.learning_rate
        self.tensors: dict[str, Tensor] = {}
        if config.momentum:
            self.tensors["velocity"] = new_row(len(row), row.dtype, row.device)

    def step(self, replica: Replica, learning_rate: float, scale: float) -> None:
        """The decay goes through the momentum, as in the textbook."""
        assert self.row.grad is not None
        weights, working = replica.part_of(self.row.data), replica.part_of(self.working)
        change = scale * replica.part_of(self.row.grad) + self.weight_decay * weights
        if self.momentum:
            change = replica.part_of(self.tensors["velocity"]).mul_(self.momentum).add_(change)
        replica.part_of(self.row.grad).copy_(weights)
        weights.sub_(change, alpha=learning_rate)
        working.copy_(weights[: len(working)])


class Optimizer:
    """A rule for each group of weights."""

    def __init__(self, config: OptimizerConfig, model: nn.Module, replicas: Replicas) -> None:
        """
        Args:
            config: which rules.
            model: whose parameters are views of `replicas.weights`.
            replicas: which work on the weights together.
        """
        self.rules: dict[str, Rule] = {}
        for group, row in replicas.weights.groups.items():
            if group == "hidden" and config.kind == "muon":
                self.rules[group] = Muon(row, config, model, replicas)
            else:
                kind = SGD if config.kind == "sgd" else AdamW
                decay = 0.0 if group == "vector" else config.weight_decay
                self.rules[group] = kind(row, config, decay, replicas)
        self._clip = config.gradient_clip or math.inf
        self._n_copies = len(replicas.copies)
        self._weights = replicas.weights
        self._move = replicas.task(self._move_part, *replicas.after_a_move, self._is_finite_part)
        self._go_back = replicas.task(self._go_back_part, *replicas.after_a_move)

    def step(self, share: float, norm: float = 0.0) -> None:
        """Move all weights, and let the copies have them.

        Args:
            share: of the peak rates.
            norm: of all gradients together, which is clipped.

        Raises:
            FloatingPointError: a weight would be infinite or no number. All weights are then those
                before the step, to the byte, and what the rules remember is finite: numbers that
                are not begin anew from 0.
        """
        scale = self._clip / norm if norm > self._clip else 1.0
        adamw = [rule for rule in self.rules.values() if isinstance(rule, AdamW)]
        for rule in adamw:
            rule.count(1)
        if all(self._move([(share, scale)] * self._n_copies)):
            return
        self._go_back([None] * self._n_copies)
        for rule in adamw:
            rule.count(-1)
        for tensor in self.tensors.values():
            tensor.nan_to_num_(0.0, 0.0, 0.0)
        raise FloatingPointError("a step makes weights that are not finite")

    def _move_part(self, replica: Replica, item: tuple[float, float]) -> None:
        share, scale = item
        for rule in self.rules.values():
            rule.step(replica, share * rule.learning_rate, scale)

    def _is_finite_part(self, replica: Replica, _: object) -> bool:
        largest = torch.linalg.vector_norm(replica.part_of(self._weights.values), math.inf)
        return math.isfinite(largest.item())

    def _go_back_part(self, replica: Replica, _: object) -> None:
        """The rules left the weights as they were where the gradients had been."""
        weights, working = replica.part_of(self._weights.values), self._weights.working
        weights.copy_(replica.part_of(self._weights.gradients))
        if working is not self._weights.values:
            replica.part_of(working).copy_(weights)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`hidden.mean` and so on -> what the rule of that group remembers."""
        return {
            f"{group}.{name}": tensor
            for group, rule in self.rules.items()
            for name, tensor in rule.tensors.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave.

        Raises:
            UserError: it was another optimizer, or one of other weights.
        """
        own = self.tensors
        require_same_tensors(own, tensors, "optimizer")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
