"""What a run loses when it goes on from a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from folio.errors import UserError
from folio.recipe.origin import require_no_origin
from folio.recipe.recipe import make_recipe, save_recipe
from folio.recipe.restore import forget_later, whole_checkpoint
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


def test_a_command_about_a_run_in_a_folder_with_a_blank_can_be_pasted(tmp_path: Path):
    run = Run(tmp_path / "my runs" / "first")
    (run.checkpoints_folder / checkpoint_name(5)).mkdir(parents=True)
    run.start_file.touch()
    save_recipe(run.recipe_file, make_recipe({}))
    said = [run.recipe_file.read_text(encoding="utf-8").splitlines()[0]]
    for refuse in (whole_checkpoint, require_no_origin):
        with pytest.raises(UserError) as raised:
            refuse(run)
        said.append(str(raised.value))
    for line in said:
        assert shlex.split(line.rpartition("folio train ")[2]) == [str(run.recipe_file)]
