"""What several files of tests read."""

from __future__ import annotations

import pytest

from folio.run.model import Model
from tests.recall.making import prose, train_on, with_names


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run of a text that repeats names; its windows have 64 tokens."""
    folder = tmp_path_factory.mktemp("in_window")
    path = folder / "book.txt"
    path.write_text(with_names(prose(3000, seed=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder / "runs"))
        return train_on(path, "named", steps=20)
