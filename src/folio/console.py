"""What a terminal shows: progress that moves, or plain lines where nobody watches. And Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

PLAIN_SECONDS = 10.0
"""Between plain lines of progress."""


def say(line: str) -> None:
    """A line for the user, on standard error, so that standard output stays data."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A question that is answered yes after Ctrl-C or SIGTERM; a second Ctrl-C ends at once."""
    asked = False

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar with numbers behind it, on standard error; lines where that is no terminal."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.begin_at = total, done
        self.live = sys.stderr.isatty()
        self.started = self.shown = time.monotonic()

    def __enter__(self) -> Self:
        if self.live:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self.console = Console(stderr=True, highlight=False)
            self.bar = Bar(
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True),
                console=self.console,
                expand=True,
                refresh_per_second=4,
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total, numbers="")
            self.bar.update(self.task, completed=self.begin_at)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.bar.stop()

    def update(self, done: int, numbers: str) -> None:
        """Show how far it is; cheap enough to be called at each step."""
        now = time.monotonic()
        if self.live:
            if now - self.shown > 0.1 or done == self.total:
                self.bar.update(self.task, completed=done, numbers=numbers)
                self.shown = now
        elif now - self.shown >= PLAIN_SECONDS:
            self.shown = now
            rate = (done - self.begin_at) / (now - self.started)
            left = duration((self.total - done) / rate) if rate else "?"
            say(f"{done}/{self.total}  {numbers}  {left} left")

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.live:
            self.console.print(text, markup=False)
        else:
            say(text)


def duration(seconds: float) -> str:
    """Time in words of two units at most.

    >>> duration(75), duration(3700)
    ('1 min 15 s', '1 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns padded to their width; numbers to the right.

    >>> print(table(["run", "loss"], [["a", "1.5"], ["bb", "12.25"]]))
    run   loss
    a      1.5
    bb   12.25
    """
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    numeric = [are_numbers(column) for column in zip(*rows)] or [False] * len(header)
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def are_numbers(column: Iterable[str]) -> bool:
    """Whether the cells of a column stand to the right; a dash stands for a number."""
    return all(cell[:1] in "0123456789-" for cell in column)
