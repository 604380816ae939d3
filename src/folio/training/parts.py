"""What a training is put together of, and who hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from folio.device import Device
from folio.tokenizers.base import TokenIds
from folio.tokens.mixture import Mixture
from folio.tokens.stream import TokenStream
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.deadline import Deadline
from folio.training.pace import Knot, Pace
from folio.training.schedule import ScheduleConfig
from folio.training.state import TrainingState
from folio.training.step import Step

Ending = Literal["finished", "patience", "interrupted", "non-finite"]


@dataclass(frozen=True)
class Evaluation:
    """Losses at one step, both without dropout, in nats per token."""

    validation_loss: float
    """Exact: the whole validation text, or what of it counts."""
    training_loss: float
    """On windows spread over the training text, always the same: as many tokens, or
    `training.evaluation_sample`."""
    standard_error: float = 0.0
    """Of the validation loss, over its texts."""
    validation_nll: NDArray[np.float32] | None = field(default=None, compare=False)
    """(N - 1,) float32 nats of each validation target, in order, whether it counts or not."""


class Observer(Protocol):
    """Learns what happens, in order."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """After each optimizer step; `loss` is that of its batch, before the step."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """After each evaluation; `state` knows already whether it was the best."""

    def paced(self, knot: Knot) -> None:
        """The steps to go were planned anew; to be on the disk before this returns."""

    def save(self, state: TrainingState) -> None:
        """A moment from which a run can be resumed."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """Nothing follows."""


@dataclass(frozen=True)
class Training:
    """The parts of a run, put together."""

    model: nn.Module
    """Holds the weights, in float32."""
    step: Step
    """Moves them."""
    stream: TokenStream | Mixture
    validation: TokenIds
    context_length: int
    device: Device
    config: TrainingConfig
    """With max_steps and the intervals above 0."""
    optimizer_config: OptimizerConfig
    schedule: ScheduleConfig
    pace: Pace
    """Says after how many steps the run ends; longer once the clock has decided anew."""
    deadline: Deadline | None = None
    """Decides so in a run with a budget in minutes."""
    validation_cluster: NDArray[np.integer] | None = None
    """(N,) to which cluster of texts each validation token belongs, counted from 0; None takes
    each token for a text of its own."""
    validation_mask: NDArray[np.uint8] | None = None
    """(N,) 1 for each validation token that counts; None lets all count."""
