"""Runs that are trained once: each test has a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from tests.conftest import copied, write_book
from tests.recipe.test_resume import recipe_of


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs `base`, of 30 steps, and `whole`, of 40."""
    folder = tmp_path_factory.mktemp("trained")
    book = write_book(folder)
    for name, steps in (("base", 30), ("whole", 40)):
        recipe = recipe_of(book, training={"max_steps": steps})
        train_recipe(recipe, name, Watcher(), folder=folder / "runs")
    return folder / "runs"


@pytest.fixture
def base(trained: Path) -> Run:
    return copied(trained / "base")


@pytest.fixture
def whole(trained: Path) -> Run:
    return copied(trained / "whole")
