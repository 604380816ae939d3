"""What a program that shows runs is told, and which programs there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from folio.errors import UserError
from folio.run.directory import Run

Settings = Mapping[str, bool | int | float | str]
"""The settings of a recipe by their dotted names."""


class Logger(Protocol):
    """Shows a run in another program. Any method may raise; the training goes on without it."""

    look: str
    """The command that shows the run, or its address."""
    logged: int
    """The last step that it can have of this run from an earlier command; -1 if it has none."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Show some numbers at a step, by names such as `train/loss`."""

    def text(self, step: int, name: str, text: str) -> None:
        """Show what the model wrote at a step."""

    def flush(self) -> None:
        """Write down what it was told: the run may be resumed from here."""

    def close(self, failed: bool) -> None:
        """End, whether the training failed or not."""


def require_installed(names: Iterable[str]) -> None:
    """Refuse loggers whose package is missing.

    Raises:
        UserError: with the command that installs it.
    """
    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name is no package
            raise UserError(
                f"--log {name} needs {name}. Install it with: pip install 'foliolm[{name}]'"
            )


def open_logger(name: str, run: Run, settings: Settings, step: int) -> Logger:
    """Begin to log a run, or go on.

    Args:
        name: one of `training.config.LOGGERS`; its file in this folder imports its package.
        run: the run, which is locked.
        settings: of its recipe.
        step: from which training goes on; 0 at first.
    """
    return import_module(f"folio.loggers.{name}").open_logger(run, settings, step)
