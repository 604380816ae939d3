"""The guard of a run, and the table that is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.run import novelty
from folio.run.opening import Model
from folio.storage import cache_folder
from tests.recall.making import prose, train_on


@pytest.fixture
def opened(tmp_path: Path) -> Model:
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    return train_on(path, "guarded", steps=1)


def test_a_table_is_made_once(opened: Model, monkeypatch: pytest.MonkeyPatch):
    first = opened.guard(12).table
    monkeypatch.setattr(novelty, "make_table", None)
    assert (opened.guard(12).table.bits == first.bits).all()


@pytest.mark.parametrize("obstacle", ["a file", "a damaged table"])
def test_where_the_cache_fails_the_table_is_made_anew(
    obstacle: str, opened: Model, capsys: pytest.CaptureFixture[str]
):
    folder = cache_folder() / "novel"
    if obstacle == "a file":
        folder.write_text("in the way of a folder")
        expected = make = opened.guard(12).table
        assert (make.bits == opened.guard(12).table.bits).all()
        err = capsys.readouterr().err
        assert "the table of --novel is made anew each time" in err and err.count("\n") == 2
    else:
        expected = opened.guard(12).table
        (kept,) = folder.iterdir()
        kept.write_bytes(b"")
        assert (opened.guard(12).table.bits == expected.bits).all()
        assert kept.read_bytes() == expected.bits.tobytes()
    assert expected.bits.any()
