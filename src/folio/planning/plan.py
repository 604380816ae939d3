"""Which size suits a text, this machine and the available time, and what each size would reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from folio.config import Table
from folio.console import amount
from folio.device import UNKNOWN_MEMORY, Device
from folio.errors import UserError
from folio.planning.trial import trial_loss
from folio.recipe.build import choose_for
from folio.recipe.expected_loss import (
    ANCHOR_SIZE,
    ANCHOR_STEPS,
    RULE,
    TrainingBudget,
    anchor_recipe,
    are_apart,
    read_anchors,
    training_budget,
    write_anchors,
)
from folio.recipe.memory import memory_before
from folio.recipe.prepare import Prepared
from folio.recipe.presets import SIZES
from folio.recipe.recipe import make_recipe
from folio.recipe.sizing import Candidate, best_of, candidates, with_windows

FEW_STEPS = 50
"""With fewer steps no loss is predicted: the rule was fitted to longer runs."""


@dataclass(frozen=True)
class Row:
    """The prediction for one size."""

    candidate: Candidate
    loss: float | None
    """Best validation loss, predicted, in nats per token; None if there are too few steps."""

    @property
    def loss_band(self) -> float | None:
        """Two standard errors of the loss in either direction, in nats per token."""
        return self.loss and RULE.band * self.loss

    def record(self) -> dict[str, Any]:
        """Return the entry for --json."""
        candidate, model = self.candidate, self.candidate.recipe.model
        return {
            "size": candidate.recipe.size,
            "parameters": model.n_parameters,
            "memory_bytes": candidate.memory_bytes or None,
            "measured": candidate.measured,
            "tokens_per_second": candidate.tokens_per_second,
            "steps": candidate.steps,
            "tokens": candidate.n_tokens,
            "epochs": candidate.epochs,
            "share_of_needed_tokens": candidate.share_of_needed,
            "parameters_per_token": candidate.parameters_per_token,
            "loss": self.loss,
            "loss_band": self.loss_band,
            "trouble": candidate.trouble or None,
        }


@dataclass(frozen=True)
class Plan:
    """The predictions for all sizes, smallest first."""

    minutes: float
    n_training: int
    n_validation: int
    memory_limit: int | None
    """In bytes; None if unknown."""
    rows: list[Row]

    @property
    def best(self) -> Candidate:
        """The size that `folio train --minutes` chooses, where it is open."""
        return best_of(row.candidate for row in self.rows)[0]

    def verdict(self) -> str:
        """The best size in words, and what speaks against the larger ones."""
        best = self.best
        if best.recipe.start.run:
            return f"it goes on with {best.recipe.start.run}" + (
                f", although it {best.trouble}." if best.trouble else "."
            )
        parts = [f"{best.recipe.size} is best for {amount(self.minutes, 'minute')}"]
        if best.unfit:
            parts[0] += f", although it {best.unfit}"
        larger = [row.candidate for row in self.rows]
        larger = larger[larger.index(best) + 1 :]
        parts += [f"{candidate.recipe.size} {candidate.trouble}" for candidate in larger]
        return "; ".join(parts) + "."

    def record(self) -> dict[str, Any]:
        """Return what --json prints."""
        return {
            "minutes": self.minutes,
            "memory_limit": self.memory_limit,
            "tokens": {"training": self.n_training, "validation": self.n_validation},
            "sizes": [row.record() for row in self.rows],
            "best": self.best.recipe.size,
            "verdict": self.verdict(),
        }


def make_plan(
    given: Table, prepared: Prepared, minutes: float, tell: Callable[[str], None]
) -> Plan:
    """Measure and predict.

    Args:
        given: settings; the sizes of the presets are tried under them.
        prepared: the text.
        minutes: the budget.
        tell: receives a line about what is being done.

    Raises:
        UserError: as in `candidates`.
    """
    begins = bool(given.get("start", {}).get("run"))  # a run to begin with fixes the shape
    n_tokens = len(prepared.training())
    recipes = [make_recipe(given, with_windows({}, given, n_tokens))] if begins else []
    for size in () if begins else SIZES:
        try:
            recipes.append(make_recipe(given, with_windows({"size": size}, given, n_tokens)))
        except UserError as error:  # some settings suit some sizes only
            tell(f"{size} is left out: {error}")
    found = []
    for candidate in candidates(recipes, prepared, minutes, memory_before()):
        found.append(candidate)
        tell(f"{candidate.recipe.size}: {candidate.speed.step_seconds:.3g} s a step")
    anchors: list[tuple[TrainingBudget, float]] = []
    if not begins and "train.mask" not in prepared.files:  # a mask changes the losses
        anchors = measure_anchors(prepared, choose_for(found[0].recipe), tell)
    limit = found[0].memory_limit
    return Plan(
        minutes,
        n_tokens,
        len(prepared.validation()),
        limit if limit < UNKNOWN_MEMORY else None,
        [Row(candidate, _loss(candidate, anchors)) for candidate in found],
    )


def _loss(candidate: Candidate, anchors: list[tuple[TrainingBudget, float]]) -> float | None:
    if candidate.steps < FEW_STEPS or not anchors:
        return None
    recipe = candidate.recipe
    return RULE.expected_loss(
        anchors,
        training_budget(
            recipe.model, recipe.training.batch_size, candidate.steps, candidate.n_training
        ),
    )


def measure_anchors(
    prepared: Prepared, device: Device, tell: Callable[[str], None]
) -> list[tuple[TrainingBudget, float]]:
    """The anchors of a text, measured once and then kept beside its tokens; none if it is too short
    for them.
    """
    path = prepared.files["train"]
    if known := read_anchors(path):
        return known
    recipe, training = anchor_recipe(prepared.tokenizer.vocab_size), prepared.training()
    budgets = [
        training_budget(recipe.model, recipe.training.batch_size, steps, len(training))
        for steps in ANCHOR_STEPS
    ]
    if not are_apart(budgets):
        tell(f"no loss is predicted: {len(training):,} tokens are too few to see how it falls")
        return []
    anchors: list[tuple[TrainingBudget, float]] = []
    for budget in budgets:
        tell(f"{amount(budget.steps, 'step')} of {ANCHOR_SIZE}, to see how this text is learned")
        loss = trial_loss(recipe, device, budget.steps, training, prepared.validation())
        anchors.append((budget, loss))
    write_anchors(path, anchors)
    return anchors
