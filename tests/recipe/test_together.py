"""A whole run by several processes that divide its optimizer or its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import folio
from folio.recipe.recipe import Recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, find_run
from folio.training import distributed
from folio.training.distributed import Processes
from folio.workers import forks
from tests.loggers.keeping import Kept, log_with
from tests.recipe.test_resume import recipe_of, stop_at
from tests.training.test_fsdp_step import together

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked here")
EXACT = {"residual_dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
SHORT = {"max_steps": 6, "evaluation_interval": 3}


def weights_of(run: Run) -> dict[str, Any]:
    checkpoint, _ = run.checkpoint("last")
    return load_file(checkpoint.path / "model.safetensors")


def begin(recipe: Recipe, folder: Path) -> None:
    """Train by two processes, until the first of them is asked to stop."""

    def work(group: Processes) -> str:
        watcher, should_stop = stop_at(3)
        distributed._joined = group  # pyright: ignore[reportPrivateUsage]
        try:
            return train_recipe(recipe, "ours", watcher, should_stop).ending
        finally:
            distributed._joined = None  # pyright: ignore[reportPrivateUsage]

    assert together(2, folder, work) == ["interrupted", "interrupted"]


@pytest.mark.parametrize(("sharding", "n_samples"), [("optimizer", 1), ("full", 0)])
def test_loggers_are_shown_no_sample_of_weights_that_have_changed_since(
    sharding: str, n_samples: int, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a divided model the first process has the weights of the last checkpoint."""
    monkeypatch.setattr("folio.recipe.train.require_installed", lambda names: None)
    log_with(monkeypatch, kept := Kept())
    training = SHORT | {"sharding": sharding, "log": ["wandb"]}
    begin(recipe_of(book, model=EXACT, training=training), tmp_path)
    assert kept.steps("evaluation/validation_loss") == kept.steps("learned/memory_bytes") == [3]
    assert len(kept.texts) == n_samples


@pytest.mark.parametrize("sharding", ["optimizer", "full"])
def test_one_process_samples_and_goes_on_with_what_two_divided(
    sharding: str, book: Path, tmp_path: Path
):
    recipe = recipe_of(book, model=EXACT, training=SHORT | {"sharding": sharding})
    begin(recipe, tmp_path)
    run = find_run("ours")
    assert sorted(p.name[-1] for p in run.checkpoints_folder.iterdir()) == ["3", "4"]
    assert len(folio.load(run.path).generate("", max_tokens=5, stop=False)) > 0
    resumed = resume_run(run, {}, Watcher())
    assert resumed is not None and (resumed.ending, resumed.state.step) == ("finished", 6)
    alone = train_recipe(recipe, "alone", Watcher())
    found, expected = weights_of(run), weights_of(alone.run)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-3 * np.abs(values).max(), name
