"""The newest whole checkpoint of a run into the parts of its training."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from folio.errors import UserError
from folio.recipe.origin import require_no_origin, weights_to_load
from folio.records import DamagedError
from folio.run.checkpoint import Checkpoint, list_checkpoints, newest_checkpoint, step_of
from folio.run.directory import Run
from folio.run.metrics import set_aside_events_after
from folio.run.own_code import require_same_code
from folio.training.low_rank import load_model_tensors
from folio.training.parts import Training
from folio.training.state import TrainingState


def restore(
    run: Run, training: Training, tell: Callable[[str], None] = lambda line: None
) -> tuple[TrainingState, Checkpoint | None]:
    """Load the newest whole checkpoint; where there is none, training begins.

    Args:
        run, training: that belong together.
        tell: takes a line about what is loaded, and what was wrong with newer ones.

    Raises:
        UserError: as of `whole_checkpoint`.
    """
    checkpoint, complaints = whole_checkpoint(run)
    if checkpoint is None:
        require_no_origin(run)
        state = TrainingState()
    else:
        complaints += require_same_code(training.model, checkpoint)
        load_model_tensors(training.model, weights_to_load(run, checkpoint, training.model))
        training.step.optimizer.load(checkpoint.optimizer_tensors())
        state = TrainingState.restore(checkpoint.state, training.device.torch)
        if min(state.loss_scale, training.step.loss_scale) > 1.0:  # both are in float16
            training.step.loss_scale = state.loss_scale
    for complaint in complaints:
        tell(f"warning: {complaint}")
    if checkpoint is not None and state.step:
        tell(f"going on from {checkpoint.path}")
    return state, checkpoint


def whole_checkpoint(run: Run) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, None if it has none yet; and what is wrong with newer
    ones.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    checkpoint, complaints = newest_checkpoint(run.checkpoints_folder, DamagedError)
    if checkpoint is None and complaints:
        raise UserError(
            f"No checkpoint of {run.path} is whole, so it cannot go on. {complaints[0]} To train "
            f"anew: {run.again}"
        )
    return checkpoint, complaints


def forget_later(run: Run, state: TrainingState, checkpoint: Checkpoint | None) -> None:
    """Remove what a run has of later than what was restored: damaged checkpoints, events, and the
    card, which says that it has ended.
    """
    run.card_file.unlink(missing_ok=True)
    for path in list_checkpoints(run.checkpoints_folder):
        if checkpoint is None or step_of(path) > checkpoint.step:
            shutil.rmtree(path, ignore_errors=True)
    set_aside_events_after(run.metrics_file, state.step, state.evaluated_step)
