"""Keeps the page of a run up to date: at evaluations, from the files that others have written."""

from __future__ import annotations

from folio.console import say
from folio.errors import UserError
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.page import write_training_page
from folio.training.parts import Ending, Evaluation
from folio.training.state import TrainingState


class PageKeeper(Watcher):
    """An Observer that follows the recorders, whose events are on the page."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self._write(follow=True)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self._write(follow=False)

    def _write(self, follow: bool) -> None:
        """A page that cannot be written ends no training."""
        try:
            write_training_page(self.run, follow)
        except UserError as error:
            say(f"warning: the page was not written: {error}")
