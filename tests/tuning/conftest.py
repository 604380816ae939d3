"""Studies of the tests in this folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from folio.config import merge
from folio.recipe.watcher import Watcher
from folio.tuning.study import Study, open_study
from tests.conftest import write_book
from tests.tuning.studies import RECIPE, SPACE, MakeStudy, never


def made(folder: Path, book: Path, space: dict[str, Any] | None = None, **search: Any) -> Study:
    from folio.tuning.making import ensure_study
    from folio.tuning.study import Request

    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    request = Request(recipe=recipe, space=space or SPACE, search={"repeats": 0} | search)
    return ensure_study(folder / "study", request, 1, Watcher())


@pytest.fixture
def make_study(book: Path, tmp_path: Path) -> MakeStudy:
    def make(space: dict[str, Any] | None = None, **search: Any) -> Study:
        return made(tmp_path, book, space, **search)

    return make


@pytest.fixture(scope="session")
def two_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of two trials, which ended."""
    from folio.tuning.worker import work

    folder = tmp_path_factory.mktemp("two-trials")
    study = made(folder, write_book(folder), trials=2)
    work(study, never)
    return study.path


@pytest.fixture
def finished(two_trials: Path, tmp_path: Path) -> Study:
    """A copy of it, among the folders of a test."""
    return open_study(Path(shutil.copytree(two_trials, tmp_path / "study")))
