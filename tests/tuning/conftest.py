"""Studies of the tests in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from folio.config import merge
from folio.recipe.watcher import Watcher
from folio.tuning.study import Study
from tests.tuning.studies import RECIPE, SPACE, MakeStudy


@pytest.fixture
def make_study(book: Path, tmp_path: Path) -> MakeStudy:
    from folio.tuning.making import ensure_study
    from folio.tuning.study import Request

    def make(space: dict[str, Any] | None = None, **search: Any) -> Study:
        recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
        request = Request(recipe=recipe, space=space or SPACE, search={"repeats": 0} | search)
        return ensure_study(tmp_path / "study", request, 1, Watcher())

    return make
