"""Starts the processes of a study, and shows their progress in a terminal."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from folio.console import amount, duration, say
from folio.corpus.processes import deaf
from folio.errors import UserError
from folio.tuning.outcome import Row, read_rows
from folio.tuning.study import Study

if TYPE_CHECKING:
    from rich.table import Table as RichTable

POLL_SECONDS = 0.5


class Workers:
    """Processes that work on a study; their output goes to its logs."""

    def __init__(self, study: Study, n_workers: int) -> None:
        study.logs_folder.mkdir(parents=True, exist_ok=True)
        self.logs = [study.logs_folder / f"worker-{i + 1}.log" for i in range(n_workers)]
        self.processes: list[subprocess.Popen[bytes]] = []
        for path in self.logs:
            with path.open("a", encoding="utf-8") as log:
                command = [sys.executable, "-m", "folio.tuning.worker", str(study.path)]
                # When this process ends, its end of the pipe closes, which ends the worker.
                with deaf() as flags:  # a second signal would end it before it has saved
                    process = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=log, stderr=log, creationflags=flags
                    )
                self.processes.append(process)

    def working(self) -> bool:
        """Whether any worker is still running."""
        return any(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """Ask each worker to save and end."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()

    def end(self) -> None:
        """Kill the workers that are left."""
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def check(self) -> None:
        """Raise a UserError with the last output of a worker that failed."""
        for process, path in zip(self.processes, self.logs):
            if process.returncode not in (0, None):
                lines = path.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
                raise UserError(
                    f"A worker ended with {process.returncode} and said: "
                    f"{lines[-1].removeprefix('error: ')} (more in {path})"
                )


def run_workers(
    study: Study, optuna_study: Any, n_workers: int, should_stop: Callable[[], bool]
) -> None:
    """Let workers finish a study while the terminal shows the progress.

    Raises:
        UserError: a worker failed.
    """
    workers = Workers(study, n_workers)
    shown = LiveTable() if sys.stderr.isatty() else PlainLines()
    try:
        with shown:
            asked = False
            while workers.working():
                shown.show(study, read_rows(study, optuna_study))
                if should_stop() and not asked:
                    workers.stop()
                    asked = True
                time.sleep(POLL_SECONDS)
            shown.show(study, read_rows(study, optuna_study))
    finally:
        workers.end()
    workers.check()


class PlainLines:
    """Prints one line when a trial ends."""

    def __init__(self) -> None:
        self.told: set[int] = set()
        self.first = True

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, study: Study, rows: list[Row]) -> None:
        """Print what is new; if the study is continued, first how many trials it has."""
        ended = [row for row in rows if row.state != "running"]
        if self.first and ended:
            say(f"there already: {amount(len(ended), 'trial')}")
            self.told = {row.number for row in ended}
        self.first = False
        for row in ended:
            if row.number not in self.told:
                self.told.add(row.number)
                say(describe(row, study, best_of(rows)))


class LiveTable:
    """A live table of the running trials, then the best ones."""

    def __enter__(self) -> LiveTable:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False, markup=False)
        self.live = Live(console=self.console, refresh_per_second=2, transient=True)
        self.live.__enter__()
        self.began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.__exit__(None, None, None)

    def show(self, study: Study, rows: list[Row]) -> None:
        """Redraw the table."""
        room = max(4, self.console.size.height - 8)
        since = duration(time.monotonic() - self.began)
        self.live.update(_live_table(study, rows, room, since))


def best_of(rows: list[Row]) -> Row | None:
    """The complete trial with the lowest loss; None before the first."""
    complete = [row for row in rows if row.state == "complete"]
    return min(complete, key=lambda row: row.loss, default=None)


def describe(row: Row, study: Study, best: Row | None) -> str:
    """A trial in one line."""
    loss = f"{row.loss:.4f}" if row.curve else "no loss"
    how = {
        "complete": f"complete, {loss}",
        "pruned": f"pruned after {row.evaluations} of {study.config.evaluations}, {loss}",
        "diverged": f"diverged, {loss}",
        "failed": f"failed: {row.error}",
        "running": f"running, {loss}",
    }[row.state]
    behind = f"  (best {best.loss:.4f}, trial {best.number})" if best else ""
    return f"trial {row.number}: {how}{behind}"


def _live_table(study: Study, rows: list[Row], room: int, since: str) -> RichTable:
    from rich import box
    from rich.table import Table

    ended = sum(row.state != "running" for row in rows)
    names = {name: None for row in rows for name in row.values}
    trials = amount(study.config.trials, "trial")
    title = f"{study.path}: {ended} of {trials}, {since}; {study.config.unit}"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("trial", justify="right", no_wrap=True, min_width=5)
    table.add_column("state", no_wrap=True, min_width=8)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    for name in names:
        table.add_column(short(name), justify="right", no_wrap=True)
    running = [row for row in rows if row.state == "running"]
    others = sorted(
        (row for row in rows if row.state != "running"),
        key=lambda row: (row.state != "complete", -row.evaluations, row.loss),
    )
    hidden = len(running + others) - room
    for row in (running + others)[:room]:
        best = row is best_of(rows)
        styles = {"complete": "bold green" if best else "", "running": "cyan", "failed": "red"}
        table.add_row(
            str(row.number),
            row.state,
            f"{row.evaluations}/{study.config.evaluations}",
            f"{row.loss:.4f}" if math.isfinite(row.loss) else "",
            *(show_value(row.values.get(name)) for name in names),
            style=styles.get(row.state, "dim"),
        )
    if hidden > 0:
        table.caption = f"and {hidden} more"
    return table


def short(name: str) -> str:
    """The name of a setting without its section.

    >>> short("optimizer.learning_rate")
    'learning_rate'
    """
    return name.rpartition(".")[2]


def show_value(value: Any) -> str:
    """A drawn value, abbreviated.

    >>> show_value(0.0012345), show_value("relu"), show_value(None)
    ('0.00123', 'relu', '')
    """
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
