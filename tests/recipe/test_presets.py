"""What a family and a size stand for."""

from __future__ import annotations

import pytest

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
