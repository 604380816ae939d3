"""What a terminal shows: progress that moves, or plain lines where nobody watches. And Ctrl-C.

What is shown never ends what is done. Inside `output`, a line that cannot be shown is given up.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self, TextIO, cast

PLAIN_SECONDS = 10.0
"""Between plain lines of progress."""

BAR_ROOM = 66
"""Columns for numbers and a bar, below which there is no bar."""

STOPPING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]
"""Signals that ask a command to save and end; Windows has no SIGHUP, but SIGBREAK."""

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
for harmless in "\n\t":
    del CONTROLS[ord(harmless)]
"""Characters that command a terminal, or turn the order of what it shows -> how they are shown."""


class OutputError(Exception):
    """Standard output cannot take what it was for: its disk is full, or its reader is gone."""

    def __init__(self, error: OSError, from_device: bool) -> None:
        super().__init__(str(error))
        # A terminal that was closed gives EIO, and Windows EINVAL for a pipe that nobody reads.
        closed = errno.EINVAL if sys.platform == "win32" else errno.EIO if from_device else None
        self.reader_gone = isinstance(error, BrokenPipeError) or error.errno == closed
        self.reason = error.strerror or str(error)


class _Output:
    """A standard stream whose failure is known, and happens once.

    Characters that it has no code for are replaced. After a failed write its descriptor leads
    nowhere, for all that writes to it.
    """

    def __init__(self, stream: TextIO, needed: bool) -> None:
        self.stream, self.needed = stream, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        coded = text.encode(encoding, errors="replace").decode(encoding)
        self._attempt(lambda: self.stream.write(coded))
        return len(text)

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except ValueError:  # closed
            pass
        except OSError as error:
            from_device = False
            with suppress(OSError, ValueError):
                from_device = stat.S_ISCHR(os.fstat(self.stream.fileno()).st_mode)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)
                self.stream.flush()  # what it still holds
            if self.needed:
                raise OutputError(error, from_device) from error


@contextmanager
def output() -> Iterator[None]:
    """Standard streams that are there, take any character, and fail as they should.

    Where standard error fails, nothing is shown any more, and that is all.

    Raises:
        OutputError: from whatever writes to standard output, or at the end.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if None in before:  # then files of the run would take these numbers
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    sys.stdin = before[0] or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    streams = [stream or open(os.devnull, "w", encoding="utf-8") for stream in before[1:]]  # noqa: SIM115
    sys.stdout = cast(TextIO, _Output(streams[0], needed=True))
    sys.stderr = cast(TextIO, _Output(streams[1], needed=False))
    try:
        yield
        sys.stdout.flush()
    finally:
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def show(*texts: object, end: str = "\n", flush: bool = False) -> None:
    """Print data on standard output; on a terminal, nothing in it is a command to that."""
    text = " ".join(map(str, texts))
    print(escape(text) if sys.stdout.isatty() else text, end=end, flush=flush)


def say(line: str) -> None:
    """A line for the user, on standard error, so that standard output stays data."""
    if sys.stderr is None:  # print would take standard output
        return
    with suppress(OSError, ValueError):  # also outside of `output`
        print(escape(line) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def escape(text: str) -> str:
    """The text without commands to a terminal; each character stands for itself, so that a
    sequence that comes in pieces is none either.

    >>> print(escape(chr(27) + "[31mred"))
    \\x1b[31mred
    """
    return text.translate(CONTROLS)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A question that is answered yes after Ctrl-C, SIGTERM or SIGHUP; a second one ends at once.

    Signals that are ignored, as nohup does, stay ignored. Outside of the main thread, which alone
    hears signals, the answer is no.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for heard in before:
            signal.signal(heard, signal.SIG_DFL)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.getsignal(number)
                signal.signal(number, note)
    except ValueError:  # not the main thread
        before.clear()
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar with numbers behind it, on standard error; lines where that is no terminal."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.begin_at = total, done
        self.live = sys.stderr is not None and sys.stderr.isatty()
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
                *([BarColumn(bar_width=None)] if self._room() >= BAR_ROOM else []),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self.console,
                expand=self._room() >= BAR_ROOM,
                refresh_per_second=4,
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total, numbers="")
            self.bar.update(self.task, completed=self.begin_at)
        return self

    def _room(self) -> int:
        """Columns beside the steps and the time that is left."""
        return self.console.size.width - 2 * len(str(self.total)) - len("/ 00:00:00 ")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.bar.stop()

    def plan_anew(self, total: int) -> None:
        """Change how much there is to do."""
        self.total = total
        if self.live:
            self.bar.update(self.task, total=total)

    def update(self, done: int, numbers: str) -> None:
        """Show how far it is; cheap enough to be called at each step."""
        now = time.monotonic()
        if self.live:
            if now - self.shown > 0.1 or done == self.total:
                shown = fitting(numbers, self._room())
                self.bar.update(self.task, completed=done, numbers=shown)
                self.shown = now
        elif now - self.shown >= PLAIN_SECONDS:
            self.shown = now
            rate = (done - self.begin_at) / (now - self.started)
            left = duration((self.total - done) / rate) if rate else "?"
            say(f"{done}/{self.total}  {numbers}  {left} left")

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.live:
            self.console.print(escape(text), markup=False)
        else:
            say(text)


def fitting(numbers: str, room: int) -> str:
    """As many numbers, which two blanks part, as there is room for; the first ones stay whole.

    >>> fitting("loss 2.345  best validation 2.456  9,000 tokens/s", 40)
    'loss 2.345  best validation 2.456'
    """
    words = numbers.split("  ")
    while len(words) > 1 and len("  ".join(words)) > room:
        words.pop()
    return "  ".join(words)


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
