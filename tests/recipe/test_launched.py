"""Whole runs by several processes, as torchrun or a scheduler launches them.

Which test shows what of many processes: tests/recipe/test_launched_torture.py.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from folio.errors import UserError
from folio.recipe.resume import resume_run, train_or_go_on
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.checkpoint import list_checkpoints
from folio.run.directory import Run, runs_folder
from folio.training import distributed
from folio.training.distributed import Processes
from folio.workers import ProcessPool, forks
from tests.recipe.test_resume import recipe_of
from tests.training import test_distributed

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked here")
SHORT: dict[str, Any] = {
    "model": {"n_layers": 1, "residual_dropout": 0, "attention_dropout": 0, "embedding_dropout": 0},
    "training": {"max_steps": 8, "evaluation_interval": 4, "log_interval": 1},
}


def launched(n: int, folder: Path, work: Callable[[Processes], Any]) -> list[Any]:
    """The answers of n processes, of which this is the first; each is in a group."""

    def joined(group: Processes) -> Any:
        distributed._joined = group  # pyright: ignore[reportPrivateUsage]
        try:
            return work(group)
        except SystemExit as left:
            return left.code
        finally:
            distributed._joined = None  # pyright: ignore[reportPrivateUsage]

    folder.mkdir(exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    return test_distributed.together(n, folder, joined)


def losses_of(run: Run) -> list[float]:
    losses = [event["loss"] for event in run.events("step")]
    return losses + [event["validation_loss"] for event in run.events("evaluation")]


def test_two_processes_stop_together_and_one_and_three_go_on(book: Path, tmp_path: Path):
    """Four windows a batch, so that three processes have different numbers of them."""
    recipe = recipe_of(book, **SHORT)
    whole = train_or_go_on(recipe, "whole", Watcher())
    assert whole is not None

    def begin(group: Processes) -> Any:
        asked = count()  # once in each step
        result = train_or_go_on(
            recipe, "ours", Watcher(), lambda: group.rank == 1 and next(asked) >= 2
        )
        return result and (result.ending, result.state.step)

    assert launched(2, tmp_path / "two", begin) == [("interrupted", 3)] * 2
    run = Run(runs_folder() / "ours")
    assert [p.name for p in list_checkpoints(run.checkpoints_folder)] == ["step-00000003"]
    assert [event["step"] for event in run.events("end")] == [3]

    def go_on(group: Processes) -> Any:
        asked = count()
        result = resume_run(run, {}, Watcher(), lambda: group.rank == 2 and next(asked) >= 2)
        return result and (result.ending, result.state.step)

    assert launched(3, tmp_path / "three", go_on) == [("interrupted", 6)] * 3
    result = resume_run(run, {}, Watcher())
    assert result is not None and result.ending == "finished"
    assert losses_of(run) == pytest.approx(losses_of(whole.run), rel=5e-4)
    assert result.state.tokens == whole.state.tokens


def test_processes_meet_again_for_each_run_of_a_program(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    for name, value in (told | {"FOLIO_TIMEOUT": "60"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_joined", None)
    recipe = recipe_of(book, **SHORT)

    def program(rank: int, _: None) -> list[int | None]:
        os.environ["RANK"] = str(rank)
        results = [
            train_recipe(recipe, "one", Watcher()),
            resume_run(Run(runs_folder() / "one"), {}, Watcher()),  # it is complete
            train_recipe(recipe, "two", Watcher()),
        ]
        return [result and result.state.step for result in results]

    with ProcessPool(2, [[program]], lambda: None) as pool:
        assert pool.run(0, [None, None]) == [[8, None, 8]] * 2
    one, two = (losses_of(Run(runs_folder() / name)) for name in ("one", "two"))
    assert one == two


def test_only_the_first_process_writes(book: Path, tmp_path: Path):
    recipe = recipe_of(book, **SHORT)

    def work(group: Processes) -> list[str]:
        written: list[str] = []
        if group.rank:  # a hook cannot be taken back, but this process ends
            sys.addaudithook(lambda event, args: written.extend(writes(event, args)))
            (tmp_path / "runs" / "probe").write_text("seen")
        train_or_go_on(recipe, "ours", Watcher())
        return written

    (tmp_path / "runs").mkdir()
    _, written = launched(2, tmp_path / "two", work)
    assert written == [str(tmp_path / "runs" / "probe")]
    assert (tmp_path / "runs" / "ours" / "last.json").exists()


def writes(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The paths below the runs that an audit event of Python writes, makes, moves or removes."""
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return []
        arguments = (path,)
    elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"):
        return []
    paths = [str(path) for path in arguments if isinstance(path, str | os.PathLike)]
    return [path for path in paths if path.startswith(os.environ["FOLIO_RUNS"])]


def test_a_mistake_is_told_by_the_first_process_and_ends_all(tmp_path: Path):
    recipe = recipe_of(tmp_path / "nofile.txt", **SHORT)

    def work(group: Processes) -> Any:
        try:
            return train_or_go_on(recipe, "ours", Watcher())
        except UserError as error:
            return str(error)

    first, second = launched(2, tmp_path / "two", work)
    assert "nofile.txt" in first and second == 2
    assert not (runs_folder() / "ours").exists()


def test_a_process_that_does_not_see_the_run_says_where(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = recipe_of(book, **SHORT)

    def work(group: Processes) -> Any:
        try:
            if group.rank:
                monkeypatch.setattr(Run, "exists", lambda run: False)
            return train_or_go_on(recipe, "ours", Watcher())
        except UserError as error:
            distributed.leave()
            return str(error)

    first, second = launched(2, tmp_path / "two", work)
    assert "died or hung" in first
    assert second.startswith("process 1 of 2, on ") and "must see the folder" in second


def test_saves_by_the_clock_are_made_by_the_first_process_at_the_step_of_all(
    book: Path, tmp_path: Path
):
    changes = {"save_minutes": 1e-9, "keep_checkpoints": 20, "save_in_background": "on"}
    recipe = recipe_of(book, model=SHORT["model"], training=SHORT["training"] | changes)

    def work(group: Processes) -> Any:
        result = train_or_go_on(recipe, "ours", Watcher())
        return result and (result.ending, result.state.step)

    assert launched(2, tmp_path / "two", work) == [("finished", 8)] * 2
    checkpoints = list_checkpoints(runs_folder() / "ours" / "checkpoints")
    assert [path.name for path in checkpoints] == [f"step-{i:08d}" for i in range(1, 9)]
