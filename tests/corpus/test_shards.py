from __future__ import annotations

import errno
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus import shards
from folio.corpus.shards import Shards
from folio.errors import UserError

KEYS = st.lists(st.integers(0, 20).map(lambda i: (i * 0x9E3779B97F4A7C15) % (1 << 64)), max_size=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, shards and memory that a few rows fill."""
    monkeypatch.setattr(shards, "RUN_ROWS", 5)
    monkeypatch.setattr(shards, "SHARD_ROWS", 7)
    monkeypatch.setattr(shards, "MEMORY_BYTES", 200)


def shards_of(additions: list[list[int]]) -> list[list[tuple[int, int]]]:
    """What comes back of rows (key, number of the row)."""
    n = 0
    with closing(Shards(number=np.int64)) as rows:
        for keys in additions:
            rows.add(np.array(keys, np.uint64), np.arange(n, n + len(keys)))
            n += len(keys)
        return [[(int(row["key"]), int(row["number"])) for row in shard] for shard in rows]


@given(st.lists(KEYS, max_size=5))
def test_all_rows_come_back_by_key_and_in_order_and_a_key_in_one_shard(additions: list[list[int]]):
    everything = [key for keys in additions for key in keys]
    found = shards_of(additions)
    assert [row for shard in found for row in shard] == sorted(
        (key, number) for number, key in enumerate(everything)
    )
    homes = [{key for key, _ in shard} for shard in found]
    assert sum(map(len, homes)) == len(set(everything))


def test_a_shard_has_few_rows_where_keys_differ():
    found = shards_of([[i * ((1 << 64) // 300) for i in range(300)]])
    assert [len(shard) for shard in found] == [6] + [7] * 42


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(Shards()) as rows:
        monkeypatch.setattr(rows._file, "write", full)
        with pytest.raises(UserError, match="The disk is full"):
            rows.add(np.arange(9, dtype=np.uint64))
