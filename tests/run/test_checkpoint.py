"""A checkpoint is whole or does not exist."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from folio.errors import UserError
from folio.records import DamagedError
from folio.run import checkpoint as module
from folio.run.checkpoint import (
    list_checkpoints,
    new_name,
    newest_checkpoint,
    open_checkpoint,
    save_checkpoint,
)

fcntl = pytest.importorskip("fcntl")
resource = pytest.importorskip("resource")

MODEL = {"w": torch.arange(6.0).view(2, 3)}
OPTIMIZER = {"0.exp_avg": torch.ones(2)}


def save(folder: Path, step: int, **state: int) -> Path:
    state = {"step": step, **state}
    return save_checkpoint(folder, step, {"n_layers": 1}, state, MODEL, OPTIMIZER)


def test_what_was_saved_comes_back(tmp_path: Path):
    opened = open_checkpoint(save(tmp_path, 7))
    assert (opened.step, opened.config, opened.state) == (7, {"n_layers": 1}, {"step": 7})
    assert torch.equal(opened.model_tensors()["w"], MODEL["w"])
    assert torch.equal(opened.optimizer_tensors()["0.exp_avg"], OPTIMIZER["0.exp_avg"])


NAMES = ["model.safetensors", "optimizer.safetensors", "config.json", "state.json", "manifest.json"]


def test_others_may_read_a_checkpoint_as_far_as_the_umask_lets_them(tmp_path: Path):
    before = os.umask(0o027)
    try:
        path = save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o640"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "empty"])
def test_damage_is_refused_and_the_newest_whole_one_is_used(tmp_path: Path, name: str, damage: str):
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        kept = {"flipped": len(data), "cut": len(data) - 1, "empty": 0}[damage]
        file.write_bytes(data[:kept])
    with pytest.raises(UserError, match="damaged"):
        open_checkpoint(file.parent)
    found, complaints = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    assert len(complaints) == 1 and "step-00000002" in complaints[0]


def test_checkpoints_are_in_the_order_of_their_steps_however_many_digits_those_have(tmp_path: Path):
    steps = [99_999_990, 99_999_999, 100_000_050]
    paths = [save(tmp_path, step) for step in steps]
    assert list_checkpoints(tmp_path) == paths
    newest, _ = newest_checkpoint(tmp_path)
    assert newest is not None and newest.step == steps[-1]


def test_only_a_damaged_checkpoint_is_passed_over_by_who_removes_what_is_later(tmp_path: Path):
    save(tmp_path, 1)
    manifest = save(tmp_path, 2) / "manifest.json"
    newer = manifest.read_text().replace('"format": 1', '"format": 99')
    for content, refused in ((newer, "newer version"), ("{", None)):
        manifest.write_text(content)
        assert newest_checkpoint(tmp_path)[0] is not None  # for who only reads
        if refused:
            with pytest.raises(UserError, match=refused):
                newest_checkpoint(tmp_path, DamagedError)
        else:
            found, complaints = newest_checkpoint(tmp_path, DamagedError)
            assert found is not None and found.step == 1 and len(complaints) == 1


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "nothing") == (None, [])


def calls_while_saving(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Every operation on the disk that a save makes, in order."""
    calls: list[str] = []
    for name in ("fsync", "rename", "replace"):
        real = getattr(os, name)

        def spy(*arguments: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, spy)
    save(folder, 1)
    monkeypatch.undo()
    return calls


class Killed(BaseException):
    """As if the process ended here: nothing of ours may clean up after it."""


def test_a_death_at_any_operation_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    n_calls = len(calls_while_saving(monkeypatch, tmp_path / "probe"))
    assert n_calls > 8
    for fatal in range(n_calls + 1):
        folder = tmp_path / str(fatal)
        save(folder, 1)
        count = 0
        with monkeypatch.context() as patch:
            for name in ("fsync", "rename", "replace"):
                real = getattr(os, name)

                def die(
                    *arguments: Any, real: Callable[..., Any] = real, fatal: int = fatal
                ) -> Any:
                    nonlocal count
                    if count >= fatal:
                        raise Killed
                    count += 1
                    return real(*arguments)

                patch.setattr(os, name, die)
            with suppress(Killed):
                save(folder, 2)
        found, complaints = newest_checkpoint(folder)
        assert found is not None and not complaints
        assert found.step == (2 if fatal >= n_calls - 1 else 1)
        assert open_checkpoint(save(folder, 2)).step == 2  # and the next attempt succeeds
        assert [path.name for path in list_checkpoints(folder)] == [
            "step-00000001",
            "step-00000002",
        ]


def test_the_later_of_two_states_of_a_step_is_kept_and_a_death_leaves_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = save(tmp_path, 1, evaluated_step=0)
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                save(tmp_path, 1, evaluated_step=1)
        assert open_checkpoint(before).state["evaluated_step"] == 0
    for later in (1, 2):
        assert save(tmp_path, 1, evaluated_step=later) == before
        assert open_checkpoint(before).state == {"step": 1, "evaluated_step": later}


@pytest.mark.parametrize("n_writes", range(6))
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_writes: int
):
    save(tmp_path, 1)
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > n_writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path, 2)
    monkeypatch.undo()
    found, complaints = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1 and not complaints
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_what_a_killed_save_left_goes_with_the_next_one_of_whatever_step(tmp_path: Path):
    left = tmp_path / ".step-00000002.partial"
    left.mkdir()
    (left / module.MODEL).write_bytes(b"half")
    save(tmp_path, 3)
    assert os.listdir(tmp_path) == ["step-00000003"]


def test_a_damaged_checkpoint_of_the_same_step_is_written_anew(tmp_path: Path):
    path = save(tmp_path, 1)
    (path / module.MODEL).write_bytes(b"")
    save(tmp_path, 1)
    assert open_checkpoint(path).step == 1


@pytest.mark.parametrize("side", ["attention", "feed_forward"])
def test_parameters_of_older_checkpoints_have_the_names_of_today(side: str):
    for old, new in {
        f"{side}.sublayer.x_proj.bias": f"{side}.x_proj.bias",
        f"{side}.sublayer.q_norm.weight": f"{side}.q_norm.weight",
        f"{side}.entry_norm.weight": f"{side}_norm.weight",
        f"{side}.exit_norm.bias": f"{side}_exit_norm.bias",
        f"{side}.sum_norm.weight": f"{side}_sum_norm.weight",
    }.items():
        assert new_name(f"blocks.10.{old}") == f"blocks.10.{new}"
        assert new_name(f"blocks.10.{new}") == f"blocks.10.{new}"
    assert new_name("final_norm.weight") == "final_norm.weight"


def test_flushing_takes_a_file_that_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # As Windows does it; folders are not flushed there.
    real = os.fsync

    def fsync(descriptor: int) -> None:
        is_file = not stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if is_file and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert open_checkpoint(save(tmp_path, 1)).step == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "Error while serializing: I/O error: No space left on device (os error 28)",
            "disk is full",
        ),
        ("Error while serializing: I/O error: File too large (os error 27)", "File too large"),
        (
            "Error while serializing: I/O error: Permission denied (os error 13)",
            "cannot be written",
        ),
        ("Error while serializing: Disk quota exceeded", "share of the disk is full"),
    ],
)
def test_an_error_of_the_library_that_saves_is_that_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: str
):
    save(tmp_path, 1)

    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise safetensors.SafetensorError(said)

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(UserError, match=expected):
            save(tmp_path, 2)
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert open_checkpoint(save(tmp_path, 2)).step == 2


def test_a_limit_on_the_size_of_files_leaves_the_old_checkpoint_and_nothing_half(tmp_path: Path):
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # bytes
    try:
        with pytest.raises(UserError, match="would be larger than files may be"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert open_checkpoint(tmp_path / "step-00000001").step == 1


def test_whatever_fails_while_saving_nothing_half_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "sha256_of", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(tmp_path, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_goes_away_while_it_is_checked_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    path = save(tmp_path, 1)
    real = Path.exists

    def exists(self: Path, **options: bool) -> bool:
        there = real(self, **options)
        if self.name == name:
            self.unlink()
        return there

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(UserError, match=name if "manifest" in name else "cannot be read|missing"):
        open_checkpoint(path)
