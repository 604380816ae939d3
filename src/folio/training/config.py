"""How long to train, when to look, and how the weights move.

Free of torch, so that a recipe is read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from folio.config import require, unknown_choice
from folio.errors import UserError

OPTIMIZERS: dict[str, Any] = dict.fromkeys(("adamw", "sgd", "muon"))
"""The table of `training/optimizers.py`, which fills it in; here its names suffice."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Batches, budget, evaluations and checkpoints."""

    batch_size: int = 32
    """Windows of context_length tokens in each optimizer step."""

    micro_batch_size: int = 0
    """Windows in memory at once; their gradients are added up to the batch. 0 takes all."""

    confidence_penalty: float = 0.0
    """How much a nat of doubt is worth against one of surprise: certainty that comes of reading a
    text many times costs (https://arxiv.org/abs/1701.06548). The losses told are without it."""

    goldfish: int = 0
    """Leave one target in so many out of the loss, always the same ones of a passage, so that none
    is learned whole, however often it stands there (https://arxiv.org/abs/2406.10209). 8 is a good
    number, 4 a strict one; it costs some loss. 0 learns all."""

    goldfish_before: int = 0
    """How many tokens before a target decide whether it is left out; 0 takes 50 characters, or 13
    tokens of other vocabularies. Folio writes it."""

    max_steps: int = 0
    """Budget in optimizer steps; 0 leaves it to the others. The smallest one given counts."""

    max_tokens: int = 0
    """Budget in tokens trained on, repeats included."""

    max_epochs: float = 0.0
    """Budget in passes over the training text."""

    minutes: float = 0.0
    """Budget in time: measured for some seconds, then frozen as max_steps. 5 minutes where
    nothing else is given."""

    evaluation_interval: int = 0
    """Steps between evaluations; 0 takes so few that they cost about a twentieth of the time."""

    evaluations: int = 0
    """How many evaluations, evenly spread; frozen as evaluation_interval. 0 leaves it to that."""

    evaluation_sample: int = 0
    """Tokens of training text that each evaluation reads beside the validation text; 0 takes as
    many as there are of that, less where they would cost much of the minutes."""

    patience: int = 0
    """Stop after so many evaluations above the best validation loss, none better between them; a
    rise within the standard error of the loss does not count. 0 goes on."""

    save_interval: int = 0
    """Steps between checkpoints beside those that each evaluation leaves; 0 makes none."""

    keep_checkpoints: int = 2
    """Newest checkpoints to keep, beside the best one."""

    log_interval: int = 0
    """Steps between entries of the training loss in metrics.jsonl; 0 makes about a thousand."""

    def __post_init__(self) -> None:
        require(self, "training", "at least 1", lambda x: x >= 1, "batch_size", "keep_checkpoints")
        others = (f.name for f in fields(self) if f.name not in ("batch_size", "keep_checkpoints"))
        require(self, "training", "0 or more", lambda x: x >= 0, *others)
        if self.goldfish == 1:
            raise UserError(
                "training.goldfish must be 0 or at least 2, got 1, which leaves nothing to learn."
            )
        if self.evaluations and self.evaluation_interval:
            raise UserError(
                f"training.evaluations or training.evaluation_interval must be 0, got "
                f"{self.evaluations} and {self.evaluation_interval}. Leave one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (https://arxiv.org/abs/1711.05101), SGD or Muon, and the clipping before it."""

    kind: str = "adamw"
    """The rule: adamw, sgd or muon, which moves the matrices between hidden layers by Muon and the
    rest by AdamW; or one that a program added to the table OPTIMIZERS."""

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
        if self.kind not in OPTIMIZERS:
            raise UserError(unknown_choice("optimizer.kind", self.kind, OPTIMIZERS))
        rates = "learning_rate", "weight_decay", "matrix_learning_rate", "matrix_weight_decay"
        require(self, "optimizer", "0 or more", lambda x: x >= 0, *rates, "gradient_clip")
        shares = "beta1", "beta2", "momentum", "matrix_momentum"
        require(self, "optimizer", "0 to below 1", lambda x: 0 <= x < 1, *shares)
        require(self, "optimizer", "0 to 1", lambda x: 0 <= x <= 1, "matrix_beta2")
        require(self, "optimizer", "above 0", lambda x: x > 0, "epsilon")


def budget_steps(config: TrainingConfig, context_length: int, targets_per_epoch: int) -> int:
    """Steps that the budgets in steps, tokens and epochs allow; 0 where none is given.

    >>> budget_steps(TrainingConfig(batch_size=2, max_tokens=100), 10, 1000)
    5
    """
    per_step = config.batch_size * context_length
    budgets = [
        config.max_steps,
        -(-config.max_tokens // per_step),
        -(-int(config.max_epochs * targets_per_epoch) // per_step),
    ]
    return min((steps for steps in budgets if steps > 0), default=0)
