from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from folio import storage
from folio.errors import UserError
from folio.storage import atomic_write, link_or_copy, locked, read_json, sha256_of, write_json

HOLD = """
import sys, time
from pathlib import Path
from folio.storage import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:  # noqa: PT012
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_readable_by_others_as_umask_says(tmp_path: Path):
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"), atomic_write(path) as file:
        file.write("new")
    assert path.read_text() == "old"


def test_json_survives_and_damage_is_named(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"ä": 1})
    assert read_json(path) == {"ä": 1}
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_json(path)


def test_a_linked_file_survives_its_source(tmp_path: Path):
    source, target = tmp_path / "a", tmp_path / "deep" / "b"
    source.write_text("x")
    link_or_copy(source, target)
    source.unlink()
    assert target.read_text() == "x"


def test_sha256_agrees_with_the_published_value(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected


def test_a_lock_is_held_against_another_process_and_ends_with_it(tmp_path: Path):
    path = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid}"), locked(path, "it"):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with locked(path, "it"):  # a killed process leaves the file, not the lock
        assert f"process {os.getpid()}" in path.read_text()
