"""A recipe: one config per room, composed. Everything that decides a run is in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from folio.config import Table, from_table, merge, read_toml, to_table, to_toml
from folio.corpus.corpus import CorpusConfig
from folio.device import DeviceConfig
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.ngrams.config import NGramConfig
from folio.recipe.presets import preset_table, usual_rates
from folio.recipe.start import StartConfig, begins_anew, started
from folio.run.directory import Run
from folio.run.formats import FORMATS, KEY, require_readable
from folio.storage import atomic_write
from folio.tokenizers.config import TokenizerConfig
from folio.tokens.stream import StreamConfig
from folio.training.config import SHARDINGS, OptimizerConfig, Sharding, TrainingConfig
from folio.training.pace import StepPlan, parse_plan
from folio.training.schedule import ScheduleConfig

TABLES = ("corpus", "tokenizer", "model", "optimizer", "schedule", "training", "device")
"""Tables that the recipe of every run has, whatever the version that wrote it."""
CHANGEABLE = ("training", "device")
"""Tables of a recipe that may change when a run is resumed."""
BUDGETS = ("max_steps", "max_tokens", "max_epochs", "minutes")
EITHER = {"evaluations": "evaluation_interval", "evaluation_interval": "evaluations"}
"""Settings of [training] that say the same in two ways."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings that decide a run: one table per room, over the defaults of a preset.

    `Recipe.of(size="micro", model={"n_layers": 6})` fills in the rest from preset and size.
    """

    preset: str = "modern"
    """The family of the model: `gpt2` (the textbook), `modern` (Qwen3's graph), or `research`
    (modern beside counted n-grams)."""

    size: str = "nano"
    """Size of the model, 0.8 to 350 M parameters: nano, micro, mini, baby, small or medium."""

    seed: int = 1
    """Seed of weights, order and dropout."""

    start: StartConfig = field(default_factory=StartConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    ngrams: NGramConfig = field(default_factory=NGramConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    @classmethod
    def of(cls, **settings: Any) -> Recipe:
        """Compose a recipe from keyword arguments, as `make_recipe` does.

        >>> Recipe.of(preset="gpt2", model={"n_layers": 6}).model.n_layers
        6
        """
        return make_recipe(started(settings))

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed must be 0 or more, got {self.seed}.")
        pace, steps = self.schedule.pace, self.training.max_steps
        if pace and parse_plan(pace[-1]).last != steps:
            raise UserError(
                f"schedule.pace ends at step {parse_plan(pace[-1]).last}, which must be "
                f"training.max_steps, got {steps}. Leave schedule.pace out for another budget."
            )
        if self.start.lora and (self.optimizer.kind == "muon" or self.device.fast == "on"):
            raise UserError(
                "start.lora takes AdamW and the plain step: Muon moves whole matrices, and the "
                "fast step all of them. Leave optimizer.kind and device.fast out."
            )
        if self.training.sharding != "none" and (self.start.lora or self.device.fast == "on"):
            raise UserError(
                f"training.sharding = {self.training.sharding} takes the plain step, and weights "
                f"that all learn. Give --device.fast off, and leave start.lora out."
            )
        if self.start.kept and self.stream.order == "sequential":
            raise UserError(
                f"stream.order = sequential reads one text from front to back, but start.keep is "
                f"{self.start.keep:g}. Give --keep 0, or --stream.order shuffled."
            )


def make_recipe(*layers: Table) -> Recipe:
    """Compose a recipe from tables, later ones over earlier ones and all of them over the preset.

    Raises:
        UserError: an unknown setting, an invalid value, or a recipe of a newer version.
    """
    table = lay_over(*layers)
    require_readable("recipe", table, "The recipe")
    table.pop(KEY, None)
    family = _name(table, "preset", Recipe.preset)
    size = _name(table, "size", Recipe.size)
    recipe = from_table(Recipe, merge(preset_table(family, size), table))
    given = table.get("optimizer", {})
    usual = usual_rates(recipe.model.d_model, recipe.start.rate_factor if recipe.start.run else 1.0)
    rates = {name: rate for name, rate in usual.items() if name not in given}
    return replace(recipe, optimizer=replace(recipe.optimizer, **rates))


def lay_over(*layers: Table) -> Table:
    """Lay tables of settings over each other.

    A layer that sets a budget replaces the budgets of earlier layers: `--minutes 2` must not keep
    the recipe's steps; nor must an interval between evaluations keep its number of them. One that
    names a run to begin with replaces what an earlier one says of another.
    """
    table: Table = {}
    for layer in layers:
        if "run" in layer.get("start", {}) and "start" in table:
            table = begins_anew(table)
        given, below = layer.get("training", {}), table.get("training", {})
        replaced = [other for name, other in EITHER.items() if given.get(name)]
        if any(name in given for name in BUDGETS):
            replaced += BUDGETS
            if "pace" in table.get("schedule", {}):  # it belongs to the budget below
                table["schedule"] = {k: v for k, v in table["schedule"].items() if k != "pace"}
        if below:
            table["training"] = {k: v for k, v in below.items() if k not in replaced}
        table = merge(table, layer)
    return table


def source_layers(sources: Sequence[str | Path | Recipe]) -> list[Table]:
    """Read what a run is made from as layers for `lay_over`: texts, or one recipe.

    Raises:
        UserError: a recipe together with something else, or an invalid TOML file.
    """
    recipes = [s for s in sources if isinstance(s, Recipe) or str(s).endswith(".toml")]
    if recipes and len(sources) > 1:
        words = " ".join("Recipe(...)" if isinstance(s, Recipe) else str(s) for s in sources)
        raise UserError(
            f"A recipe stands alone, but {len(sources)} arguments were given: {words}. "
            f"Give other text as --corpus.sources a.txt,b.txt."
        )
    for recipe in recipes:
        return [to_table(recipe) if isinstance(recipe, Recipe) else read_toml(Path(recipe))]
    return [{"corpus": {"sources": list(map(str, sources))}}] if sources else []


def sharded(recipe: Recipe) -> dict[Sharding, Recipe]:
    """The recipe with each training.sharding that it may have, the fastest first."""
    found: dict[Sharding, Recipe] = {}
    for sharding in SHARDINGS:
        with suppress(UserError):  # LoRA, a page and the fast step go without some
            training = replace(recipe.training, sharding=sharding)
            found[sharding] = replace(recipe, training=training)
    return found


def with_pace(recipe: Recipe, plans: Sequence[StepPlan]) -> Recipe:
    """A recipe that repeats the schedule of a budget in minutes without its clock."""
    schedule = replace(recipe.schedule, pace=tuple(map(str, plans)))
    config = replace(recipe.training, max_steps=plans[-1].last)
    return replace(recipe, schedule=schedule, training=config)


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe into a file, from which `folio train` trains it."""
    with atomic_write(path) as file:
        head = f"# folio train {shlex.quote(str(path))}\n\n{KEY} = {FORMATS['recipe'].written}\n"
        file.write(head + to_toml(recipe))


def read_recipe(run: Run) -> Recipe:
    """Read the recipe of a run, which names all that decided it.

    Raises:
        UserError: it is damaged, or of a newer version; defaults would train something else.
    """
    table = read_toml(run.recipe_file)
    require_readable("recipe", table, run.recipe_file)  # a newer version may have other tables
    for needed in TABLES:
        table[needed]
    return make_recipe(table)


def _name(table: Table, key: str, default: str) -> Any:
    name = table.get(key, default)
    if not isinstance(name, str):
        raise UserError(f"{key} must be text, got {name!r}.")
    return name
