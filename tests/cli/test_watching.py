"""How the command of a training leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from folio.cli import watching
from folio.cli.resume import resume
from folio.cli.train import train
from folio.cli.watching import leave_with
from folio.storage import StorageError
from folio.training.recorder import RunRecorder


def test_an_error_that_ends_a_training_stands_below_the_bar_which_is_gone(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    shown: list[str] = []

    class Bar:
        def __init__(self, *total: int, done: int = 0) -> None:
            shown.append("bar")

        def __enter__(self) -> None:
            shown.append("shown")

        def __exit__(self, *error: object) -> None:
            shown.append("gone")

    def fail(*given: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(watching, "Progress", Bar)
    monkeypatch.setattr(RunRecorder, "stepped", fail)
    shape = "--model.n-layers 1 --model.d-model 16 --model.n-heads 2 --model.context-length 16"
    words = [*shape.split(), "--device.kind", "cpu", "--training.batch-size", "4"]
    with pytest.raises(StorageError):
        train(str(book), "--training.max-steps", "2", *words, name="full")
    assert shown == ["bar", "shown", "gone"]
    with pytest.raises(StorageError):
        resume("full")
    assert shown[3:] == ["bar", "shown", "gone"]


@pytest.mark.parametrize(
    ("launched", "ending", "expected"),
    [(True, "interrupted", 75), (False, "interrupted", 0), (True, "finished", 0)],
)
def test_an_interrupted_training_tells_its_launcher_to_start_it_again(
    launched: bool, ending: str, expected: int, monkeypatch: pytest.MonkeyPatch
):
    shown: list[Any] = []
    monkeypatch.setattr(watching, "print_result", lambda result, json: shown.append(result))
    if launched:
        monkeypatch.setenv("WORLD_SIZE", "1")
    result, code = cast(Any, SimpleNamespace(ending=ending)), 0
    try:
        leave_with(result, json=False)
    except SystemExit as left:
        code = left.code
    assert code == expected and shown == [result]
