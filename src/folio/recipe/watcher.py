"""The interface of those who follow a run, beside its recorder."""

from __future__ import annotations

import logging

from folio.run.directory import Run
from folio.training.pace import StepPlan
from folio.training.parts import Ending, Evaluation, Observer, Training
from folio.training.state import TrainingState

ENDINGS: dict[Ending, str] = {
    "finished": "finished",
    "patience": "stopped early: the validation loss no longer fell",
    "interrupted": "interrupted; everything is saved",
    "non-finite": "stopped: the loss or a gradient was not finite; the weights before it are saved",
}
"""How a training ended, in words."""


class Watcher(Observer):
    """An Observer that is also told what happens around the training. This one ignores
    everything.
    """

    sample_tokens = 600
    """Length of the sample that the model writes at the end, in tokens; 0 writes none."""

    def tell(self, line: str) -> None:
        """Receive a line about what is being done."""

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        """Is called when training begins or resumes."""


class Observers:
    """Forwards each call to several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        for observer in self.observers:
            observer.stepped(state, loss, learning_rate)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        for observer in self.observers:
            observer.evaluated(state, evaluation)

    def paced(self, plan: StepPlan) -> None:
        for observer in self.observers:
            observer.paced(plan)

    def save(self, state: TrainingState) -> None:
        for observer in self.observers:
            observer.save(state)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        for observer in self.observers:
            observer.ended(state, ending)


class LoggingWatcher(Observers, Watcher):
    """Forwards events to observers, and lines to the logger `folio` and to those who are watchers.

    Python prints warnings to standard error; `logging.basicConfig(level="INFO")` prints all.
    """

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        for watcher in self._watchers():
            watcher.begin(run, training, state)

    def tell(self, line: str) -> None:
        for watcher in self._watchers():
            watcher.tell(line)
        level = logging.WARNING if line.startswith("warning: ") else logging.INFO
        logging.getLogger("folio").log(level, "%s", line.removeprefix("warning: "))

    def _watchers(self) -> list[Watcher]:
        return [observer for observer in self.observers if isinstance(observer, Watcher)]
