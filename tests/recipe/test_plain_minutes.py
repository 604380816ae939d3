"""A budget in minutes for the plain step: what is measured, planned and kept is its own."""

from __future__ import annotations

from pathlib import Path

from folio.config import read_toml
from folio.recipe.recipe import make_recipe
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from tests.recipe.test_minutes import ScriptedClock, SlowMachine, losses_of, recipe_of


def test_minutes_without_the_fast_floor_are_measured_kept_and_repeated(book: Path):
    clock = ScriptedClock(1.0)
    recipe = recipe_of(book, device={"fast": "off"})
    run = train_recipe(recipe, "plain", SlowMachine(clock), clock=clock).run
    # What was measured is a step of milliseconds; by the clock of the test it takes 0.2 s and more.
    frozen = make_recipe(read_toml(run.recipe_file))
    assert frozen.device.fast == "off" and len(frozen.schedule.pace) > 1
    assert 10 < frozen.training.max_steps < 75 and clock.seconds < 17
    assert run.events("evaluation")[-1]["step"] == frozen.training.max_steps
    again = train_recipe(frozen, "again", Watcher()).run
    assert losses_of(again) == losses_of(run)
