"""Which file a process was lost at: it notes each before it reads it, and who asked asks again."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from folio.corpus.processes import LostError, Process

try:
    import resource
except ImportError:  # Windows: a process may take any time there
    resource = None

PER_BYTE = 1 / (1 << 17)
"""Seconds of processor time that a file may take for each of its bytes, beside its limit."""


class Reading:
    """What a process reads, noted in a file of its own."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Begin with what `ask` says; without `seconds` nothing is limited."""
        self.note = Path(request["note"])
        self.seconds: float | None = request["seconds"]
        self.without: dict[str, str] = request["without"]
        """Why each file is not read at which a process was lost."""
        self._file = os.open(self.note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def close(self) -> None:
        """Forget the note: the work is done."""
        os.close(self._file)
        self.note.unlink(missing_ok=True)

    @contextmanager
    def of(self, name: str, n_bytes: int) -> Generator[None]:
        """Read a file of so many bytes in this block, or what is packed in it."""
        # One write, whose end is that of the line: a kill leaves the old name or the new one.
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"{json.dumps(name)}\n".encode("ascii"))
        with at_most(self.seconds and self.seconds + n_bytes * PER_BYTE):
            yield


@contextmanager
def at_most(seconds: float | None) -> Generator[None]:
    """End this process if the block takes more processor time: a reader may hang. Time by the clock
    would also end one that waits for a busy machine or a slow disk.
    """
    if resource is None or seconds is None:
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = math.ceil(time.process_time() + seconds)
    lowest = min(limit for limit in (most, soft, hard) if limit >= 0)  # -1 is none
    resource.setrlimit(resource.RLIMIT_CPU, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def ask(process: Callable[[], Process], request: dict[str, Any], note: Path) -> dict[str, Any]:
    """Have a process answer; a file at which one is lost for its time, or two otherwise, is left
    out of what they read.

    Args:
        process: gives one that lives.
        request: what is asked.
        note: the file for its `Reading`.

    Raises:
        LostError: it was lost, and not at a file.
    """
    without, losses = dict[str, str](), Counter[str | None]()
    while True:
        note.unlink(missing_ok=True)
        try:
            return process().ask(request | {"note": str(note), "without": without})
        except LostError as error:
            name = _noted(note)
            losses[name] += 1
            if losses[name] == 1 and not error.late:
                continue  # somebody may have killed it
            if name is None or name in without:
                raise
            without[name] = f"its reader {'takes too long' if error.late else 'crashes'}"


def _noted(note: Path) -> str | None:
    line = note.read_text("ascii").partition("\n")[0] if note.exists() else ""
    return json.loads(line) if line else None
