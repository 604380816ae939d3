"""What must survive a restart, as a type: with it, a resumed run equals an uninterrupted one."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from folio.accelerator import random_states, set_random_states
from folio.errors import UserError
from folio.tokens.stream import StreamPosition
from folio.training.deadline import Deadline


class Remembers(Protocol):
    """What a checkpoint needs of an optimizer."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Return its state by name, such as `hidden.mean`."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `tensors` returned."""


class UpdatesWeights(Remembers, Protocol):
    """An optimizer, or the part of one that this process has."""

    parameters: list[nn.Parameter]
    """All that learn, also those that other processes update."""

    def step(self, lr_scale: float) -> None:
        """Update the parameters by their gradients, at `lr_scale` times the peak learning rates.

        Raises:
            FloatingPointError: they would not be finite; they are as they were.
        """


@dataclass
class TrainingState:
    """Everything that changes during training, except weights and optimizer."""

    step: int = 0
    """Number of optimizer steps made."""
    tokens: int = 0
    """Targets trained on, repeats included."""
    seconds: float = 0.0
    """Time spent in this run, evaluations included, pauses excluded."""
    used_seconds: float = 0.0
    """Seconds of a budget in minutes that are used, the start of each command included; 0 without
    one."""
    place: StreamPosition = field(default_factory=StreamPosition)
    """Position in the stream of batches."""
    cores: int = 0
    """Number of cores of the machine that trained last."""
    best_validation_loss: float = math.inf
    best_step: int = 0
    best_short_length: int = 0
    """`Evaluation.short_length` of the best evaluation."""
    loss_scale: float = 0.0
    """`Step.loss_scale` of the last step; 0 before one."""
    gradient_norm: float = 0.0
    """Norm of all gradients of the last step together, before clipping."""
    evaluated_step: int = 0
    """Step of the last evaluation; before the first one 0, or -1 if the run does not begin with
    random weights, so that step 0 is evaluated, too."""
    stale_evaluations: int = 0
    """Evaluations that count towards `training.patience`: those above the best loss by more than
    its standard error, since the best one."""
    recent_loss: float = 0.0
    """Sum of the training losses since the last entry in the metrics, in nats."""
    recent_steps: int = 0
    """Number of steps in `recent_loss`."""

    @property
    def read_step(self) -> int:
        """Step of the checkpoint that is read after training: the best one, or the last one if
        there was no evaluation.
        """
        return self.best_step if math.isfinite(self.best_validation_loss) else self.step

    def record(self, device: torch.device) -> dict[str, Any]:
        """Return the content of state.json, with torch's random state, from which dropout draws."""
        random = {kind: _encode(state) for kind, state in random_states(device).items()}
        record = asdict(self) | {"random": random}
        if math.isinf(self.best_validation_loss):
            record["best_validation_loss"] = None
        return record

    @classmethod
    def restore(cls, record: dict[str, Any], device: torch.device) -> TrainingState:
        """Restore a record, including torch's random state."""
        record = dict(record)
        random = {kind: _decode(text) for kind, text in record.pop("random").items()}
        set_random_states(random, device)
        record["place"] = StreamPosition.of(record["place"])
        if record["best_validation_loss"] is None:
            record["best_validation_loss"] = math.inf
        return cls(**record)


class RunClock:
    """Writes into a state how much time it has taken, and how much of a budget in minutes."""

    def __init__(self, state: TrainingState, deadline: Deadline | None) -> None:
        """Start the clock; the deadline is that of the budget."""
        self.state, self.deadline, self.last = state, deadline, time.perf_counter()

    def read(self) -> None:
        """Add the time since the last reading, and note what is used of the budget."""
        now = time.perf_counter()
        self.state.seconds += now - self.last
        self.last = now
        if self.deadline is not None:
            self.state.used_seconds = self.deadline.used()


def require_same_tensors(own: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str) -> None:
    """Raise an error if the tensors in a checkpoint have other names or shapes than needed.

    Args:
        own: the tensors that are needed.
        found: the tensors in the checkpoint.
        what: `model` or `optimizer`, for the message.

    Raises:
        UserError: they differ, as in a run of an older version.
    """
    different = sorted(
        name
        for name in own.keys() | found.keys()
        if name not in own or name not in found or own[name].shape != found[name].shape
    )
    if different:
        raise UserError(
            f"The checkpoint holds another {what} than this version makes of the recipe "
            f"(they differ in {different[0]}), so the run cannot go on. It was made by another "
            f"version, or its recipe was changed. Start anew with: folio train RUN/recipe.toml"
        )


def _encode(tensor: Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode("ascii")


def _decode(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
