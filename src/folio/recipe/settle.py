"""Completes a recipe with its text, size, device and memory; only its budget stays open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from folio.config import Table
from folio.device import Device
from folio.recipe.budget import CommandClock
from folio.recipe.build import choose_for, fit_vocabulary
from folio.recipe.expected_loss import RULE, read_anchors, training_budget
from folio.recipe.memory import fit_memory, memory_before
from folio.recipe.origin import Origin, open_origin
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import Recipe
from folio.recipe.sizing import size_recipe
from folio.recipe.speed import Throughput
from folio.recipe.watcher import Watcher
from folio.run.prediction import Estimate
from folio.storage import local
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens.goldfish import CHARACTERS_BEFORE, TOKENS_BEFORE
from folio.training.distributed import Processes


class Settled(NamedTuple):
    """A recipe that leaves nothing open except its budget."""

    recipe: Recipe
    prepared: Prepared
    """The text that it trains on."""
    device: Device
    memory_bytes: int
    """Predicted memory of training in bytes; 0 if unknown."""
    speed: Throughput | None
    """Speed of its size on this machine, if it was measured."""
    origin: Origin | None = None
    """The run that it begins with; None for random weights."""


def settle(
    recipe: Recipe,
    watcher: Watcher,
    given: Table | None = None,
    clock: CommandClock | None = None,
    group: Processes | None = None,
) -> Settled:
    """Prepare the text, and resolve all that a recipe leaves open, except the budget.

    Args:
        recipe, watcher, given, clock: as in train_recipe.
        group: of the processes that will train together, if there are several.

    Raises:
        UserError: as in `prepare`, `choose_device` and `fit_memory`.
    """
    prepared = prepare(recipe, watcher.tell)
    for warning in prepared.warnings:
        watcher.tell(f"warning: {warning}")
    in_use, speed = memory_before(), None
    if given is not None:
        used = clock.used() if clock else 0.0
        recipe, speed = size_recipe(given, prepared, in_use, watcher.tell, used)
    recipe = replace(recipe, tokenizer=prepared.tokenizer_config)
    recipe = fit_vocabulary(recipe, prepared.tokenizer.vocab_size)
    device = choose_for(recipe)
    watcher.tell(f"device: {device}")
    recipe = replace(with_absolute_paths(recipe), device=device.config)
    recipe = with_goldfish_before(recipe, prepared.tokenizer)
    recipe, origin = open_origin(recipe, given, device, prepared.tokenizer, watcher.tell)
    if origin is not None:
        prepared.files.update(origin.files)
        prepared.record["families"]["old"] = origin.families
    recipe, memory_bytes = fit_memory(recipe, device, in_use, watcher.tell, group)
    return Settled(recipe, prepared, device, memory_bytes, speed, origin)


def expect(settled: Settled, recipe: Recipe, speed: Throughput | None) -> Estimate:
    """Predict what is known in advance: memory on a CPU, time if the speed was measured, and loss
    if `folio plan` has measured this text.

    Args:
        settled: what is trained.
        recipe: its recipe with a budget in steps.
        speed: the speed that turned the budget into steps.
    """
    prepared = settled.prepared
    config, length = recipe.training, recipe.model.context_length
    # Neither applies to a run that begins with another, or to answers alone.
    is_other = recipe.start.run or "train.mask" in prepared.files
    anchors = [] if is_other else read_anchors(prepared.files["train"])
    budget = training_budget(
        recipe.model, config.batch_size, config.max_steps, len(prepared.training())
    )
    return Estimate(
        max_steps=config.max_steps,
        memory_bytes=settled.memory_bytes or None,
        seconds=speed and speed.run_seconds(config, length, len(prepared.validation())),
        loss=RULE.expected_loss(anchors, budget) if anchors else None,
        loss_band=RULE.band if anchors else None,
    )


def with_goldfish_before(recipe: Recipe, tokenizer: Tokenizer) -> Recipe:
    """Write how many tokens decide whether a target is left out, if some are."""
    if not recipe.training.goldfish or recipe.training.goldfish_before:
        return recipe
    by_character = isinstance(tokenizer, CharacterTokenizer)
    before = CHARACTERS_BEFORE if by_character else TOKENS_BEFORE
    return replace(recipe, training=replace(recipe.training, goldfish_before=before))


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Replace files by their absolute paths, so that the recipe means the same from any folder."""
    corpus = recipe.corpus
    return replace(
        recipe,
        corpus=replace(
            corpus,
            sources=absolute_paths(corpus.sources),
            validation=absolute_paths(corpus.validation),
        ),
    )


def absolute_paths(sources: Sequence[str]) -> tuple[str, ...]:
    """Replace files by their absolute paths; built-in names and standard input are unchanged."""
    paths = [local(source) for source in sources]
    return tuple(
        str(path.resolve()) if source != "-" and path.exists() else source
        for source, path in zip(sources, paths)
    )
