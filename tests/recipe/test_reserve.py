"""The name of a new run is nobody else's, and its folder holds nothing of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.errors import UserError
from folio.recipe import reserve, train
from folio.recipe.recipe import Recipe, save_recipe
from folio.recipe.reserve import new_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, find_run, runs_folder
from tests.recipe.test_resume import recipe_of, weights_of


def test_a_folder_of_something_else_is_no_place_for_a_run(book: Path, tmp_path: Path):
    for file in ("README.md", "study.toml"):
        (tmp_path / file / "x").mkdir(parents=True)
        (tmp_path / file / "x" / file).write_text("mine")
        with pytest.raises(UserError, match="is there and is not a run"):
            train_recipe(recipe_of(book), "x", Watcher(), folder=tmp_path / file)
        assert [path.name for path in (tmp_path / file / "x").iterdir()] == [file]


def test_a_folder_of_hidden_files_is_a_place_for_a_run_and_stays_where_none_was_made(
    book: Path, tmp_path: Path
):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".DS_Store").touch()
    for _ in range(2):  # a lock is there, too, the second time
        with new_run(recipe_of(book), "x", tmp_path) as run:
            assert run.path == tmp_path / "x"
        assert (tmp_path / "x" / ".DS_Store").exists()


def test_names_of_other_cases_are_taken_as_on_disks_that_know_no_case(book: Path, tmp_path: Path):
    (tmp_path / "Book-modern-3").mkdir()
    with new_run(recipe_of(book), None, tmp_path) as run:
        assert run.name == "book-modern-4"


def test_a_name_that_exists_is_refused(book: Path, whole: Run):
    with pytest.raises(UserError, match="folio resume whole"):
        train_recipe(recipe_of(book), "whole", Watcher())
    assert find_run("whole") == whole


def test_a_start_that_was_killed_leaves_nothing_to_a_new_run_of_its_name(
    book: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    def killed(path: Path, recipe: Recipe) -> None:
        if path.name == "recipe.toml":
            raise KeyboardInterrupt
        save_recipe(path, recipe)

    folder = runs_folder() / "again"
    folder.mkdir()  # a folder that was there is not removed, as after a kill
    (folder / "lock").touch()
    with monkeypatch.context() as patched:
        patched.setattr(train, "save_recipe", killed)
        patched.setattr(reserve, "_give_up", lambda run: None)  # nothing runs after a kill
        start = {"run": str(whole.path)}
        canaries = {"corpus": {"sources": [str(book)], "canaries": 3}}
        recipe = Recipe.of(**canaries, start=start, training={"minutes": 1.0})
        with pytest.raises(KeyboardInterrupt):
            train_recipe(recipe, "again", Watcher())
    assert {"start.json", "pace.jsonl", "canaries.json"} < {x.name for x in folder.iterdir()}
    again = train_recipe(recipe_of(book), "again", Watcher()).run
    assert weights_of(again, 40) == weights_of(whole, 40)
    assert {x.name for x in again.path.iterdir()} == {x.name for x in whole.path.iterdir()}
    assert {x.name for x in (again.path / "tokens").iterdir()} == {
        x.name for x in (whole.path / "tokens").iterdir()
    }


def test_a_start_that_failed_is_no_killed_one_whose_files_may_be_removed(book: Path):
    mine = runs_folder() / "mine"
    mine.mkdir(parents=True)
    with pytest.raises(UserError, match="There is no file"):
        train_recipe(Recipe.of(corpus={"sources": ["nothing.txt"]}), "mine", Watcher())
    assert not list(mine.iterdir())
    (mine / "tokenizer.json").write_text("{}")  # by the user
    with pytest.raises(UserError, match="is there and is not a run"):
        train_recipe(recipe_of(book), "mine", Watcher())
    assert (mine / "tokenizer.json").exists()


def test_what_a_run_left_that_lost_its_recipe_is_not_replaced(book: Path, whole: Run):
    whole.recipe_file.unlink()
    before = sorted(whole.path.rglob("*"))
    with pytest.raises(UserError, match="is there and is not a run"):
        train_recipe(recipe_of(book), "whole", Watcher())
    assert sorted(whole.path.rglob("*")) == before
