"""The memory of a step on a GPU is what the plain step holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from folio.planning.step_memory import CONTEXT_BYTES, saved_bytes, step_memory
from folio.recipe.memory import kept_bytes
from folio.recipe.parameter_memory import gathered_bytes
from folio.recipe.recipe import Recipe, make_recipe
from folio.training.config import SHARDINGS

SHAPE = {"n_layers": 1, "d_model": 64, "n_heads": 2, "context_length": 64, "vocab_size": 64}


@pytest.mark.parametrize(
    ("preset", "more"),
    [("gpt2", {}), ("modern", {}), ("modern", {"n_kv_heads": 1})],
)
def test_a_block_saves_what_torch_saves_of_it(preset: str, more: dict[str, int]):
    # An RMSNorm is one operation on GPUs and saves as much as a LayerNorm, unlike on processors.
    model = SHAPE | more | {"normalization": "layernorm"}
    one = make_recipe({"preset": preset, "model": model}).model
    two = replace(one, n_layers=2)
    kept = kept_bytes(two, torch.bfloat16) - kept_bytes(one, torch.bfloat16)
    assert saved_bytes(two) - saved_bytes(one) == pytest.approx(kept / 64, rel=0.12)


def small(**changes: Any) -> Recipe:
    shape = {"preset": "gpt2", "size": "small", "model": {"vocab_size": 50_257}}
    return make_recipe(shape, {"training": changes})


def test_memory_is_that_of_weights_and_windows():
    recipe = small()
    alone, shared = (step_memory(recipe, 8, n) for n in (1, 2))
    assert shared - alone == 4 * recipe.model.n_parameters
    more = step_memory(recipe, 16) - alone
    assert more == pytest.approx(8 * 1024 * saved_bytes(recipe.model))
    assert 18e9 < step_memory(recipe, 16) < 22e9


def test_processes_divide_what_sharding_says():
    n = small().model.n_parameters
    none, optimizer, full = (step_memory(small(sharding=s), 8, 4) for s in SHARDINGS)
    assert none - optimizer == pytest.approx(12 * n * 3 / 4)
    gathered = gathered_bytes(small(sharding="full"), 2, 4)
    assert none - full == pytest.approx((28 - 20 / 4) * n - gathered)
    assert 0 < gathered < 0.3e9
    assert step_memory(small(sharding="full"), 8, 1) == step_memory(small(), 8, 1), "one has all"


def test_what_an_update_takes_counts_where_windows_take_less():
    shape = {"n_layers": 1, "d_model": 4096, "n_heads": 32, "context_length": 1, "vocab_size": 64}
    recipe = make_recipe({"preset": "gpt2", "model": shape})
    n = recipe.model.n_parameters
    assert step_memory(recipe, 1) == pytest.approx(CONTEXT_BYTES + (24 + 2) * n)
