"""The parts of a training, and the interface of those who follow it."""

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
from folio.training.pace import Pace, StepPlan
from folio.training.schedule import ScheduleConfig
from folio.training.state import TrainingState
from folio.training.step import Step

Ending = Literal["finished", "patience", "interrupted", "non-finite"]


@dataclass(frozen=True)
class Evaluation:
    """Losses at one step, both without dropout, in nats per token."""

    validation_loss: float
    """Exact loss on the validation targets that count, or on those in `validation_sample`."""
    training_loss: float
    """Loss on windows spread over the training text, always the same ones: as many tokens as the
    validation text, or `training.evaluation_sample`."""
    standard_error: float = 0.0
    """Standard error of the validation loss, over its texts."""
    short_length: int = 0
    """Tokens in each window that was read, while training reads windows as short as these; 0 for
    windows of the context length."""
    validation_nll: NDArray[np.float32] | None = field(default=None, compare=False)
    """(N - 1,) float32 nats of each validation target, in order, whether it counts or not; nan
    where it was not read."""


class Observer(Protocol):
    """Receives the events of a training, in order."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """Is called after each optimizer step; `loss` is that of its batch, before the step."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """Is called after each evaluation; `state` already says whether it was the best."""

    def paced(self, plan: StepPlan) -> None:
        """Is called when the clock plans the rest again; on disk before the call returns.

        Args:
            plan: from which step on, and after how many the run ends.
        """

    def save(self, state: TrainingState) -> None:
        """Is called when the run can be resumed from here; soon, if saved in the background."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """Is called at the end; no other call follows."""


@dataclass(frozen=True)
class Training:
    """The parts of a run."""

    model: nn.Module
    """The model with its weights in float32."""
    step: Step
    """Computes gradients and updates the weights."""
    stream: TokenStream | Mixture
    validation: TokenIds
    context_length: int
    device: Device
    config: TrainingConfig
    """The config with max_steps and the intervals above 0."""
    optimizer_config: OptimizerConfig
    schedule: ScheduleConfig
    pace: Pace
    """Tells after how many steps the run ends; the clock may change it."""
    deadline: Deadline | None = None
    """Makes these decisions in a run with a budget in minutes."""
    validation_cluster: NDArray[np.integer] | None = None
    """(N,) the cluster of texts of each validation token, numbered from 0; None treats each token
    as a text of its own."""
    validation_mask: NDArray[np.uint8] | None = None
    """(N,) 1 for each validation token that counts; None if all count."""
