"""Shows a training in the cell of a notebook: a bar, numbers and the curves, updated in place."""

from __future__ import annotations

import math
import time
from html import escape
from typing import Any

from folio.console import duration
from folio.notebook import html_cell
from folio.recipe.watcher import ENDINGS, Watcher
from folio.run.directory import Run
from folio.run.inline import loss_figure
from folio.run.metrics import Event
from folio.training.pace import StepPlan
from folio.training.parts import Ending, Evaluation, Training
from folio.training.state import TrainingState

TRAINING = "training"
SECONDS = 0.5
"""Between two drawings."""
SHARE = 0.02
"""Of the time, that drawing may take."""
MOST_POINTS = 400
"""Points of the noisy curve; of a longer one, neighbours are averaged."""


class LiveCell(Watcher):
    """Watches a training; what IPython displays of it is an object with HTML and plain text."""

    def __init__(self) -> None:
        """Show itself below the running cell."""
        from IPython.display import display

        self.name, self.doing = "", "reading the text"
        self.state, self.last, self.loss = TrainingState(), 0, math.nan
        self.batches = Thinned(MOST_POINTS)
        self.evaluations = list[Event]()
        self.drawn, self.cost = -math.inf, 0.0
        self.handle: Any = display(self, display_id=True)

    def tell(self, line: str) -> None:
        self.doing = line
        self._draw()

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        self.name, self.doing, self.last = str(run.path), TRAINING, training.pace.last
        self.state, self.began = state, (state.step, state.tokens, state.seconds)
        self._draw()

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self.batches.add(state.step, loss)
        self.loss = loss
        now = time.monotonic()
        if now - self.drawn > max(SECONDS, self.cost / SHARE):
            self._draw()

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self.evaluations.append(
            {
                "step": state.step,
                "training_loss": evaluation.training_loss,
                "validation_loss": evaluation.validation_loss,
                "standard_error": evaluation.standard_error,
            }
        )
        self._draw()

    def paced(self, plan: StepPlan) -> None:
        self.last = plan.last

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self.doing = ENDINGS[ending]
        self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        self.handle.update(self)
        self.drawn = time.monotonic()
        self.cost = self.drawn - began

    def _numbers(self) -> list[str]:
        """What stands below the bar, in words."""
        state, (step, tokens, seconds) = self.state, self.began
        numbers = [f"step {state.step:,} of {self.last:,}"]
        if n_steps := state.step - step:
            trained = max(state.seconds - seconds, 1e-9)
            numbers += [
                f"loss {self.loss:.3f}",
                f"{(state.tokens - tokens) / trained:,.0f} tokens/s",
            ]
            if math.isfinite(best := state.best_validation_loss):
                numbers.insert(2, f"best validation {best:.3f} at step {state.best_step:,}")
            if self.doing == TRAINING:
                numbers.append(f"{duration(trained / n_steps * (self.last - state.step))} left")
        return [*numbers, duration(state.seconds)]

    def __repr__(self) -> str:
        return (
            ", ".join([f"{self.name}: {self.doing}", *self._numbers()]) if self.name else self.doing
        )

    def _repr_html_(self) -> str:
        if not self.name:
            return html_cell(f'<p class="faint">{escape(self.doing)}</p>')
        return html_cell(
            f"<p><b>{escape(self.name)}</b>: {escape(self.doing)}</p>"
            f'<progress value="{self.state.step}" max="{self.last}" aria-label="steps"></progress>'
            f'<p class="faint">{" · ".join(self._numbers())}</p>'
            + loss_figure(self.batches.x, self.batches.y, self.evaluations)
        )


class Thinned:
    """The mean points of a series that may grow without end.

    >>> series = Thinned(most=2)
    >>> for x in range(5):
    ...     series.add(x, 10 * x)
    >>> series.x, series.y
    ([0.5, 2.5], [5.0, 25.0])
    """

    def __init__(self, most: int) -> None:
        self.most, self.width = most, 1
        self.x, self.y = list[float](), list[float]()
        self.waiting: list[tuple[float, float]] = []

    def add(self, x: float, y: float) -> None:
        """Append a point; once there are `most`, each is the mean of twice as many."""
        self.waiting.append((x, y))
        if len(self.waiting) < self.width:
            return
        if len(self.x) == self.most:
            self.width *= 2
            self.x, self.y = _halved(self.x), _halved(self.y)
            return
        points, self.waiting = self.waiting, []
        self.x.append(sum(x for x, _ in points) / len(points))
        self.y.append(sum(y for _, y in points) / len(points))


def _halved(values: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in zip(values[::2], values[1::2])]
