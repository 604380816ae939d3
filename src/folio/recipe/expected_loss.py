"""Predicts the loss that a size and a budget reach on a text, before training.

Two short runs of the smallest size on the text, the anchors, tell how far its loss falls and how
quickly. Relative to them, a longer run of another size follows one rule for all texts:

    loss = floor + scale * (A / N^a + 1 / D^b)

where floor and scale belong to the text, N is the number of weights in the blocks in millions, and
D is the training in millions of equivalent fresh tokens: a repeated token counts less each time,
and so does one in a large batch.

Sources: the sum, Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556; repeated tokens,
Muennighoff et al. 2023, https://arxiv.org/abs/2305.16264, equation 5; large batches, McCandlish
et al. 2018, https://arxiv.org/abs/1812.06162, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from folio.config import Table, to_table
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.recipe.recipe import Recipe, make_recipe
from folio.storage import read_json, write_json

ANCHOR_SIZE = "nano"
ANCHOR_STEPS = (150, 500)
LEAST_FALL = 0.1
"""The scale of a text is the fall between its anchors divided by that of their shortfalls, which is
1.6 on a million tokens, 0.38 on 20,000, and nearly 0 where both have read the text until no repeat
teaches anything. Below this it would be mostly noise."""


@dataclass(frozen=True)
class TrainingBudget:
    """The size and length of a training, from which its loss is predicted."""

    parameters: int
    """Weights in the blocks, as block_parameters counts them."""
    tokens_per_step: int
    """Batch size times context length."""
    steps: int
    """Steps of the whole schedule."""
    text_tokens: int
    """Tokens of the training text."""


@dataclass(frozen=True)
class LossRule:
    """The constants of the rule; `python -m bench.planning --calibrate` fits them to
    recorded runs.
    """

    size_scale: float
    """A of the rule."""
    size_exponent: float
    """a of the rule."""
    data_exponent: float
    """b of the rule."""
    worthwhile_repeats: float
    """Epochs after the first beyond which most of the value of a repeated token is gone."""
    critical_batch: float
    """Batch size in tokens at which a token is worth half as much as in a small batch."""
    band: float
    """Two standard errors of a prediction, as a share of the loss."""

    def expected_loss(
        self, anchors: Sequence[tuple[TrainingBudget, float]], budget: TrainingBudget
    ) -> float:
        """Best validation loss of a training, in nats per token.

        Args:
            anchors: two trainings on the same text, and the losses that they reached.
            budget: the training to predict.
        """
        (short, high), (longer, low) = anchors
        fall = self.shortfall(short) - self.shortfall(longer)
        # A text on which more training did not help will not gain from still more.
        scale = max(high - low, 0.0) / fall
        return low + scale * (self.shortfall(budget) - self.shortfall(longer))

    def shortfall(self, budget: TrainingBudget) -> float:
        """How far a training stays above the floor, in units of the text's scale."""
        size = self.size_scale * (budget.parameters / 1e6) ** -self.size_exponent
        return size + (self.fresh_tokens(budget) / 1e6) ** -self.data_exponent

    def fresh_tokens(self, budget: TrainingBudget) -> float:
        """D: the number of tokens that would teach as much if each were seen once in small
        batches.
        """
        n_tokens = budget.tokens_per_step * budget.steps
        useful = n_tokens / (1 + budget.tokens_per_step / self.critical_batch)
        repeats = useful / budget.text_tokens - 1
        if repeats <= 0:
            return useful
        worth = self.worthwhile_repeats * -math.expm1(-repeats / self.worthwhile_repeats)
        return budget.text_tokens * (1 + worth)


RULE = LossRule(
    size_scale=0.2,
    size_exponent=0.35,
    data_exponent=0.5,
    worthwhile_repeats=2.0,
    critical_batch=1000.0,
    band=0.12,
)
"""Fitted to 15 runs of 0.2 to 1.8 M parameters on two texts, with AdamW, windows of 64 and older
rates; the anchors of a text have the present defaults. From anchors of Muon's first rates it
predicted 4 to 9 % too high a loss for recorded runs of 0.8 to 4.8 M on tiny Shakespeare; from two
longer runs as anchors, 0 to 4 % (docs/experiments.md, "What the expected loss is worth")."""


def block_parameters(model: ModelConfig) -> int:
    """Number of weights outside the embedding and the head, whose size depends on the
    vocabulary.
    """
    tables = model.vocab_size * model.d_model * (1 if model.tied_head else 2)
    return model.n_parameters - tables


def training_budget(
    model: ModelConfig, batch_size: int, steps: int, text_tokens: int
) -> TrainingBudget:
    """The budget of a model trained for this number of steps."""
    return TrainingBudget(
        block_parameters(model), batch_size * model.context_length, steps, text_tokens
    )


def anchor_file(training_file: Path) -> Path:
    """Path of the anchors: in the cache, beside the tokens that they belong to."""
    return training_file.with_name("anchors.json")


def are_apart(budgets: Sequence[TrainingBudget]) -> bool:
    """Whether two anchors differ enough to tell how quickly the loss of their text falls."""
    short, longer = map(RULE.shortfall, budgets)
    return short - longer >= LEAST_FALL


def anchor_recipe(vocab_size: int = 0) -> Recipe:
    """The settings of the anchors of every text, whatever the user's are: the present defaults."""
    return make_recipe({"size": ANCHOR_SIZE, "model": {"vocab_size": vocab_size}})


def read_anchors(training_file: Path) -> list[tuple[TrainingBudget, float]]:
    """The anchors of a text; empty if `folio plan` has not measured them, or they tell nothing, or
    a Folio with other defaults measured them.
    """
    try:
        record = read_json(anchor_file(training_file), dict)
        table = record["anchors"] if record["settings"] == _anchor_settings() else []
        found = [(TrainingBudget(**anchor["effort"]), float(anchor["loss"])) for anchor in table]
        return found if found and are_apart([budget for budget, _ in found]) else []
    except (UserError, KeyError, TypeError, ValueError):
        return []


def write_anchors(training_file: Path, anchors: Sequence[tuple[TrainingBudget, float]]) -> None:
    """Keep the anchors of a text beside its tokens, with the settings that they have."""
    entries = [{"effort": asdict(budget), "loss": loss} for budget, loss in anchors]
    record = {"settings": _anchor_settings(), "anchors": entries}
    write_json(anchor_file(training_file), record)


def _anchor_settings() -> Table:
    """What decides the losses of anchors, beside the text."""
    recipe = to_table(anchor_recipe())
    return {name: recipe[name] for name in ("seed", "model", "optimizer", "schedule", "stream")}
