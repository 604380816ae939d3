"""The guard of a run, and the table that is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import folio
from folio.generation.guard import _Row
from folio.recipe.recipe import make_recipe
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run import novelty
from folio.run.model import Model
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


def test_old_text_that_was_kept_is_not_copied_either_and_what_is_not_there_is_said(
    opened: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    new = tmp_path / "new.txt"
    new.write_text(prose(300, 2))
    of_old, of_new = (prose(300, seed)[500:600].encode() for seed in (1, 2))
    for keep in (0.0, 0.5):
        table = {"start": {"run": "guarded", "keep": keep}, "corpus": {"sources": [str(new)]}}
        table |= {"training": {"max_steps": 1}, "device": {"precision": "float32", "threads": 1}}
        run = train_recipe(make_recipe(started(table)), f"keep-{keep}", Watcher()).run
        capsys.readouterr()
        guard = folio.load(run.path).guard(30)
        assert ("does not know the text that" in capsys.readouterr().err) == (keep == 0.0)
        assert not _Row(guard.table).goes_on(of_new)
        assert _Row(guard.table).goes_on(of_old) == (keep == 0.0)
