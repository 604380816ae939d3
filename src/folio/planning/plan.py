"""Which size suits a text, this machine and the time there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from folio.config import Table
from folio.console import duration
from folio.device import Device, memory_in_use
from folio.planning.trial import trial_loss
from folio.recipe.build import Speed, measure, steps_in
from folio.recipe.expected_loss import (
    ANCHOR_SIZE,
    ANCHOR_STEPS,
    RULE,
    Effort,
    anchor_file,
    effort_of,
    read_anchors,
)
from folio.recipe.memory import memory_limit, windows_that_fit
from folio.recipe.prepare import Prepared
from folio.recipe.presets import SIZES
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.train import choose_for, fit_vocabulary
from folio.storage import write_json
from folio.tokenizers.base import TokenIds

TRIAL_SECONDS = 0.5
"""Of steps, for each size."""
LONGEST_STEP_SECONDS = 2.0
"""A size whose smallest step is expected to take longer is not tried: its time follows from the
size before it."""
TIED = 0.01
"""Share of the loss by which sizes that are equally good may differ: two seeds do."""
FEW_STEPS = 50
"""Below so many nothing is predicted: the rule was fitted to longer runs."""
MOST_DOUBLINGS = 10
"""Of the budget, when looking for one in which a larger size would be better."""


@dataclass(frozen=True)
class Row:
    """One size."""

    size: str
    parameters: int
    memory_bytes: int
    """At the peak, with as many windows at once as fit."""
    fits: bool
    measured: bool
    """Whether its speed was measured, or follows from a smaller size."""
    tokens_per_second: float
    steps: int
    """In the budget, evaluations included."""
    tokens: int
    epochs: float
    losses: list[float]
    """Best validation loss, predicted, in nats per token: in the budget, in twice, in four times
    and so on."""
    parameters_per_token: float
    """Of the training text."""

    @property
    def loss(self) -> float:
        """In the budget; endless where that is too few steps for a prediction."""
        return self.losses[0] if self.steps >= FEW_STEPS else math.inf

    @property
    def loss_band(self) -> float:
        """Either way, in nats per token: two standard errors."""
        return RULE.band * self.losses[0]

    def record(self) -> dict[str, Any]:
        """For JSON; a loss that was not predicted is null."""
        table = asdict(self) | {"loss": None, "loss_band": None}
        if math.isfinite(self.loss):
            table |= {"loss": self.loss, "loss_band": self.loss_band}
        del table["losses"]
        return table


@dataclass(frozen=True)
class Plan:
    """All sizes, smallest first."""

    minutes: float
    memory_limit: int
    device: str
    n_training: int
    n_validation: int
    rows: list[Row]

    @property
    def best(self) -> Row | None:
        """The lowest predicted loss of those that fit; the smallest of those that are tied."""
        fitting = [row for row in self.rows if row.fits and math.isfinite(row.loss)]
        if not fitting:
            return None
        lowest = min(row.loss for row in fitting)
        return next(row for row in fitting if row.loss <= lowest * (1 + TIED))

    def verdict(self) -> str:
        """In words: the best size, and what is wrong with the next larger ones."""
        best = self.best
        if best is None:
            return (
                f"No size fits into {self.memory_limit / 1e9:.1f} GB and makes {FEW_STEPS} steps "
                f"in {self.minutes:g} minutes. Give more --minutes or --memory."
            )
        tied = [
            row.size
            for row in self.rows
            if row.fits and row is not best and row.loss <= best.loss * (1 + TIED)
        ]
        parts = [f"{best.size} is best for {self.minutes:g} minutes"]
        if tied:
            parts[0] += f" ({' and '.join(tied)} would be as good)"
        larger = self.rows[self.rows.index(best) + 1 :]
        parts += [
            f"{row.size} {self._trouble(row, best)}" for row in larger if row.size not in tied
        ]
        return "; ".join(parts) + "."

    def _trouble(self, row: Row, best: Row) -> str:
        """Why a size that is larger than the best one is not better."""
        if not row.fits:
            return f"needs {row.memory_bytes / 1e9:.1f} GB of memory"
        for doublings, loss in enumerate(row.losses[1:], 1):
            if loss < best.loss:
                minutes = self.minutes * 2**doublings
                return f"would need about {duration(60 * minutes)} to be better"
        ratio = row.parameters_per_token
        return f"starves: {ratio:.{0 if ratio >= 10 else 1}f} parameters for each token you have"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        best = self.best
        return {
            "minutes": self.minutes,
            "memory_limit": self.memory_limit,
            "device": self.device,
            "tokens": {"training": self.n_training, "validation": self.n_validation},
            "sizes": [row.record() for row in self.rows],
            "best": best and best.size,
            "verdict": self.verdict(),
        }


def make_plan(
    layers: list[Table], prepared: Prepared, minutes: float, tell: Callable[[str], None]
) -> Plan:
    """Measure and predict.

    Args:
        layers: tables of settings; the sizes of the presets are tried under them.
        prepared: the text.
        minutes: the budget.
        tell: takes a line about what is being done.

    Raises:
        UserError: the text is too short for any size.
    """
    training, validation = prepared.training(), prepared.validation()
    recipes = [
        fit_vocabulary(make_recipe(*layers, {"size": size}), prepared.tokenizer.vocab_size)
        for size in SIZES
    ]
    enough = [recipe for recipe in recipes if len(training) > recipe.model.context_length]
    limit = memory_limit(recipes[0])
    device = choose_for(recipes[0])
    anchors = measure_anchors(prepared, device, tell)
    in_use = memory_in_use()  # with all libraries loaded, nothing built any more
    rows: list[Row] = []
    before: tuple[Recipe, Speed] | None = None
    for recipe in enough or recipes[:1]:
        device = choose_for(recipe)
        recipe = replace(recipe, device=device.config)
        recipe, memory_bytes = windows_that_fit(recipe, device, limit, in_use)
        fits = memory_bytes <= limit
        speed, measured = _speed(recipe, device, training, validation, before, fits)
        before = recipe, speed
        config, length = recipe.training, recipe.model.context_length
        steps = steps_in(minutes * 60, speed, config, length, len(validation))
        per_step = config.batch_size * length
        losses = [
            RULE.expected_loss(
                anchors,
                effort_of(recipe.model, config.batch_size, steps * 2**doublings, len(training)),
            )
            for doublings in range(MOST_DOUBLINGS + 1)
        ]
        rows.append(
            Row(
                size=recipe.size,
                parameters=recipe.model.n_parameters,
                memory_bytes=memory_bytes,
                fits=fits,
                measured=measured,
                tokens_per_second=per_step / speed.step_seconds,
                steps=steps,
                tokens=steps * per_step,
                epochs=steps * per_step / (len(training) - 1),
                losses=losses,
                parameters_per_token=recipe.model.n_parameters / len(training),
            )
        )
        tell(f"{recipe.size}: {rows[-1].tokens_per_second:,.0f} tokens/s")
    return Plan(minutes, limit, str(device), len(training), len(validation), rows)


def _speed(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    before: tuple[Recipe, Speed] | None,
    fits: bool,
) -> tuple[Speed, bool]:
    """The speed of a size, and whether it was measured or follows from that of the one before."""
    if before is None:
        return measure(recipe, device, training, validation, TRIAL_SECONDS), True
    smaller, its_speed = before
    ratio = token_flops(recipe) / token_flops(smaller)
    per_step = recipe.training.batch_size * recipe.model.context_length
    its_step = smaller.training.batch_size * smaller.model.context_length
    expected = Speed(
        its_speed.step_seconds * ratio * per_step / its_step, its_speed.evaluation_seconds * ratio
    )
    batch_size = recipe.training.batch_size
    # As many windows as a trial has time for, but one for each thread.
    n_windows = int(batch_size * LONGEST_STEP_SECONDS / 4 / expected.step_seconds)
    n_windows = max(min(device.config.threads, batch_size), min(n_windows, batch_size))
    if not fits or expected.step_seconds * n_windows / batch_size > LONGEST_STEP_SECONDS:
        return expected, False
    return measure(recipe, device, training, validation, TRIAL_SECONDS, n_windows), True


def token_flops(recipe: Recipe) -> float:
    """Operations for each token of a step by the usual count: six a weight, and attention."""
    model = recipe.model
    return 6 * model.n_parameters + 12 * model.n_layers * model.context_length * model.d_model


def measure_anchors(
    prepared: Prepared, device: Device, tell: Callable[[str], None]
) -> list[tuple[Effort, float]]:
    """The anchors of a text; measured once, then kept beside its tokens.

    The same settings for every text, whatever the user's are.
    """
    path = prepared.training_file
    if known := read_anchors(path):
        return known
    settings: Table = {"size": ANCHOR_SIZE, "model": {"vocab_size": prepared.tokenizer.vocab_size}}
    recipe, training = make_recipe(settings), prepared.training()
    anchors = []
    for steps in ANCHOR_STEPS:
        tell(f"{steps} steps of {ANCHOR_SIZE}, to see how this text is learned")
        loss = trial_loss(recipe, device, steps, training, prepared.validation())
        effort = effort_of(recipe.model, recipe.training.batch_size, steps, len(training))
        anchors.append((effort, loss))
    write_json(
        anchor_file(path),
        [{"effort": asdict(effort), "loss": loss} for effort, loss in anchors],
    )
    return anchors
