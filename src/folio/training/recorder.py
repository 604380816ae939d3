"""An Observer that writes the run directory: metrics and checkpoints, of which it deletes
old ones.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from folio.model.config import ModelConfig
from folio.run.checkpoint import checkpoint_name, list_checkpoints, save_checkpoint, step_of
from folio.run.directory import Run
from folio.run.metrics import append_event
from folio.run.own_code import OwnCode
from folio.training.low_rank import corrected, merged
from folio.training.pace import StepPlan
from folio.training.pace_file import append_plan
from folio.training.parts import Ending, Evaluation, Training
from folio.training.saving import Background
from folio.training.state import TrainingState


class RunRecorder:
    """Records everything needed to look at a run and to resume it."""

    def __init__(
        self, run: Run, training: Training, model_config: ModelConfig, in_background: bool = False
    ) -> None:
        """
        Args:
            run, training, model_config: what is recorded, and where.
            in_background: whether checkpoints are written while training goes on. An error is then
                raised after the next step, and `wait` must be called at the end.
        """
        self.run, self.training, self.model_config = run, training, model_config
        self.background = Background() if in_background else None
        self.best_validation_nll: NDArray[np.float32] | None = None
        """(N - 1,) nats of each validation target at the best step, if that was evaluated here in
        windows of the context length."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        if self.background is not None:
            self.background.check()
        state.recent_loss += loss
        state.recent_steps += 1
        training = self.training
        if state.step % training.config.log_interval == 0 or state.step == training.pace.last:
            self._append(
                "step",
                state,
                loss=state.recent_loss / state.recent_steps,
                learning_rate=learning_rate,
                gradient_norm=state.gradient_norm,
            )
            state.recent_loss, state.recent_steps = 0.0, 0

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        short_length = evaluation.short_length
        if state.best_step == state.step:
            self.best_validation_nll = None if short_length else evaluation.validation_nll
        self._append(
            "evaluation",
            state,
            validation_loss=evaluation.validation_loss,
            standard_error=evaluation.standard_error,
            training_loss=evaluation.training_loss,
            best_validation_loss=state.best_validation_loss,
            best_step=state.best_step,
            **({"short_length": short_length} if short_length else {}),
        )

    def paced(self, plan: StepPlan) -> None:
        append_plan(self.run.pace_file, plan)

    def save(self, state: TrainingState) -> None:
        self.wait()  # so that there is one copy at a time
        training = self.training
        model, optimizer = merged(training.model), training.step.optimizer.tensors
        if self.background is not None:  # the next step changes them
            model, optimizer = _copied(model), _copied(optimizer)
        save = partial(
            save_checkpoint,
            self.run.checkpoints_folder,
            state.step,
            config=asdict(self.model_config),
            state=state.record(training.device.torch),
            model=model,
            optimizer=optimizer,
            own_code=OwnCode.of(training.model).record(),
        )
        write = partial(self._write, save, replace(state))
        if self.background is None:
            write()
        else:
            self.background.begin(write)

    def _write(self, save: Callable[[], object], state: TrainingState) -> None:
        """Write a checkpoint; then the pointers move on, and then old ones go."""
        save()
        best = state.best_validation_loss
        self.run.point("last", state.step, None if math.isinf(best) else best)
        if not math.isinf(best):
            self.run.point("best", state.best_step, best)
        self._drop_old(state)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk; raises what writing it raised, such as
        UserError where the disk is full.
        """
        if self.background is not None:
            self.background.wait()

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self.wait()
        self._append(
            "end",
            state,
            reason=ending,
            peak_learning_rate=self.training.optimizer_config.learning_rate,
        )

    def _append(self, event: str, state: TrainingState, **values: object) -> None:
        common: dict[str, object] = {"event": event, "step": state.step}
        common |= {"max_steps": self.training.pace.last, "tokens": state.tokens}
        common["seconds"] = round(state.seconds, 3)
        append_event(self.run.metrics_file, common | values)

    def _drop_old(self, state: TrainingState) -> None:
        """Delete checkpoints that are neither the best nor among the newest, after the pointers
        moved on.
        """
        folder = self.run.checkpoints_folder
        keep = {checkpoint_name(state.best_step)}
        if corrected(self.training.model):  # the frozen weights are only there
            keep.add(checkpoint_name(0))
        keep |= {p.name for p in list_checkpoints(folder)[-self.training.config.keep_checkpoints :]}
        for path in list_checkpoints(folder):
            if path.name not in keep and step_of(path) < state.step:
                shutil.rmtree(path, ignore_errors=True)


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
