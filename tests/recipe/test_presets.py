"""What a family and a size stand for."""

from __future__ import annotations

import pytest

from folio.config import overrides_table
from folio.errors import UserError
from folio.recipe.presets import FAMILIES, SIZES
from folio.recipe.recipe import Recipe, make_recipe


def recipe_of(family: str, size: str) -> Recipe:
    return make_recipe({"preset": family, "size": size, "model": {"vocab_size": 65}})


@pytest.mark.parametrize("size", SIZES)
def test_a_step_reads_as_many_tokens_in_windows_of_any_length(size: str):
    recipes = [recipe_of(family, size) for family in FAMILIES]
    read = {recipe.training.batch_size * recipe.model.context_length for recipe in recipes}
    assert read == {SIZES[size].step_tokens}


def test_windows_are_longer_where_positions_need_not_be_learned():
    lengths = [recipe_of(family, "micro").model.context_length for family in ("gpt2", "modern")]
    assert lengths == [128, 512]


def test_windows_are_longest_where_what_stands_in_them_counts():
    for size in SIZES:
        modern, research = (recipe_of(family, size) for family in ("modern", "research"))
        assert research.model.context_length >= modern.model.context_length
    lengths = [recipe_of("research", size).model.context_length for size in ("nano", "micro")]
    assert lengths == [512, 1024]


def test_a_recipe_of_a_newer_format_gets_a_line_whatever_else_stands_in_it():
    assert make_recipe({"format": 1}) == make_recipe({}) == make_recipe({"format": 0})
    newer = {"format": 99, "model": {"what_is_yet_to_come": 1}}
    with pytest.raises(UserError, match=r"The recipe was made by a newer version"):
        make_recipe(newer)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400])
@pytest.mark.parametrize(
    "name", ["training.minutes", "training.max_epochs", "optimizer.learning_rate"]
)
def test_settings_are_finite_in_a_file_and_on_the_command_line(name: str, value: float):
    room, leaf = name.split(".")
    with pytest.raises(UserError, match=f"{name} must be a finite number"):
        make_recipe({room: {leaf: value}})
    with pytest.raises(UserError, match=f"{name} must be a finite number"):
        overrides_table(Recipe, [(name, str(value))])
