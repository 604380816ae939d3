"""Groups rows by key when they are too many for memory.

Rows are written in runs, each sorted by key, and read back from all runs one range of keys at a
time: memory holds one run or one range. A small number of rows never reaches the disk.

Source: the partitions of a hash join, DeWitt et al. 1984, "Implementation techniques for main
memory database systems", https://doi.org/10.1145/602259.602261.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.storage import storage_error

RUN_ROWS = 1 << 16
SHARD_ROWS = 1 << 18
"""How many rows are read back at once, unless more share a key."""
RANGE_BITS = 10
"""The highest bits of a key name its range; a range is never divided."""
MEMORY_BYTES = 4 << 20
"""Rows beyond this size go to disk."""


class Shards:
    """Rows with keys of 64 uniformly distributed bits."""

    def __init__(self, **columns: type[np.generic]) -> None:
        dtype = np.dtype([("key", np.uint64), *columns.items()])
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115  (see close)
        self._run = np.empty(RUN_ROWS, dtype)
        self._filled = 0
        self._sizes: list[NDArray[np.int64]] = []  # (2^RANGE_BITS,) rows of each range, by run

    def add(self, *columns: NDArray[Any]) -> None:
        """Add rows.

        Args:
            columns: (n,) the keys, then each column in its order.
        """
        done, n = 0, len(columns[0])
        while done < n:
            room = self._run[self._filled : self._filled + n - done]
            for name, column in zip(self._run.dtype.names or (), columns):
                room[name] = column[done : done + len(room)]
            done += len(room)
            self._filled += len(room)
            if self._filled == RUN_ROWS:
                self._write()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """All rows, about SHARD_ROWS at a time, sorted by key."""
        self._write()
        sizes = np.array(self._sizes, np.int64).reshape(-1, 1 << RANGE_BITS)
        ends = np.cumsum(sizes).reshape(sizes.shape)  # rows of the file
        shards = np.cumsum(sizes.sum(axis=0)) // SHARD_ROWS
        edges = (np.flatnonzero(np.diff(shards)) + 1).tolist()
        for begin, end in pairwise([0, *edges, len(shards)]):
            places = zip(ends[:, begin] - sizes[:, begin], ends[:, end - 1])
            parts = [self._read(first, stop) for first, stop in places]
            if parts:
                yield _sorted(np.concatenate(parts))

    def close(self) -> None:
        """Release memory and disk space."""
        self._file.close()

    def _write(self) -> None:
        run = _sorted(self._run[: self._filled])
        ranges = (run["key"] >> np.uint64(64 - RANGE_BITS)).astype(np.int64)
        self._sizes.append(np.bincount(ranges, minlength=1 << RANGE_BITS))
        self._filled = 0
        try:
            self._file.write(run.tobytes())
        except OSError as error:
            raise storage_error(error, Path(tempfile.gettempdir())) from error

    def _read(self, first: int, stop: int) -> NDArray[Any]:
        row_bytes = self._run.dtype.itemsize
        self._file.seek(first * row_bytes)
        return np.frombuffer(self._file.read((stop - first) * row_bytes), self._run.dtype)


def _sorted(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[np.argsort(rows["key"], kind="stable")]  # fast on data made of sorted runs
