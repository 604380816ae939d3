"""What is shown never ends what is done, and commands no terminal."""

from __future__ import annotations

import errno
import io
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from folio import console
from folio.console import OutputError, fitting, output, say, show, show_fact, stop_requested, table
from folio.storage import json_text

WORK = """
import sys
from contextlib import suppress
from folio.console import output, say, show
with output():
    for i in range(3):
        say("± line")
    open(sys.argv[1], "w").write("done")
    show("± data")
"""


class Stream(io.StringIO):
    """Standard output of any encoding, that may fail."""

    def __init__(self, encoding: str = "utf-8", number: int = 0, tty: bool = False) -> None:
        super().__init__()
        self._encoding, self.number, self.tty = encoding, number, tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPIPE])
def test_a_failure_of_standard_error_is_given_up(monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(sys, "stderr", Stream(number=number))
    with output():
        say("not shown")
        print("nor this", file=sys.stderr, flush=True)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EPIPE])
def test_a_failure_of_standard_output_is_known(monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(sys, "stdout", Stream(number=number))
    with pytest.raises(OutputError) as caught, output():
        show("data")
    assert caught.value.reader_gone == (number == errno.EPIPE)


@pytest.mark.parametrize("redirect", ["2>&-", "<&- 2>&-", "2>/dev/full"])
def test_work_is_done_where_nothing_can_be_shown(tmp_path: Path, redirect: str):
    command = f'"$0" -c "$1" "$2" {redirect}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, WORK, str(tmp_path / "x")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "± data\n" and (tmp_path / "x").read_text() == "done"


def test_a_character_without_a_code_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", stream := Stream("cp1252"))
    with output():
        show("± \N{GRINNING FACE} \udce9")
    assert stream.getvalue() == "± ? ?\n"


def test_a_terminal_takes_no_command_from_a_text_and_a_pipe_takes_all(
    monkeypatch: pytest.MonkeyPatch,
):
    text = "\x1b[31mred\x07 \x9b2J \u202eabc\tä\n"
    for tty, expected in (
        (True, "\\x1b[31mred\\x07 \\x9b2J \\u202eabc\tä\n"),
        (False, text),
    ):
        monkeypatch.setattr(sys, "stdout", stream := Stream(tty=tty))
        for piece in text:  # a sequence in pieces is none either
            show(piece, end="")
        assert stream.getvalue() == expected


def test_what_json_does_not_have_is_null(capsys: pytest.CaptureFixture[str]):
    show(json_text({"a": [float("nan"), 1.5], "b": float("inf")}, indent=2))
    assert "".join(capsys.readouterr().out.split()) == '{"a":[null,1.5],"b":null}'


@pytest.mark.parametrize("number", console.STOPPING)
def test_a_signal_asks_and_the_next_has_its_own_way(number: signal.Signals):
    before = signal.getsignal(number)
    with stop_requested() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        for other in console.STOPPING:
            assert signal.getsignal(other) is signal.SIG_DFL
    assert signal.getsignal(number) is before


def test_under_torchrun_which_sends_signals_on_the_second_one_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with stop_requested() as asked:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):  # or this process ends
            os.kill(os.getpid(), number)
            assert asked()


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requested() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_is_never_asked_to_stop():
    answers = []

    def work() -> None:
        with stop_requested() as asked:
            answers.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]


def read_all(terminal: int) -> str:
    """What was shown in a terminal whose other end is closed."""
    pieces: list[bytes] = []
    with suppress(OSError):  # EIO at its end
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode()


def test_the_words_of_a_fact_stand_below_each_other_in_a_terminal_and_in_a_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "40")
    shown: list[str] = []
    for tty in (True, False):
        monkeypatch.setattr(sys, "stdout", stream := Stream(tty=tty))
        show_fact("diagnosis", "healthy: the validation loss came down to 1.234")
        shown.append(stream.getvalue())
    one_line = "diagnosis   healthy: the validation loss came down to 1.234\n"
    folded = "diagnosis   healthy: the validation loss\n            came down to 1.234\n"
    assert shown == [folded, one_line]


def test_losses_stay_whole_in_a_narrow_terminal():
    numbers = "loss 2.345  best validation 2.456  9,000 tokens/s"
    assert fitting(numbers, 100) == numbers
    assert fitting(numbers, 20) == fitting(numbers, 1) == "loss 2.345"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_bar_shows_the_steps_and_the_loss_at_any_width(
    monkeypatch: pytest.MonkeyPatch, width: int
):
    terminal, end = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with open(end, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with output(), console.Progress(4000) as progress:
            progress.update(4000, "loss 2.345  best validation 2.456  9,000 tokens/s")
            progress.bar.refresh()
    shown = read_all(terminal)
    assert "loss 2.345" in shown and "4000/4000" in shown and "…" not in shown


def test_columns_of_wide_characters_stand_below_each_other():
    first, second = table(["token", "n"], [["漢字", "1"], ["abcd", "2"]]).splitlines()[1:]
    assert first == "漢字   1" and second == "abcd   2"  # each of the two takes two columns


def test_words_of_wide_characters_are_folded_where_the_terminal_ends(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setattr(sys, "stdout", stream := Stream(tty=True))
    show_fact("text", "漢字漢字 漢字 abc")
    assert stream.getvalue() == "text        漢字漢字\n            漢字 abc\n"
