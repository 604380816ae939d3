"""A recipe: one config a room, composed. Everything that decides a run stands in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from folio.config import Table, from_table, merge
from folio.corpus.corpus import CorpusConfig
from folio.device import DeviceConfig
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.recipe.presets import preset_table, usual_rates
from folio.run.formats import KEY, require_readable
from folio.tokenizers.config import TokenizerConfig
from folio.tokens.stream import StreamConfig
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.pace import parse_knot
from folio.training.schedule import ScheduleConfig

BUDGETS = ("max_steps", "max_tokens", "max_epochs", "minutes")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete run."""

    preset: str = "modern"
    """The family of the model: `gpt2` (the textbook) or `modern` (Qwen3's graph)."""

    size: str = "nano"
    """nano, micro, mini, baby, small or medium."""

    seed: int = 1
    """Of weights, order and dropout."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it is 0 or more.")
        pace, steps = self.schedule.pace, self.training.max_steps
        if pace and parse_knot(pace[-1]).last != steps:
            raise UserError(
                f"schedule.pace ends at step {parse_knot(pace[-1]).last}, which must be "
                f"training.max_steps, got {steps}. Leave schedule.pace out for another budget."
            )


def make_recipe(*layers: Table) -> Recipe:
    """Compose a recipe from tables as `lay_over` does, the preset below all of them.

    Raises:
        UserError: an unknown setting, a value that does not fit, or a recipe of a newer version.
    """
    table = lay_over(*layers)
    require_readable("recipe", table, "The recipe")
    table.pop(KEY, None)
    family = _name(table, "preset", Recipe.preset)
    size = _name(table, "size", Recipe.size)
    recipe = from_table(Recipe, merge(preset_table(family, size), table))
    given = table.get("optimizer", {})
    usual = usual_rates(recipe.model.d_model).items()
    rates = {name: rate for name, rate in usual if name not in given}
    return replace(recipe, optimizer=replace(recipe.optimizer, **rates))


def lay_over(*layers: Table) -> Table:
    """Lay tables of settings over each other.

    A layer that sets a budget replaces the budgets of the layers before it: who says
    `--minutes 2` does not want the recipe's steps.
    """
    table: Table = {}
    for layer in layers:
        if any(name in layer.get("training", {}) for name in BUDGETS):
            below = table.get("training", {})
            table["training"] = {k: v for k, v in below.items() if k not in BUDGETS}
            if "pace" in table.get("schedule", {}):  # it belongs to the budget below
                table["schedule"] = {k: v for k, v in table["schedule"].items() if k != "pace"}
        table = merge(table, layer)
    return table


def _name(table: Table, key: str, default: str) -> Any:
    name = table.get(key, default)
    if not isinstance(name, str):
        raise UserError(f"{key} is {name!r}; expected text.")
    return name
