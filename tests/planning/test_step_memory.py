"""The memory of a step on a GPU is what the plain step holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from folio.planning.step_memory import saved_bytes, step_memory
from folio.recipe.memory import kept_bytes
from folio.recipe.recipe import make_recipe

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


def test_memory_is_that_of_weights_and_windows():
    model = make_recipe({"preset": "gpt2", "size": "small", "model": {"vocab_size": 50_257}}).model
    alone, shared = (step_memory(model, 8, is_shared) for is_shared in (False, True))
    assert shared - alone == 4 * model.n_parameters
    more = step_memory(model, 16, False) - alone
    assert more == pytest.approx(8 * 1024 * saved_bytes(model))
    assert 18e9 < step_memory(model, 16, False) < 22e9
