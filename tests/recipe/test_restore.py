"""What a run loses when it goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from folio.recipe.restore import forget_later
from folio.run.checkpoint import Checkpoint, checkpoint_name, list_checkpoints
from folio.run.directory import Run
from folio.training.state import TrainingState


def test_later_checkpoints_go_by_their_steps_of_however_many_digits(tmp_path: Path):
    run = Run(tmp_path)
    before, restored, later = (
        run.checkpoints_folder / checkpoint_name(step)
        for step in (99_999_980, 99_999_990, 100_000_050)
    )
    for path in (before, restored, later):
        path.mkdir(parents=True)
    checkpoint = Checkpoint(restored, 99_999_990, config={}, state={})
    forget_later(run, TrainingState(step=checkpoint.step), checkpoint)
    assert list_checkpoints(run.checkpoints_folder) == [before, restored]
