"""Terminal output: live progress, or plain lines if stderr is not a terminal. And Ctrl-C.

A failure to print never ends the work. Inside `output`, a line that cannot be shown is dropped.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self, TextIO, cast

PLAIN_SECONDS = 10.0
"""Seconds between plain lines of progress."""

BAR_ROOM = 66
"""Columns for numbers and a bar; with fewer there is no bar."""

SCHEDULERS = [getattr(signal, n) for n in ("SIGUSR1", "SIGUSR2") if hasattr(signal, n)]
"""Signals by which a scheduler such as Slurm says that time is almost up, to all processes."""

STOPPING = SCHEDULERS + [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]
"""Signals that ask a command to save and end; Windows has no SIGHUP, but SIGBREAK."""

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
for harmless in "\n\t":
    del CONTROLS[ord(harmless)]
"""Control characters and those that reorder text -> how they are shown."""


class OutputError(Exception):
    """Standard output cannot be written: its disk is full, or its reader is gone."""

    def __init__(self, error: OSError, from_device: bool) -> None:
        super().__init__(str(error))
        # A closed terminal gives EIO, and on Windows a pipe without a reader gives EINVAL.
        closed = errno.EINVAL if sys.platform == "win32" else errno.EIO if from_device else None
        self.reader_gone = isinstance(error, BrokenPipeError) or error.errno == closed
        self.reason = error.strerror or str(error)


class _Output:
    """A standard stream that reports its failure once.

    Characters that its encoding lacks are replaced. After a failed write its descriptor leads to
    the null device, for everyone who writes to it.
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
                self.stream.flush()  # flush what it still holds
            if self.needed:
                raise OutputError(error, from_device) from error


@contextmanager
def output() -> Iterator[None]:
    """Make standard streams exist, accept any character, and fail properly.

    If standard error fails, nothing is shown any more, and nothing else happens.

    Raises:
        OutputError: from anything that writes to standard output, or at the end.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if None in before:  # otherwise files of the run would get these descriptors
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
    """Print data to standard output; on a terminal, control characters in it are escaped."""
    text = " ".join(map(str, texts))
    print(escape(text) if sys.stdout.isatty() else text, end=end, flush=flush)


def show_fact(label: str, text: str, indent: int = 12) -> None:
    """Print words behind a label; on a terminal, those that do not fit go below each other."""
    if sys.stdout.isatty():
        room = max(shutil.get_terminal_size().columns, 2 * indent) - indent
        text = ("\n" + " " * indent).join(_lines(text, room))
    show(padded(label, indent) + text)


def _lines(text: str, room: int) -> list[str]:
    """The words of a text, in lines of at most so many columns, unless a word has more."""
    lines = list[str]()
    for word in text.split():
        if lines and columns(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def say(line: str) -> None:
    """Print a line for the user to standard error, so that standard output has only data."""
    if sys.stderr is None:  # print would use standard output
        return
    with suppress(OSError, ValueError):  # also outside `output`
        print(escape(line) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def escape(text: str) -> str:
    """Escape control characters of a terminal, one by one, so that a sequence split over several
    texts is harmless, too.

    >>> print(escape(chr(27) + "[31mred"))
    \\x1b[31mred
    """
    return text.translate(CONTROLS)


@contextmanager
def stop_requested(
    signals: Sequence[signal.Signals] = STOPPING, again: Any = None
) -> Iterator[Callable[[], bool]]:
    """A function that returns True after Ctrl-C or a signal of STOPPING; a second one ends at once.

    Signals that are ignored, as with nohup, stay ignored. Outside the main thread, the only one
    that receives signals, it returns False.

    Args:
        signals: those that are heard.
        again: handles the second one, as for `signal.signal`; None ends at once. Under torchrun it
            changes nothing: torchrun sends on what a scheduler has sent to all, and kills whoever
            takes longer than 30 seconds.
    """
    asked = False
    if again is None:
        again = signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for heard in before:
            signal.signal(heard, again)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in signals:
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
    """A progress bar followed by numbers on standard error; plain lines if that is not a
    terminal.
    """

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
        """Columns left beside the steps and the remaining time."""
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
        """Change the total amount of work."""
        self.total = total
        if self.live:
            self.bar.update(self.task, total=total)

    def update(self, done: int, numbers: str) -> None:
        """Show the progress; cheap enough to be called at each step."""
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
        """Print a line above the bar."""
        if self.live:
            self.console.print(escape(text), markup=False)
        else:
            say(text)


def fitting(numbers: str, room: int) -> str:
    """Keep as many numbers, separated by two spaces, as there is room for, from the first on.

    >>> fitting("loss 2.345  best validation 2.456  9,000 tokens/s", 40)
    'loss 2.345  best validation 2.456'
    """
    words = numbers.split("  ")
    while len(words) > 1 and len("  ".join(words)) > room:
        words.pop()
    return "  ".join(words)


def duration(seconds: float) -> str:
    """A duration in words, with at most two units.

    >>> duration(75), duration(3700)
    ('1 min 15 s', '1 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def amount(n: float, noun: str) -> str:
    """A number of something.

    >>> amount(1, "step"), amount(1200, "step"), amount(2.5, "minute")
    ('1 step', '1,200 steps', '2.5 minutes')
    """
    return f"{f'{n:,}' if isinstance(n, int) else f'{n:g}'} {noun}{'s' * (n != 1)}"


def byte_size(n_bytes: float) -> str:
    """A number of bytes as GB (10^9) or MB (10^6).

    >>> byte_size(1_250_000_000), byte_size(640_000_000)
    ('1.2 GB', '640 MB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def percent(share: float, digits: int = 1) -> str:
    """A share, 0 to 1, as percent; one above 0 never looks like none.

    >>> percent(0.125), percent(0.0002), percent(0.0002, digits=2), percent(0.0)
    ('12.5%', '<0.1%', '0.02%', '0.0%')
    """
    text = f"{share:.{digits}%}"
    return f"<{10**-digits:.{digits}f}%" if share > 0 and not float(text[:-1]) else text


def few_digits(number: float) -> str:
    """A number with two digits, or all of a larger one.

    >>> few_digits(0.123), few_digits(2.0), few_digits(12345.6)
    ('0.12', '2', '12,346')
    """
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Format a table with padded columns; numbers are aligned to the right.

    >>> print(table(["run", "nats per\\ntoken"], [["a", "1.5"], ["bb", "12.25"]]))
         nats per
    run     token
    a         1.5
    bb      12.25
    """
    words = [title.split("\n") for title in header]
    height = max(map(len, words))
    heads = zip(*([""] * (height - len(lines)) + lines for lines in words))
    numeric = [are_numbers(column) for column in zip(*rows)] or [False] * len(header)
    all_rows = [*heads, *rows]
    widths = [max(map(columns, column)) for column in zip(*all_rows)]
    lines = []
    for row in all_rows:
        cells = [padded(cell, width, right) for cell, width, right in zip(row, widths, numeric)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def columns(text: str) -> int:
    """How many columns a text takes in a terminal, where characters of East Asia are wide, and
    combining marks take none.

    >>> columns("ab"), columns("漢字"), columns("e\u0301")
    (2, 4, 1)
    """
    shown = [c for c in text if not unicodedata.combining(c)]
    return len(shown) + sum(unicodedata.east_asian_width(c) in "WF" for c in shown)


def cut(text: str, width: int) -> str:
    """A text of at most so many columns, 1 or more; one that is cut ends with a tilde.

    >>> cut("loss", 4), cut("losses", 4), cut("漢字漢字", 6)
    ('loss', 'los~', '漢字~')
    """
    if columns(text) <= width:
        return text
    while text and columns(text) >= width:
        text = text[:-1]
    return f"{text}~"


def padded(text: str, width: int, right: bool = False) -> str:
    """A text with spaces before it or behind it, so that it takes so many columns."""
    spaces = " " * (width - columns(text))
    return spaces + text if right else text + spaces


def are_numbers(column: Iterable[str]) -> bool:
    """Whether a column is aligned to the right; a dash counts as a number, and so does <0.1%."""
    return all(cell.removeprefix("<")[:1] in "0123456789-" for cell in column)
