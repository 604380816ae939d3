"""Checkpoints by the clock, and beside the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from folio.training.parts import Observer, Training
from folio.training.state import TrainingState


class SaveTimer(Observer):
    """Says when a checkpoint is due: so long after the last one, whatever that was made for."""

    def __init__(self, minutes: float) -> None:
        """Start the clock; with 0 minutes none is ever due."""
        self.seconds, self.last = 60 * minutes, time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time."""
        return 0 < self.seconds <= time.monotonic() - self.last

    def save(self, state: TrainingState) -> None:
        """Start the clock again."""
        self.last = time.monotonic()


class Background:
    """Runs one piece of work at a time in a thread, and raises here what goes wrong there.

    No process is forked meanwhile: workers begin before the first checkpoint and end after the
    last one, for which `wait` waits.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begin some work, after that before it; errors as in `wait`."""
        self.wait()
        # Not a daemon: whatever ends the training, Python waits for what was begun.
        thread = threading.Thread(target=self._attempt, args=(work,), name="folio save")
        try:
            thread.start()
        except RuntimeError:  # the system has no thread for it
            work()
        else:
            self._thread = thread

    def check(self) -> None:
        """Look, without waiting, whether the work failed; errors as in `wait`."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the work is done.

        Raises:
            Exception: that of the work, once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error


def saves_in_background(training: Training) -> bool:
    """Whether checkpoints are written beside the steps: with an accelerator, unless the user said
    otherwise. A budget in minutes counts the time that they take.
    """
    asked, kind = training.config.save_in_background, training.device.config.kind
    return training.deadline is None and (asked == "on" or (asked == "auto" and kind != "cpu"))
