"""Settings of training: how long, when to evaluate, and how the weights are updated.

Free of torch, so that a recipe is read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from folio.config import require, unknown_choice
from folio.errors import UserError

OPTIMIZERS: dict[str, Any] = dict.fromkeys(("adamw", "sgd", "muon"))
"""The table of rules, filled in by `training/optimizers.py`; here its names suffice."""
DEFAULT_MINUTES = 5.0
"""If no budget is given."""
MOST_MINUTES = 5_000_000
"""Nearly ten years."""
LOGGERS = ("tensorboard", "wandb", "mlflow")
"""Programs that show a run; each is an extra of that name, and a file in `loggers/`."""

Sharding = Literal["none", "optimizer", "full"]
"""What the processes that train together divide: nothing, the optimizer's state, or weights and
gradients, too."""
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
"""From the fastest to the one that takes the least memory."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Batches, budget, evaluations and checkpoints."""

    batch_size: int = 32
    """Windows of context_length tokens in each optimizer step."""

    micro_batch_size: int = 0
    """Windows in memory at once, short ones too; the gradients of micro-batches are accumulated. 0
    takes the whole batch."""

    confidence_penalty: float = 0.0
    """Weight of the confidence penalty: the entropy of each prediction, times this, is subtracted
    from the loss, against overconfidence from reading a text many times
    (https://arxiv.org/abs/1701.06548). Reported losses are without it."""

    goldfish: int = 0
    """Leave one target in so many out of the loss, always the same ones of a passage, so that none
    is learned as a whole, however often it occurs (https://arxiv.org/abs/2406.10209). 8 is a good
    number, 4 a strict one; it costs some loss. 0 learns all."""

    goldfish_before: int = 0
    """How many tokens before a target decide whether it is left out; 0 takes 50 characters, or 13
    tokens of other vocabularies. Folio writes the number."""

    max_steps: int = 0
    """Budget in optimizer steps; 0 leaves it to the other budgets. The smallest one given
    counts."""

    max_tokens: int = 0
    """Budget in tokens trained on, repeats included."""

    max_epochs: float = 0.0
    """Budget in passes over the training text."""

    minutes: float = 0.0
    """Budget in time, the whole command included: the speed is measured first, and the number of
    steps is corrected by the clock while the run trains. 5 if no other budget is given."""

    evaluation_interval: int = 0
    """Steps between evaluations. 0 chooses as many as take about a twentieth of the time, and in a
    budget in minutes at most a tenth of it."""

    evaluations: int = 0
    """Number of evaluations, evenly spread; converted to evaluation_interval. 0 leaves it
    to that."""

    evaluation_sample: int = 0
    """Tokens of training text that each evaluation reads in addition to the validation text; 0
    takes as many as that has, but in a budget in minutes at most 65,536, and fewer if they would
    take much of it."""

    validation_sample: int = 0
    """Tokens of validation text that each evaluation reads, in windows that are evenly spaced over
    it; 0 reads all of them, or fewer if they would take much of the minutes."""

    patience: int = 0
    """Stop after so many evaluations above the best validation loss with none better between them;
    a rise within the standard error of the loss does not count. 0 never stops early."""

    save_interval: int = 0
    """Steps between checkpoints in addition to those of each evaluation; 0 makes none."""

    save_minutes: float = 0.0
    """Minutes after a checkpoint at which another one is made: the most that a crash costs; 0 makes
    none."""

    save_in_background: Literal["auto", "on", "off"] = "auto"
    """Whether training goes on while a checkpoint is written, from a copy, for which memory must
    have room once more for weights and optimizer state. `auto` does so with an accelerator, whose
    steps are short beside that; a budget in minutes never does, as it counts that time."""

    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep, in addition to the best one."""

    log_interval: int = 0
    """Steps between entries of the training loss in metrics.jsonl; 0 makes about a thousand."""

    sharding: Sharding = "none"
    """What the processes that torchrun starts divide among them, by the plain step: `optimizer` the
    state of the optimizer, `full` the weights and gradients, too (FSDP2), for a model that does not
    fit into one card. `none` is the fastest. One process has everything in any case."""

    page: bool = False
    """Whether each evaluation also brings the page page.html of the run up to date: the curve, what
    was learned when, samples, speed and memory."""

    log: tuple[str, ...] = ()
    """Programs that show the run, too: tensorboard, wandb, mlflow, each an extra of that name.
    Nothing is sent anywhere unless variables such as WANDB_MODE say so."""

    def __post_init__(self) -> None:
        require(self, "training", "at least 1", lambda x: x >= 1, "batch_size", "keep_checkpoints")
        apart = "batch_size", "keep_checkpoints", "log", "save_in_background", "sharding"
        others = (f.name for f in fields(self) if f.name not in apart)
        require(self, "training", "0 or more", lambda x: x >= 0, *others)
        require(self, "training", "at most 1,000", lambda x: x <= 1000, "goldfish_before")
        times = "minutes", "save_minutes"
        require(self, "training", f"at most {MOST_MINUTES}", lambda x: x <= MOST_MINUTES, *times)
        for name in self.log:
            if name not in LOGGERS:
                raise UserError(unknown_choice("training.log", name, LOGGERS))
        if self.goldfish == 1:
            raise UserError(
                "training.goldfish must be 0 or at least 2, got 1, which leaves nothing to learn."
            )
        if self.sharding == "full" and self.page:
            raise UserError(
                "training.page draws samples from the whole model, which no process has with "
                "training.sharding = full. Leave one of them out."
            )
        if self.evaluations and self.evaluation_interval:
            raise UserError(
                f"training.evaluations or training.evaluation_interval must be 0, got "
                f"{self.evaluations} and {self.evaluation_interval}. Leave one of them out."
            )

    def tokens_read(self, n_tokens: int) -> int:
        """Tokens that an evaluation reads of a held-out text of so many."""
        return min(self.validation_sample or n_tokens, n_tokens)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (https://arxiv.org/abs/1711.05101), SGD or Muon, and gradient clipping."""

    kind: str = "adamw"
    """The rule: adamw, sgd or muon, which updates the matrices between hidden layers by Muon and
    the rest by AdamW; or one that a program added to the table OPTIMIZERS."""

    learning_rate: float = 1e-3
    """Peak of the schedule. If a recipe names none, it follows from the width of its model."""

    weight_decay: float = 0.1
    """Weight decay of matrices, embeddings included; gains and biases have none."""

    beta1: float = 0.9
    """AdamW: decay of the mean gradient per step."""

    beta2: float = 0.99
    """AdamW: decay of the mean squared gradient per step."""

    epsilon: float = 1e-8
    """AdamW: added to the root of the mean squared gradient."""

    momentum: float = 0.0
    """SGD: momentum, the share of the last update that is kept."""

    matrix_learning_rate: float = 0.02
    """Muon: peak learning rate of the matrices between hidden layers. The default follows from the
    width."""

    matrix_weight_decay: float = 0.05
    """Muon: weight decay of those matrices, multiplied by their learning rate."""

    cautious_decay: bool = True
    """Muon: no decay for weights that the update makes larger
    (https://arxiv.org/abs/2510.12402)."""

    matrix_momentum: float = 0.95
    """Muon: decay of the mean gradient per step."""

    matrix_beta2: float = 0.95
    """Muon: decay of each neuron's mean squared update per step, by which its updates are scaled
    (https://arxiv.org/abs/2510.05491). 1 turns the scaling off."""

    gradient_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise UserError(unknown_choice("optimizer.kind", self.kind, OPTIMIZERS))
        rates = "learning_rate", "weight_decay", "matrix_learning_rate", "matrix_weight_decay"
        require(self, "optimizer", "0 or more", lambda x: x >= 0, *rates, "gradient_clip")
        shares = "beta1", "beta2", "momentum"
        require(self, "optimizer", "0 to below 1", lambda x: 0 <= x < 1, *shares)
        # Above, float32 rounds away the last gradient's share of what Nesterov looks at.
        require(self, "optimizer", "0 to 0.99999", lambda x: 0 <= x <= 0.99999, "matrix_momentum")
        require(self, "optimizer", "0 to 1", lambda x: 0 <= x <= 1, "matrix_beta2")
        require(self, "optimizer", "above 0", lambda x: x > 0, "epsilon")


def check_budget(flag: str, amount: float) -> None:
    """Check minutes or epochs that a flag or an argument gives.

    Raises:
        UserError: they are not above 0, or more than any recipe may have.
    """
    if not 0 < amount <= MOST_MINUTES:
        must = f"at most {MOST_MINUTES}" if amount > 0 else "above 0"
        raise UserError(f"{flag} must be {must}, got {amount:g}.")


def minutes_of(config: TrainingConfig) -> float:
    """The budget in minutes, DEFAULT_MINUTES where no budget is given; 0 where there is another."""
    given = config.max_steps or config.max_tokens or config.max_epochs
    return config.minutes or (0.0 if given else DEFAULT_MINUTES)


def is_timed(config: TrainingConfig) -> bool:
    """Whether a budget is in minutes, as it is where none is given."""
    return minutes_of(config) > 0


def budget_steps(config: TrainingConfig, context_length: int, targets_per_epoch: int) -> int:
    """Steps that the budgets in steps, tokens and epochs allow; 0 if none is given.

    >>> budget_steps(TrainingConfig(batch_size=2, max_tokens=100), 10, 1000)
    5
    >>> budget_steps(TrainingConfig(max_epochs=0.0001), 10, 1000)
    1
    """
    per_step = config.batch_size * context_length
    in_epochs = config.max_epochs * targets_per_epoch
    n_targets = max(int(in_epochs), in_epochs > 0)  # 0 would be no budget
    budgets = [config.max_steps, -(-config.max_tokens // per_step), -(-n_targets // per_step)]
    return min((steps for steps in budgets if steps > 0), default=0)
