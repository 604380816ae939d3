"""Who hears what happens in a run, beside its recorder."""

from __future__ import annotations

import logging

from folio.run.directory import Run
from folio.training.pace import Knot
from folio.training.parts import Ending, Evaluation, Observer, Training
from folio.training.state import TrainingState


class Watcher:
    """An Observer that also hears what happens around the training. This one is silent."""

    sample_tokens = 600
    """Length of the text that the model writes at the end; 0 saves its time."""

    def tell(self, line: str) -> None:
        """Hear a line about what is being done."""

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        """Hear that training begins, or goes on."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """As an Observer."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """As an Observer."""

    def paced(self, knot: Knot) -> None:
        """As an Observer."""

    def save(self, state: TrainingState) -> None:
        """As an Observer."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """As an Observer."""


class Both:
    """First the recorder, then the watcher, so that what is shown is already on the disk."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        for observer in self.observers:
            observer.stepped(state, loss, learning_rate)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        for observer in self.observers:
            observer.evaluated(state, evaluation)

    def paced(self, knot: Knot) -> None:
        for observer in self.observers:
            observer.paced(knot)

    def save(self, state: TrainingState) -> None:
        for observer in self.observers:
            observer.save(state)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        for observer in self.observers:
            observer.ended(state, ending)


class LoggingWatcher(Both, Watcher):
    """Hands what happens on to observers, and what is told to the logger `folio`.

    Python shows warnings on standard error; `logging.basicConfig(level="INFO")` shows all.
    """

    def tell(self, line: str) -> None:
        level = logging.WARNING if line.startswith("warning: ") else logging.INFO
        logging.getLogger("folio").log(level, "%s", line.removeprefix("warning: "))
