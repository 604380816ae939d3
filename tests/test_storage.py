from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_a_file_that_cannot_be_read_is_not_said_to_be_one_that_cannot_be_written(tmp_path: Path):
    path, chapter = tmp_path / "a.txt", tmp_path / "chapter.txt"
    with pytest.raises(FileNotFoundError, match="chapter"), atomic_write(path) as file:
        file.write(chapter.read_text())
    with pytest.raises(FileNotFoundError, match="chapter"):
        link_or_copy(chapter, path)
    with pytest.raises(gzip.BadGzipFile), atomic_write(path, "wb") as file:
        file.write(gzip.decompress(b"no gzip file"))
    assert not path.exists()
    path.write_text("a file")
    for write in (
        lambda target: link_or_copy(path, target),
        lambda target: write_json(target, "not in a folder"),
    ):
        with pytest.raises(UserError, match=r"a\.txt/b cannot be written"):
            write(path / "b")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_what_is_not_a_file_is_not_replaced_by_one(tmp_path: Path):
    pipe = tmp_path / "pipe"  # or /dev/null
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe must be a file"), atomic_write(pipe) as file:
        file.write("new")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_windows_renames_what_another_program_reads_when_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
):
    replace, readers = os.replace, [PermissionError(errno.EACCES, "is read")] * 2

    def after_readers(source: Path, target: Path) -> None:
        if readers:
            raise readers.pop()
        replace(source, target)

    path = tmp_path / "a.json"
    write_json(path, "old")
    monkeypatch.setattr(storage.os, "replace", after_readers)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "win32":
        write_json(path, "new")
        monkeypatch.setattr(storage, "READ_SECONDS", -1.0)
        readers.append(PermissionError(errno.EACCES, "is read"))
    with pytest.raises(UserError, match=r"a\.json cannot be written"):
        write_json(path, "newest")
    assert read_json(path) == ("new" if platform == "win32" else "old")


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


def test_of_a_link_the_file_is_linked(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "cache").symlink_to(tmp_path / "a")
    link_or_copy(tmp_path / "cache", tmp_path / "b")
    (tmp_path / "a").unlink()
    assert (tmp_path / "b").read_text() == "x"


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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
        (RuntimeError("I/O error: File too large (os error 27)"), "larger than files may be"),
        (RuntimeError("write failed: Disk quota exceeded"), "share of the disk is full"),
        (OSError(errno.EIO, "Input/output error"), "disk failed"),
        (RuntimeError("a shape does not fit"), "a shape does not fit"),
    ],
)
def test_a_library_tells_of_the_disk_in_its_own_words(error: Exception, words: str):
    assert words in str(storage.storage_error(error, Path("x")))


def test_a_disk_without_locks_is_told_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    storage._warn_of_no_locks.cache_clear()
    for name in ("a", "b"):
        with locked(tmp_path / name, "it"):
            pass
    assert capsys.readouterr().err.count("No locks available") == 1


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(storage.tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("FOLIO_CACHE", str(tmp_path / "cache"))  # put back at the end
    storage._writable.cache_clear()
    yield
    storage._writable.cache_clear()


def test_without_a_home_the_cache_is_temporary(
    environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("FOLIO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    folder = storage.cache_folder()
    assert folder.is_dir() and os.environ["FOLIO_CACHE"] == str(folder)
    assert "FOLIO_CACHE names" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_still_read(
    environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "a.txt").write_text("old")
    make = storage.tempfile.TemporaryFile

    def refuse(dir: Path) -> object:
        if dir == tmp_path / "cache":
            raise OSError(errno.EROFS, "Read-only file system")
        return make(dir=dir)

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    folder = storage.cache_folder()
    assert folder != tmp_path / "cache" and (folder / "deep" / "a.txt").read_text() == "old"
    with atomic_write(folder / "deep" / "a.txt") as file:
        file.write("new")
    assert (tmp_path / "cache" / "deep" / "a.txt").read_text() == "old"


def test_threads_that_ask_for_the_umask_at_once_leave_it_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
):
    umask = os.umask

    def slowly(mask: int) -> int:
        found = umask(mask)
        time.sleep(0.001)  # others come in between
        return found

    before = umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", slowly)
        with ThreadPoolExecutor(4) as pool:
            modes = set(pool.map(lambda _: storage.file_mode(), range(20)))
        assert modes == {0o640} and umask(0o027) == 0o027
    finally:
        umask(before)
