"""A file that is of no use gets one line, and never a wait."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from folio.config import read_toml
from folio.errors import UserError
from folio.records import LackingError, Record, read_plain_text, read_text
from folio.storage import read_json, write_json

UNIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@UNIX
def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    for path, why in (
        (tmp_path / "pipe", "must be a file, and is a device, a pipe or a socket"),
        (Path("/dev/zero"), "must be a file, and is a device, a pipe or a socket"),
        (tmp_path / "folder", "must be a file, and is a folder"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (tmp_path / "none", "There is no file"),
    ):
        for read in (read_text, read_toml, read_json):
            with pytest.raises(UserError, match=why) as caught:
                read(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_pipe_that_a_shell_makes_is_read(folder: str, monkeypatch: pytest.MonkeyPatch):
    if not Path(folder).exists():
        pytest.skip("no such folder")
    monkeypatch.setattr(os.path, "realpath", str)  # macOS has no links there
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    assert read_text(Path(folder) / str(reading)) == "secret\n"
    os.close(reading)


def test_a_user_s_text_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"latin\.txt must be text in UTF-8: .*byte 0xe9"):
        read_plain_text(tmp_path / "latin.txt")


def test_a_file_is_named_by_what_it_lacks_however_deep(tmp_path: Path):
    path = tmp_path / "corpus.json"
    write_json(path, {"tokens": {"training": 3}, "sources": [{"name": "a"}]})
    record = read_json(path)
    assert record["tokens"] == {"training": 3} and "vocab_size" not in record["tokens"]
    for look in (
        lambda: record["tokenizer"],
        lambda: record["tokens"]["vocab_size"],
        lambda: record["sources"][0]["source"],
    ):
        with pytest.raises(LackingError, match=re.escape(f"{path} is damaged: it must have an")):
            look()
    path = tmp_path / "recipe.toml"
    path.write_text("[training]\nmax_steps = 3\n[[runs]]\nname = 'a'\n")
    table = read_toml(path)
    for look in (lambda: table["device"], lambda: table["runs"][0]["steps"]):
        with pytest.raises(KeyError, match=f"^{path} is damaged: it must have an entry '"):
            look()
    assert isinstance(table["training"], Record) and table.get("device") is None


@pytest.mark.parametrize(
    ("content", "kind", "why"),
    [
        (b"", dict, "it is empty"),
        (b"\0" * 40, dict, "it is empty"),
        (b'{"a": 1', dict, "Expecting"),
        (b"\xff\xfe{}", dict, "codec can't decode"),
        (b"[" * 100_000, dict, "recursion"),
        (b"[1]", dict, "it must hold a table"),
        (b"3", dict, "it must hold a table"),
        (b"{}", list, "it must hold a list of tables"),
        (b"[{}, 5]", list, "it must hold a list of tables"),
    ],
)
def test_damaged_json_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, content: bytes, kind: type, why: str
):
    path = tmp_path / "best.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path} is damaged: .*{why}.* Put a copy of it back"):
        read_json(path, kind)
