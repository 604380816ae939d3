"""Checkpoints by the clock, and beside the training."""

from __future__ import annotations

import errno
import os
import threading
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from folio.config import merge
from folio.errors import UserError
from folio.recipe.recipe import make_recipe
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run import checkpoint as checkpoint_module
from folio.run.checkpoint import _save, list_checkpoints, newest_checkpoint
from folio.run.directory import Run, runs_folder
from folio.storage import read_json
from folio.training.saving import Background, SaveTimer, saves_in_background
from folio.training.state import TrainingState

TINY = {
    "preset": "modern",
    "tokenizer": {"kind": "character"},
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 8, "evaluation_interval": 4, "save_interval": 1},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


def trained(book: Path, name: str, asked: str, watcher: Watcher | None = None) -> Run:
    changes: Any = {"training": {"save_in_background": asked, "keep_checkpoints": 9}}
    table = merge(TINY, {"corpus": {"sources": [str(book)]}}, changes)
    return train_recipe(make_recipe(table), name, watcher or Watcher()).run


def test_a_checkpoint_is_due_so_many_minutes_after_the_last_one(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    timer, never = SaveTimer(2), SaveTimer(0)
    now[0] += 119
    assert not timer.is_due()
    now[0] += 1
    assert timer.is_due() and timer.is_due(), "until there is one"
    timer.save(TrainingState())
    assert not timer.is_due()
    now[0] += 120
    assert timer.is_due() and not never.is_due()


def test_training_goes_on_while_a_checkpoint_of_the_same_bytes_is_written(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    off, on = trained(book, "off", "off"), Run(runs_folder() / "on")
    moved, seen = threading.Event(), list[int]()

    class Looking(Watcher):
        def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
            if state.step == 4:  # and nothing is written of step 3 yet
                found, complaints = newest_checkpoint(on.checkpoints_folder)
                assert found is not None and not complaints
                seen.extend([found.step, read_json(on.path / "last.json")["step"]])
                moved.set()

    def save(path: Path, tensors: Any) -> None:
        if path.parent.name == ".step-00000003.partial":
            assert moved.wait(60)
        _save(path, tensors)

    monkeypatch.setattr(checkpoint_module, "_save", save)
    trained(book, "on", "on", Looking())
    assert seen == [2, 2]
    steps = [path.name for path in list_checkpoints(off.checkpoints_folder)]
    assert len(steps) == 8
    for step, name in product(steps, ("model.safetensors", "optimizer.safetensors", "config.json")):
        pair = [(run.checkpoints_folder / step / name).read_bytes() for run in (off, on)]
        assert pair[0] == pair[1]
    assert [read_json(run.path / "last.json")["step"] for run in (off, on)] == [8, 8]
    assert "folio save" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("fatal", [3, 8])
def test_a_full_disk_ends_a_training_beside_it_as_it_would_have_before_it(
    book: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
):
    rename, run = checkpoint_module.rename, Run(runs_folder() / "full")

    def full(source: Path, target: Path) -> None:
        if target.name == f"step-{fatal:08d}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(checkpoint_module, "rename", full)
    with pytest.raises(UserError, match=f"disk is full: .*step-{fatal:08d} could not be written"):
        trained(book, "full", "on")
    assert newest_checkpoint(run.checkpoints_folder)[0] is not None
    assert not list(run.checkpoints_folder.glob(".*")) and not run.events("end")
    assert read_json(run.path / "last.json")["step"] == fatal - 1


def test_an_error_of_the_thread_is_raised_once_and_where_it_is_asked_for():
    background, go = Background(), threading.Event()

    def fail() -> None:
        go.wait(60)
        raise KeyError("x")

    background.begin(fail)
    background.check()  # it still works
    go.set()
    with pytest.raises(KeyError):
        background.wait()
    background.wait()
    background.begin(fail)
    done = list[int]()
    with pytest.raises(KeyError):
        background.begin(lambda: done.append(1))
    background.begin(lambda: done.append(2))
    background.wait()
    assert done == [2]


def test_without_a_thread_for_it_the_work_is_done_at_once(monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done, background = list[int](), Background()
    background.begin(lambda: done.append(1))
    assert done == [1]
    background.wait()


@pytest.mark.parametrize(
    ("asked", "kind", "deadline", "expected"),
    [
        ("auto", "cuda", None, True),
        ("auto", "cpu", None, False),
        ("on", "cpu", None, True),
        ("off", "cuda", None, False),
        ("on", "cuda", "a budget in minutes", False),
    ],
)
def test_saving_is_beside_the_training_where_steps_are_short(
    asked: str, kind: str, deadline: str | None, expected: bool
):
    training = SimpleNamespace(
        config=SimpleNamespace(save_in_background=asked),
        device=SimpleNamespace(config=SimpleNamespace(kind=kind)),
        deadline=deadline,
    )
    assert saves_in_background(cast(Any, training)) is expected
