"""How the weights are moved, as settings. Free of torch, so that a recipe is read quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from folio.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (https://arxiv.org/abs/1711.05101), SGD or Muon, and the clipping before it."""

    kind: Literal["adamw", "sgd", "muon"] = "adamw"
    """The rule. `muon` moves the matrices between hidden layers by Muon and the rest by AdamW."""

    learning_rate: float = 1e-3
    """At the peak of the schedule. A recipe that names none has one by the width of its model."""

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

    matrix_learning_rate: float = 0.02
    """Muon: at the peak of the schedule, for the matrices between hidden layers. As above."""

    matrix_weight_decay: float = 0.05
    """Muon: of those matrices, times their rate each step."""

    cautious_decay: bool = True
    """Muon: spare the weights that the move makes larger (https://arxiv.org/abs/2510.12402)."""

    matrix_momentum: float = 0.95
    """Muon: how much of the mean gradient is kept each step."""

    matrix_beta2: float = 0.95
    """Muon: how much of the mean squared move of each neuron is kept each step, by which its moves
    are scaled (https://arxiv.org/abs/2510.05491). 1 leaves them as they are."""

    gradient_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""

    def __post_init__(self) -> None:
        for name in (
            "learning_rate",
            "weight_decay",
            "matrix_learning_rate",
            "matrix_weight_decay",
            "gradient_clip",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; it is 0 or more.")
        for name in ("beta1", "beta2", "momentum", "matrix_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; it is 0 to below 1.")
        if not 0 <= self.matrix_beta2 <= 1:
            raise UserError(f"optimizer.matrix_beta2 is {self.matrix_beta2}; it is 0 to 1.")
        if not self.epsilon > 0:
            raise UserError(f"optimizer.epsilon is {self.epsilon}; it is above 0.")
