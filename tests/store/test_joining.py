from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from folio.store import joining
from tests.store.making import make, work_inside, write_sources


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
