"""Extracts documents into text files in the cache, in processes that can be killed when a file
hangs.

The result depends on the bytes, the reader and its version, and the settings; their digest names
the text in the cache, so that a file is extracted once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folio.console import Progress
from folio.corpus.formats.known import Format
from folio.corpus.processes import LostError, Pool, Process
from folio.device import cores
from folio.errors import UserError
from folio.storage import cache_folder, read_json

SECONDS_PER_BYTE = 1 / (1 << 20)
"""Added to the time limit, since large files may take longer."""
WORTH_A_PROCESS = 2 << 20
"""In bytes; one more process is started for each, up to the number of processors."""
PROGRESS_BYTES = 20 << 20
"""In bytes; a progress bar is shown above it."""
MEGABYTE = 10**6


@dataclass(frozen=True)
class Extraction:
    """The result of extracting a file, as the cache keeps it."""

    text: Path
    """Path of the text in UTF-8."""
    extractor: str
    places: list[tuple[int, str]]
    """Character positions at which a page or a chapter begins, with its name."""
    rows: list[tuple[int, int, str]] | None
    """Start and stop in bytes and the name of each document; None if the file is one document."""
    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    """What the file has but the text lacks: UTF-8 bytes by reason."""
    rewritten: dict[str, int] = field(default_factory=dict)
    """Bytes that unpacking and decoding took away, by step; negative where they added some."""
    conversations: list[int] = field(default_factory=list)
    """Which of the rows are conversations."""


@dataclass(frozen=True)
class Task:
    """A file to extract, with the settings of its reader."""

    path: Path
    sha256: str
    format: Format
    settings: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def target(self) -> Path:
        """Path of the result in the cache, without its suffix."""
        made_of = [self.sha256, self.format.extractor, sorted(self.settings.items())]
        name = hashlib.sha256(json.dumps(made_of).encode("utf-8")).hexdigest()
        return cache_folder() / "extracted" / name[:2] / name


def extract(tasks: Sequence[Task], limit_seconds: float) -> list[Extraction | str]:
    """Extract files, in parallel if that is worth it.

    Args:
        tasks: the files.
        limit_seconds: time for each file; a file of many megabytes gets more.

    Returns:
        For each task what it gave, or the reason why it was refused.
    """
    results: list[Extraction | str | None] = [_cached(task) for task in tasks]
    waiting = [i for i, result in enumerate(results) if result is None]
    for i in waiting:
        results[i] = missing_library(tasks[i].format)
    waiting = [i for i in waiting if results[i] is None]
    sizes = {i: tasks[i].n_bytes for i in waiting}
    total = sum(sizes.values())
    if waiting:
        n_workers = min(len(waiting), 1 + total // WORTH_A_PROCESS, cores())
        done = 0
        with Pool(n_workers, lambda: _Worker()) as pool, _progress(total) as show:
            limits = {i: limit_seconds + size * SECONDS_PER_BYTE for i, size in sizes.items()}
            jobs = {pool.submit(lambda *of: pool.worker().extract(*of), tasks[i], limits[i]): i
                    for i in sorted(waiting, key=lambda i: -sizes[i])}  # fmt: skip
            for job in as_completed(jobs):
                i = jobs[job]
                results[i] = job.result() or _cached(tasks[i]) or "it gave nothing"
                done += sizes[i]
                show(done, tasks[i].path.name)
    return [result if result is not None else "it gave nothing" for result in results]


def missing_library(known: Format) -> str | None:
    """How to install the package that a format needs; None if it is installed."""
    if not known.library or importlib.util.find_spec(known.library) is not None:
        return None
    what, extra = known.name, known.extra
    if known.library == "tika":
        what, extra = "other formats", "tika"
    return f"reading {what} needs the package {known.library}: pip install 'foliolm[{extra}]'"


def _cached(task: Task) -> Extraction | None:
    record = task.target.with_suffix(".json")
    if not record.exists():
        return None
    try:
        return Extraction(task.target.with_suffix(".txt"), **read_json(record))
    except (UserError, TypeError):  # cut off by a full disk: extract it again
        return None


class _progress:  # noqa: N801  (used as a function)
    """Shows the progress of a long extraction."""

    def __init__(self, total: int) -> None:
        self.bar = Progress(total // MEGABYTE) if total > PROGRESS_BYTES else None

    def __enter__(self) -> Callable[[int, str], None]:
        if self.bar is None:
            return lambda done, name: None
        bar = self.bar.__enter__()
        return lambda done, name: bar.update(done // MEGABYTE, f"MB  {name}")

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.__exit__(*error)


# ---- processes -------------------------------------------------------------------------


class _Worker(Process):
    """A process that extracts one file after the other."""

    def __init__(self) -> None:
        super().__init__("folio.corpus.extraction_worker")

    def extract(self, task: Task, limit_seconds: float) -> str | None:
        """Extract into the cache; return the reason if the file was refused."""
        request = {
            "path": str(task.path),
            "format": task.format.name,
            "settings": task.settings,
            "target": str(task.target),
            "seconds": limit_seconds,
        }
        try:
            return self.ask(request, limit_seconds)["refused"]
        except LostError as error:
            if error.late:
                return f"it took longer than {limit_seconds:.0f} s (--corpus.time-limit-seconds)"
            return "its reader crashed or ran out of memory"
