from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from folio.corpus.corpus import CorpusConfig
from folio.corpus.files import printable
from folio.errors import UserError
from folio.store import joining
from folio.store.directory import Store
from folio.store.making import make_store
from folio.tokenizers.config import TokenizerConfig
from tests.store.making import content, make, work_inside, write_sources


def rows_in_memory() -> list[int]:
    """Kilobytes of each mapped file of rows that count as memory of this process."""
    maps = Path("/proc/self/smaps").read_text().split(".documents\n")[1:]
    return [int(of_one.split("Rss:")[1].split()[0]) for of_one in maps]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rows_that_were_read_do_not_count_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    write, found = joining._write, list[int]()

    def look(*given: Any) -> dict[str, Any]:
        found.extend(rows_in_memory())
        return write(*given)

    monkeypatch.setattr(joining, "_write", look)
    make(tmp_path / "store", write_sources(tmp_path / "sources"), workers=1)
    assert len(found) > 3 and not any(found)


def test_what_is_to_be_said_of_files_is_said_of_those_in_a_store_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    (tmp_path / "empty.html").write_text("<p></p>")
    text = "Grüße aus der großen Stadt und schöne Tage"
    (tmp_path / "old.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "holes.jsonl").write_text('{"text": "one"}\n{"id": 2}\n{"text": "three"}\n')
    packs = [tmp_path / "packed.zip", tmp_path / os.fsdecode(b"caf\xe9.zip")]
    for pack in packs:
        with ZipFile(pack, "w") as packed:
            for name in ("a.txt", "b.png"):
                packed.writestr(name, "The text of a file.")
    config, told = CorpusConfig(sources=(str(tmp_path),)), list[str]()
    characters = TokenizerConfig(kind="character")
    make_store(Store(tmp_path / "store"), config, characters, 1, told.append)
    assert "warning: empty.html is left out: it has no text" in told
    for pack in packs:
        skipped = f"warning: {printable(pack.name)}: files of unknown kind are skipped: 1 .png"
        assert any(skipped in line for line in told)
    assert any(line.startswith("warning: old.txt: not UTF-8; read as") for line in told)
    assert "warning: holes.jsonl: 1 of 3 records have no text in 'text'" in told


def test_a_store_whose_joining_was_interrupted_is_joined_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    sources = write_sources(tmp_path / "sources")
    store, _ = make(tmp_path / "store", sources)
    whole, write = content(store), joining.write_token_file

    def interrupted(path: Path, *given: Any) -> int:
        if path == store.tokens_file("validation"):
            raise KeyboardInterrupt
        return write(path, *given)

    monkeypatch.setattr(joining, "write_token_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(store.path, sources, validation_fraction=0.3)
    monkeypatch.setattr(joining, "write_token_file", write)
    with pytest.raises(UserError, match="is not finished"):
        store.index()
    make(store.path, sources)
    assert content(store) == whole
