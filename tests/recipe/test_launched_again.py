"""A launcher such as torchrun starts the same command again, which goes on with its run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from folio.config import Table, merge
from folio.errors import UserError
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run, train_or_go_on
from folio.recipe.watcher import Watcher
from folio.run.directory import find_run
from tests.recipe.test_resume import TINY


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_command_that_is_launched_again_goes_on_with_its_run(
    book: Path, monkeypatch: pytest.MonkeyPatch, n_processes: int
):
    monkeypatch.chdir(book.parent)
    given = merge(TINY, {"corpus": {"sources": [book.name]}, "training": {"max_steps": 2}})
    begun = train_or_go_on(make_recipe(given), "again", Watcher(), given=given)
    assert begun is not None and begun.state.step == 2
    with pytest.raises(UserError, match="exists already"):
        train_or_go_on(make_recipe(given), "again", Watcher(), given=given)
    monkeypatch.setenv("WORLD_SIZE", str(n_processes))
    if n_processes > 1:
        alone = SimpleNamespace(rank=0, world_size=2, has_told=False, tell=lambda message: None)
        monkeypatch.setattr("folio.recipe.resume.join", lambda: alone)
    assert train_or_go_on(make_recipe(given), "again", Watcher(), given=given) is None
    other = merge(given, {"training": {"max_steps": 3}})
    with pytest.raises(UserError, match=r"began with training\.max_steps = 2"):
        train_or_go_on(make_recipe(other), "again", Watcher(), given=other)


@pytest.mark.parametrize(
    ("asked", "another"),
    [
        ({"max_tokens": 128}, {"max_tokens": 256}),
        ({"max_epochs": 0.01}, {"max_tokens": 128}),
        ({"max_steps": 2, "evaluations": 2}, {"evaluations": 1}),
        ({"max_steps": 2, "log_interval": 0}, {"log_interval": 7}),
        ({"minutes": 0.02}, {"minutes": 0.03}),
    ],
)
def test_what_was_left_open_or_was_no_number_of_steps_is_not_taken_for_another_request(
    book: Path, monkeypatch: pytest.MonkeyPatch, asked: Table, another: Table
):
    monkeypatch.setenv("WORLD_SIZE", "1")
    own: Table = {name: value for name, value in TINY["training"].items() if name != "max_steps"}
    own["evaluation_interval"] = 0
    given: Table = TINY | {"corpus": {"sources": [str(book)]}, "training": own | asked}
    given["device"] = {"kind": "cpu", "precision": "float32", "threads": 0}
    given["model"] = TINY["model"] | {"vocab_size": 512}
    assert train_or_go_on(make_recipe(given), "again", Watcher(), given=given) is not None
    assert train_or_go_on(make_recipe(given), "again", Watcher(), given=given) is None
    other = merge(given, {"training": another})
    with pytest.raises(UserError, match="exists already, and began with training"):
        train_or_go_on(make_recipe(other), "again", Watcher(), given=other)


def test_a_run_that_was_made_longer_is_known_by_the_old_command_and_the_new(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "1")
    given, longer = (
        merge(TINY, {"corpus": {"sources": [str(book)]}, "training": {"max_steps": steps}})
        for steps in (2, 3)
    )
    train_or_go_on(make_recipe(given), "again", Watcher(), given=given)
    assert resume_run(find_run("again"), {"training": {"max_steps": 3}}, Watcher()) is not None
    for table in (given, longer):
        assert train_or_go_on(make_recipe(table), "again", Watcher(), given=table) is None
