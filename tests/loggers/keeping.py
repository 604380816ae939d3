"""A logger that keeps what it is told, and a run with some events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from folio.loggers import forwarder
from folio.loggers.logger import Settings
from folio.run.directory import Run
from folio.run.metrics import Event, append_event


class Kept:
    """Keeps all; or fails when one of its methods is called."""

    look = "look here"

    def __init__(self, logged: int = -1, fails: str = "") -> None:
        self.logged, self.fails = logged, fails
        self.shown = list[tuple[int, dict[str, float]]]()
        self.texts = list[tuple[int, str, str]]()
        self.calls = list[str]()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.shown.append((step, dict(values)))
        self._called("numbers")

    def text(self, step: int, name: str, text: str) -> None:
        self.texts.append((step, name, text))
        self._called("text")

    def flush(self) -> None:
        self._called("flush")

    def close(self, failed: bool) -> None:
        self._called(f"close, failed {failed}")

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if self.fails and call.startswith(self.fails):
            raise OSError("The server\nis gone.")

    def steps(self, name: str) -> list[int]:
        return [step for step, values in self.shown if name in values]


def log_with(monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    """Have every logger be this one."""

    def opened(name: str, run: Run, settings: Settings, step: int) -> Kept:
        kept.calls.append(f"open {name} at {step}, seed {settings.get('seed')}")
        if kept.fails == "open":
            raise RuntimeError
        return kept

    monkeypatch.setattr(forwarder, "open_logger", opened)


def step_event(step: int) -> Event:
    return {
        "event": "step",
        "step": step,
        "tokens": 10 * step,
        "seconds": float(step),
        "loss": 1 / step,
        "learning_rate": 0.1,
        "gradient_norm": 2.0,
    }


def run_of(folder: Path, steps: int) -> Run:
    run = Run(folder / "runs" / "one")
    run.path.mkdir(parents=True)
    for step in range(1, steps + 1):
        append_event(run.metrics_file, step_event(step))
    return run
