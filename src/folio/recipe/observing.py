"""Who watches a training: it is recorded, drawn, forwarded to other programs, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from folio.config import flat
from folio.loggers.forwarder import Forwarder, forwarding
from folio.recipe.finish import Result
from folio.recipe.keep_learned import LearnedRecorder
from folio.recipe.keep_page import PageKeeper
from folio.recipe.recipe import Recipe
from folio.recipe.watcher import Observers, Watcher
from folio.run.directory import Run
from folio.run.held_out import read_held_out
from folio.training.parts import Observer, Training
from folio.training.recorder import RunRecorder
from folio.training.saving import saves_in_background
from folio.training.state import TrainingState


class RunObservers(Observers):
    """Those of a run, in the order in which they are called: what is kept comes before what is
    shown.
    """

    def __init__(
        self, recorder: RunRecorder, pages: list[Observer], loggers: list[Forwarder], last: Watcher
    ) -> None:
        """Put them in order.

        Args:
            recorder: writes metrics and checkpoints.
            pages: draw from what is recorded.
            loggers: forward to other programs.
            last: shows it to the user.
        """
        super().__init__(recorder, *pages, *loggers, last)
        self.recorder, self.loggers = recorder, loggers

    def finished(self, result: Result) -> None:
        """Forward what was found out after the training."""
        for logger in self.loggers:
            logger.finished(result.held_out, result.sample)


@contextmanager
def observing(
    run: Run, recipe: Recipe, training: Training, state: TrainingState, watcher: Watcher
) -> Iterator[RunObservers]:
    """Open what the settings of a training ask for, and close it however the training ends."""
    page, log = recipe.training.page, recipe.training.log
    with forwarding(log, run, flat(recipe), state.step, watcher.tell) as loggers:
        recorder = RunRecorder(run, training, recipe.model, saves_in_background(training))
        pages: list[Observer] = [LearnedRecorder(run, training)] if page or log else []
        pages += [PageKeeper(run)] if page else []
        try:
            yield RunObservers(recorder, pages, loggers, watcher)
        finally:
            recorder.wait()


def show_complete(run: Run, recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Show a run that is complete where its recipe says by now, from its beginning."""
    end = run.events("end")[-1]
    state = TrainingState(step=end["step"])
    with forwarding(recipe.training.log, run, flat(recipe), state.step, tell) as loggers:
        for logger in loggers:
            logger.ended(state, end["reason"])
            logger.finished(read_held_out(run), sample="")
    if recipe.training.page:
        PageKeeper(run).ended(state, end["reason"])
