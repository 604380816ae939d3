from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from folio.errors import UserError
from folio.store import joining
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
