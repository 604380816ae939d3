"""Passes on to a logger what a run's files say, as they are written.

What is shown never ends what is done: a logger that fails is told of in a line, once, and is left
out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from folio.loggers.ids import remember_shown, shown_steps
from folio.loggers.logger import Logger, Settings, open_logger
from folio.loggers.values import SHOWN, held_out_values, values_of
from folio.run.directory import Run
from folio.run.held_out import HeldOut
from folio.run.metrics import Event, parse_events
from folio.run.page import learned
from folio.training.pace import StepPlan
from folio.training.parts import Ending, Evaluation
from folio.training.state import TrainingState

Tell = Callable[[str], None]
"""Takes a line for the user."""


class Forwarder:
    """An Observer with one logger, which comes after the observers that write the files."""

    def __init__(self, name: str, run: Run, settings: Settings, step: int, tell: Tell) -> None:
        """Open the logger, and show it what it has not got of earlier commands.

        Args:
            name, run, settings, step: as in `open_logger`.
            tell: hears where to look, and what went wrong.
        """
        self.name, self.run, self.tell = name, run, tell
        self.files = Tail(run.metrics_file), Tail(run.learned_file)
        self.before: Event | None = None
        """The last line of the metrics."""
        self.shown: dict[str, int] = {}
        """The last step of each kind of event that the logger has."""
        self.logger: Logger | None = None
        self.failed = True
        """Whether training has not come to a good end."""
        with self._guarded():
            self.logger = open_logger(name, run, settings, step)
            if self.logger.logged >= 0:  # else it shows all of the run
                self.shown = shown_steps(run, name) or dict.fromkeys(SHOWN, step)
                self.shown = {kind: min(at, step) for kind, at in self.shown.items()}
            tell(f"logging to {name}; look with: {self.logger.look}")
            for event in (*run.events(), *learned(run)):
                self._show(self.logger, event)

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self._follow()

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self._follow()

    def paced(self, plan: StepPlan) -> None:
        """Do nothing: the plan is in the recipe."""

    def save(self, state: TrainingState) -> None:
        with self._guarded():
            if self.logger is not None:
                self.logger.flush()
                remember_shown(self.run, self.name, self.shown)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self._follow()
        self.failed = ending == "non-finite"

    def finished(self, held_out: Sequence[HeldOut], sample: str) -> None:
        """Show what was found out after training."""
        with self._guarded():
            if self.logger is not None and self.before is not None:
                self.logger.numbers(self.before["step"], held_out_values(held_out))
                if sample:
                    self.logger.text(self.before["step"], "final_sample", sample)

    def close(self) -> None:
        """End the logger."""
        with self._guarded():
            if self.logger is not None:
                self.logger.close(self.failed)
                remember_shown(self.run, self.name, self.shown)

    def _follow(self) -> None:
        with self._guarded():
            if self.logger is not None:
                for event in (event for file in self.files for event in file.appended()):
                    self._show(self.logger, event)

    def _show(self, logger: Logger, event: Event) -> None:
        if event["step"] > self.shown.get(event["event"], -1):
            self.shown[event["event"]] = event["step"]
            if values := values_of(event, self.before):
                logger.numbers(event["step"], values)
            if "sample" in event:
                logger.text(event["step"], "sample", event["sample"])
        if event["event"] != "learned":
            self.before = event

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.logger = None
            reason = " ".join(str(error).split()) or type(error).__name__
            self.tell(f"warning: {self.name} is left out from here on: {reason}")


class Tail:
    """The events that are appended to a file from now on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = path.stat().st_size if path.exists() else 0
        """Bytes that were read."""

    def appended(self) -> list[Event]:
        """The events since the last call."""
        if not self.path.exists() or self.path.stat().st_size == self.read:
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            lines = file.read()
        self.read += len(lines)
        return parse_events(lines.decode("utf-8"))


@contextmanager
def forwarding(
    names: Iterable[str], run: Run, settings: Settings, step: int, tell: Tell
) -> Iterator[list[Forwarder]]:
    """Open loggers, and end them however the training ends; arguments as in `Forwarder`."""
    forwarders = [Forwarder(name, run, settings, step, tell) for name in dict.fromkeys(names)]
    try:
        yield forwarders
    finally:
        for forwarder in forwarders:
            forwarder.close()
