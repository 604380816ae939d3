"""A process that extracts documents takes half a second to start: it stays for the next test."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from typing import ClassVar

from folio.corpus.extraction import Task, _Worker

OWN = ("PYTEST_CURRENT_TEST", "FOLIO_CACHE", "FOLIO_RUNS")
"""Variables that each test has, and the process does not read."""


class LastingWorker(_Worker):
    """Takes a process that is idle and of the same environment and folder, and leaves it idle."""

    idle: ClassVar[defaultdict[str, list[subprocess.Popen[str]]]] = defaultdict(list)

    def __init__(self) -> None:
        there = {name: value for name, value in os.environ.items() if name not in OWN}
        self.key, self.at_work = f"{os.getcwd()} {sorted(there.items())}", False  # noqa: PTH109
        if self.idle[self.key]:
            self.process, self.ended = self.idle[self.key].pop(), False
        else:
            super().__init__()

    def extract(self, task: Task, limit_seconds: float) -> str | None:
        self.at_work = True
        refused = super().extract(task, limit_seconds)
        self.at_work = False
        return refused

    def end(self) -> None:
        if self.at_work or self.ended:  # it crashed, or was too slow
            super().end()
        else:
            self.idle[self.key].append(self.process)

    @classmethod
    def end_all(cls) -> None:
        for process in (process for kept in cls.idle.values() for process in kept):
            process.communicate("")
        cls.idle.clear()
