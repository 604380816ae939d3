"""What moves the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from folio.errors import UserError

if TYPE_CHECKING:
    import torch

    from folio.training.weights import Weights


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (https://arxiv.org/abs/1711.05101) or SGD, and the clipping before it."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """The rule."""

    learning_rate: float = 1e-3
    """At the peak of the schedule."""

    weight_decay: float = 0.1
    """Of matrices only, embeddings included; gains and biases are left alone."""

    beta1: float = 0.9
    """AdamW: how much of the mean gradient is kept each step."""

    beta2: float = 0.99
    """AdamW: how much of the mean squared gradient is kept each step."""

    epsilon: float = 1e-8
    """AdamW: added to the root of the mean squared gradient."""

    momentum: float = 0.0
    """SGD: how much of the last change is kept each step."""

    gradient_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; it is 0 or more.")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; it is 0 to below 1.")
        if not self.epsilon > 0:
            raise UserError(f"optimizer.epsilon is {self.epsilon}; it is above 0.")


def make_optimizer(config: OptimizerConfig, weights: Weights) -> torch.optim.Optimizer:
    """An optimizer over the groups of weights, one long parameter each.

    AdamW runs fused: one pass over each group and its moments.
    """
    import torch

    groups = [
        {"params": [row], "weight_decay": 0.0 if group == "vector" else config.weight_decay}
        for group, row in weights.groups.items()
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True
    )
