from __future__ import annotations

import errno
import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from folio.corpus import archives
from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.files import Findings, find_files, local_path
from folio.errors import UserError
from folio.storage import StorageError
from tests.corpus.making import write


def names(source: Path | str, base: Path, everything: bool = False) -> list[str]:
    found = find_files(str(source), Findings(), everything)
    return [str(Path(file.name).relative_to(base)) for file in found]


def test_a_folder_gives_its_files_in_order_without_hidden_ones(tmp_path: Path):
    for name in ("b.txt", "a.md", "sub/c.TXT", ".hidden.txt", ".git/d.txt", "picture.png"):
        write(tmp_path, name, name)
    assert names(tmp_path, tmp_path) == ["a.md", "b.txt", "sub/c.TXT"]
    assert "picture.png" in names(tmp_path, tmp_path, everything=True)


def test_a_colon_in_a_name_leads_out_of_no_archive(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("Re: tea.txt", "At five.")
    assert names(tmp_path / "a.zip", tmp_path) == ["a.zip/Re: tea.txt"]


def test_what_is_skipped_is_counted(tmp_path: Path):
    for name in ("a.txt", "b.png", "c.PNG", "Makefile"):
        write(tmp_path, name, name)
    findings = Findings()
    list(find_files(str(tmp_path), findings, False))
    assert findings.skipped == {".png": 2, "Makefile": 1}


def test_a_glob_gives_its_matches(tmp_path: Path):
    for name in ("a.txt", "b.log", "sub/c.txt", "[x].txt"):
        write(tmp_path, name, name)
    assert names(tmp_path / "*.txt", tmp_path) == ["[x].txt", "a.txt"]
    assert names(tmp_path / "**" / "*.txt", tmp_path) == ["[x].txt", "a.txt", "sub/c.txt"]
    assert names(tmp_path / "*.log", tmp_path) == ["b.log"]  # named, so read whatever it is called
    assert names(tmp_path / "[x].txt", tmp_path) == ["[x].txt"]  # a file of that very name


def test_a_glob_of_folders_gives_what_is_in_them_once(tmp_path: Path):
    for name in ("c1/a.txt", "c2/sub/b.txt", "d/c.txt"):
        write(tmp_path, name, name)
    assert names(tmp_path / "c*", tmp_path) == ["c1/a.txt", "c2/sub/b.txt"]
    assert names(tmp_path / "**", tmp_path) == ["c1/a.txt", "c2/sub/b.txt", "d/c.txt"]


def test_a_folder_that_a_glob_finds_anywhere_is_read_and_nothing_is_read_twice(tmp_path: Path):
    for name in ("vol1.txt", "vol2/a.txt", "vol2/vol3/b.txt", "vol2/vol4.log", "x/raw/c.txt"):
        write(tmp_path, name, name)
    findings = Findings()
    found = find_files(str(tmp_path / "**" / "vol*"), findings, everything=False)
    assert sorted(str(Path(file.name).relative_to(tmp_path)) for file in found) == [
        "vol1.txt", "vol2/a.txt", "vol2/vol3/b.txt", "vol2/vol4.log"
    ]  # fmt: skip
    assert not findings.skipped  # the glob names vol4.log
    assert names(tmp_path / "**" / "raw", tmp_path) == ["x/raw/c.txt"]
    assert len(names(tmp_path / "**", tmp_path)) == 5


def test_archives_are_looked_through_and_archives_in_them(tmp_path: Path):
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("deep.txt", "deep")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(inner, "x/inner.zip")
        file.writestr("b.txt", "b")
        file.writestr("__MACOSX/._b.txt", "b")
        file.writestr("picture.png", "p")
    inner.unlink()
    assert names(tmp_path, tmp_path) == ["a.zip/b.txt", "a.zip/x/inner.zip/deep.txt"]


def test_a_folder_without_text_says_what_was_there(tmp_path: Path):
    write(tmp_path, "a.doc", b"\xd0\xcf")
    with pytest.raises(UserError, match=r"no text .*Not known are 1 \.doc; --corpus.engine tika"):
        read_documents([str(tmp_path)], CorpusConfig())


def test_files_are_read_in_the_order_in_which_they_are_named(tmp_path: Path):
    paths = [str(write(tmp_path, name, f"<p>{name}</p>")) for name in ("b.html", "a.txt", "c.md")]
    documents = read_documents([paths[0], "python-docs", *paths[1:]], CorpusConfig()).documents
    kept = [d.source for d in documents if not d.source.startswith("python-docs")]
    assert kept == paths
    assert documents[0].source == paths[0] and documents[-1].source == paths[2]


def test_a_full_disk_is_not_a_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.txt", "text")

    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(archives.tempfile, "NamedTemporaryFile", full)
    for name in ("a.txt.gz", "b.zip"):
        with pytest.raises(StorageError, match="The disk is full"):
            list(find_files(str(tmp_path / name), Findings(), everything=False))


def test_a_packed_file_that_cannot_be_read_is_left_out_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    packed = {"a.zip", "b.tar.gz", "c.txt.gz"}
    for name in ("a.txt", *packed):
        write(tmp_path, name, "text")
    opened = Path.open

    def forbidden(path: Path, *args: Any, **named: Any) -> Any:  # as root, modes forbid nothing
        if path.name in packed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    reading = read_documents([str(tmp_path)], CorpusConfig())
    assert [document.text for document in reading.documents] == ["text"]
    assert {Path(name).name for name in reading.findings.refused} == packed
    assert set(reading.findings.refused.values()) == {"it cannot be read: Permission denied"}
    assert reading.findings.dropped == {"files that are left out": len(packed) * len("text")}


def test_a_name_that_begins_with_a_tilde_is_a_name_and_a_home_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("~draft.txt", "~$report.txt"):
        (tmp_path / name).write_text("text")
        assert local_path(name) == Path(name)
    assert local_path("~/notes.txt") == tmp_path / "home" / "notes.txt"
    assert local_path("~nobody-of-this-name/a.txt") == Path("~nobody-of-this-name/a.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_that_is_named_as_a_page_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.html")
    findings = Findings()
    assert list(find_files(str(tmp_path), findings, everything=False)) == []
    assert "pipe" in findings.refused[str(tmp_path / "a.html")]


def test_a_folder_that_may_not_be_looked_into_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.txt").write_text("text")

    def closed(path: Path) -> bool:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.isfile(path)  # noqa: PTH113 (the other one calls this)

    monkeypatch.setattr(Path, "is_file", closed)
    found = find_files(str(tmp_path), Findings(), everything=False)
    assert [file.path.name for file in found] == ["a.txt"]
