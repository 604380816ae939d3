"""Runs that differ in their seeds alone: what chance makes of a loss, beside what texts make of it.

A loss has two errors. Over texts: another held-out text would have given another loss, for both of
two models alike. Over models: another seed would have given another model of the same recipe. A
single pair of models says which of the two is better (paired.py); which of two recipes is better,
only the second error can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from folio.config import read_toml
from folio.evaluation.uncertainty import SeedNoise, seed_noise
from folio.run.directory import Run, labels_of
from folio.run.summary import text_of

ENDED = ("finished", "patience")
"""How a run ends whose loss says something of its recipe."""
CHANCE = ("seed", "device")
"""Entries of a recipe that do not make it another one. So are the steps that a clock decided."""


@dataclass(frozen=True)
class Seeds:
    """Holds the best losses of the runs of one recipe."""

    names: list[str]
    losses: list[float]
    """Best validation loss of each, in nats per token."""
    text_errors: list[float | None]
    """Standard error of each over texts, if it was measured."""
    text: str
    """What must be the same for the losses of two recipes to be compared: settings of corpus and
    tokenizer, and what the sources held."""
    left_out: list[str] = field(default_factory=list[str])
    """Runs of the recipe that did not come to an end, and their states."""

    @property
    def label(self) -> str:
        """Name the runs, the first and how many there are if they are many."""
        n = len(self.names)
        return ", ".join(self.names) if n <= 3 else f"{self.names[0]} and {n - 1} more"


def group_by_recipe(compared: Sequence[Run], facts: Sequence[dict[str, Any]]) -> list[Seeds]:
    """Put the runs of one recipe together, in the order of their first runs.

    Runs without an evaluation are passed over, and those that repeat a seed. Those that did not
    come to an end are in `left_out`.

    Args:
        compared: the runs.
        facts: of each, as `facts_of` gives them.
    """
    groups, seen = dict[str, Seeds](), set[tuple[str, int]]()
    for run, label, fact in zip(compared, labels_of(compared), facts):
        loss = fact["best_validation_loss"]
        if loss is None or not math.isfinite(loss):
            continue
        recipe, read = read_toml(run.recipe_file), text_of(run)
        same = _in_json([_without_chance(recipe), read])
        if (same, recipe["seed"]) in seen:
            continue
        text = _in_json([recipe["corpus"], recipe["tokenizer"], read])
        group = groups.setdefault(same, Seeds([], [], [], text))
        if fact["state"] not in ENDED:
            group.left_out.append(f"{label} ({fact['state']})")
            continue
        seen.add((same, recipe["seed"]))
        group.names.append(label)
        group.losses.append(loss)
        group.text_errors.append(fact["standard_error"])
    return list(groups.values())


def _without_chance(recipe: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in recipe.items() if key not in CHANCE}
    if recipe.get("schedule", {}).get("pace"):
        kept["schedule"] = {k: v for k, v in recipe["schedule"].items() if k != "pace"}
        kept["training"] = {k: v for k, v in recipe["training"].items() if k != "max_steps"}
    return kept


def _in_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def over_seeds(groups: Sequence[Seeds]) -> list[str]:
    """Say, in sentences, what seeds and what texts make of each loss, and which recipes differ from
    the first.

    Nothing is said if no recipe has two seeds.
    """
    left_out = [one for g in groups if len(g.names + g.left_out) > 1 for one in g.left_out]
    found = [f"not among the seeds, being unfinished: {', '.join(left_out)}"] if left_out else []
    groups = [group for group in groups if group.losses]
    noise = seed_noise([group.losses for group in groups])
    if noise is None:
        return found
    described = [_describe(group, noise) for group in groups if len(group.losses) > 1]
    first, *others = groups
    compared = [_compare(first, other, noise) for other in others if other.text == first.text]
    return found + described + compared


def _describe(group: Seeds, noise: SeedNoise) -> str:
    n = len(group.losses)
    error = group.text_errors[0]
    texts = "" if error is None else f"; ± {error:.4f} over texts"
    return (
        f"{group.label} differ in their seeds alone: {mean(group.losses):.4f} nats per token, "
        f"± {noise.error(n):.4f} over {n} models{texts}"
    )


def _compare(first: Seeds, second: Seeds, noise: SeedNoise) -> str:
    error = noise.error(len(first.losses), len(second.losses))
    difference = mean(second.losses) - mean(first.losses)
    size = f"{abs(difference):.4f} ± {error:.4f} nats per token over models"
    if not noise.differ(first.losses, second.losses):
        return f"the recipes of {first.label} and {second.label} cannot be told apart: {size}"
    better, worse = (second, first) if difference < 0 else (first, second)
    return f"the recipe of {better.label} is better than that of {worse.label} by {size}"
