"""The guard of a run, and the table that is kept of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import folio
from folio.generation.guard import _Row
from folio.recipe.recipe import make_recipe
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run import novelty
from folio.run.directory import Run
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


def gone_on(path: Path, name: str, origin: str, seed: int, keep: float) -> Run:
    """Train another text from the weights of a run."""
    text = path / f"{name}.txt"
    text.write_text(prose(300, seed))
    table = {"start": {"run": origin, "keep": keep}, "corpus": {"sources": [str(text)]}}
    table |= {"training": {"max_steps": 1}, "device": {"precision": "float32", "threads": 1}}
    return train_recipe(make_recipe(started(table)), name, Watcher()).run


def lets_through(run: Run) -> list[bool]:
    """Whether texts that `prose` wrote with the seeds 1, 2 and 3 may be written."""
    table = folio.load(run.path).guard(30).table
    texts = [prose(300, seed)[500:600].encode() for seed in (1, 2, 3)]
    return [_Row(table).goes_on(text) for text in texts]


def test_the_texts_of_all_runs_before_are_not_copied_either(
    opened: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for keep in (0.0, 0.5):
        second = gone_on(tmp_path, f"second-{keep}", "guarded", seed=2, keep=keep)
        third = gone_on(tmp_path, f"third-{keep}", second.name, seed=3, keep=keep)
        capsys.readouterr()
        assert lets_through(second) == [False, False, True]
        assert lets_through(third) == [False, False, False]
        assert "novel" not in capsys.readouterr().err


def test_old_text_that_is_not_there_is_named(
    opened: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bare = gone_on(tmp_path, "bare", "guarded", seed=2, keep=0.0)
    kept = gone_on(tmp_path, "kept", "guarded", seed=2, keep=0.5)
    third = gone_on(tmp_path, "third", "bare", seed=3, keep=0.0)
    first = opened.run.path.resolve()
    shutil.rmtree(first)
    text = tmp_path / "another.txt"
    text.write_text(prose(300, 4))
    train_on(text, "guarded", steps=1)  # another run of that name
    capsys.readouterr()
    for run, missing, expected in (
        (bare, f"the text of {first}", [True, False, True]),
        (kept, f"what {first} may have begun with", [False, False, True]),
        (third, f"the text of {first}", [True, False, False]),
    ):
        assert lets_through(run) == expected
        assert f"--novel cannot check {missing}: it is not there" in capsys.readouterr().err
