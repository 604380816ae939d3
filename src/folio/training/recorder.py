"""An Observer that writes the run directory: metrics and checkpoints, of which it deletes
old ones.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from folio.model.config import ModelConfig
from folio.run.checkpoint import checkpoint_name, list_checkpoints, save_checkpoint, step_of
from folio.run.directory import Run
from folio.run.metrics import append_event
from folio.run.own_code import OwnCode
from folio.training.low_rank import corrected
from folio.training.pace import Knot
from folio.training.pace_file import append_knot
from folio.training.parts import Ending, Evaluation, Training
from folio.training.state import TrainingState, model_tensors


class RunRecorder:
    """Records everything needed to look at a run and to resume it."""

    def __init__(self, run: Run, training: Training, model_config: ModelConfig) -> None:
        self.run, self.training, self.model_config = run, training, model_config
        self.best_validation_nll: NDArray[np.float32] | None = None
        """(N - 1,) nats of each validation target at the best step, if that was evaluated here."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
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
        if state.best_step == state.step:
            self.best_validation_nll = evaluation.validation_nll
        self._append(
            "evaluation",
            state,
            validation_loss=evaluation.validation_loss,
            standard_error=evaluation.standard_error,
            training_loss=evaluation.training_loss,
            best_validation_loss=state.best_validation_loss,
            best_step=state.best_step,
        )

    def paced(self, knot: Knot) -> None:
        append_knot(self.run.pace_file, knot)

    def save(self, state: TrainingState) -> None:
        training = self.training
        save_checkpoint(
            self.run.checkpoints_folder,
            state.step,
            config=asdict(self.model_config),
            state=state.record(training.device.torch),
            model=model_tensors(training.model),
            optimizer=training.step.optimizer.tensors,
            own_code=OwnCode.of(training.model).record(),
        )
        best = state.best_validation_loss
        self.run.point("last", state.step, None if math.isinf(best) else best)
        if not math.isinf(best):
            self.run.point("best", state.best_step, best)
        self._drop_old(state)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self._append(
            "end",
            state,
            reason=ending,
            peak_learning_rate=self.training.optimizer_config.learning_rate,
        )

    def _append(self, event: str, state: TrainingState, **values: object) -> None:
        common: dict[str, object] = {"event": event, "step": state.step, "tokens": state.tokens}
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
