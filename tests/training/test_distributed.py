"""Several processes that train together."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.errors import UserError
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run


def test_processes_that_know_nothing_of_each_other_do_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE is 2"):
        train_recipe(make_recipe({}), "together", Watcher(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="WORLD_SIZE is 2"):
        resume_run(Run(tmp_path / "together"), {}, Watcher())
