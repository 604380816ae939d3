from __future__ import annotations

from typing import Any

import pytest
import torch

from folio.generation.batch import Batch
from folio.generation.readers import PlainReader
from folio.generation.row import Request
from folio.generation.sampling import SamplingConfig
from folio.generation.sliding import slide_for
from folio.model.kv_cache import KVCache
from folio.testing import tiny_gpt
from tests.generation.plain import write_in_one_pass

CHANGES = [
    {"positions": "none"},
    {},
    {"n_kv_heads": 1},
    {"qk_norm": True, "normalization": "rmsnorm"},
    {"rope_base": 7.0, "head_dim": 10},
    {"context_length": 1},
    {"context_length": 2},
    {"context_length": 3},
    {"context_length": 5},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_cache_that_slides_writes_what_one_long_pass_says(changes: dict[str, Any]):
    shape = {"positions": "rope", "initialization_std": 0.5, "tied_head": False, "n_layers": 3}
    model = tiny_gpt(**(shape | changes))
    config = SamplingConfig(temperature=1.0, seed=3)
    reader, read = PlainReader(model), []
    plain = reader.read
    reader.read = lambda token_ids, caches: (  # type: ignore[method-assign]
        read.append(len(token_ids[0])),
        plain(token_ids, caches),
    )[1]
    batch = Batch(reader, 1)
    batch.add(Request(prompt=[1, 2, 3], config=config, max_tokens=50))
    written = []
    while batch.rows:
        written += [drawn.token_id for _, drawn in batch.step()]
    assert written == write_in_one_pass(model, [1, 2, 3], config, 50)
    assert read[1:] == [1] * 49, "nothing is read twice"


@torch.no_grad()
def test_keys_that_stay_are_those_of_their_new_places():
    # In the first layer, a key depends on its token and its place alone.
    model = tiny_gpt(positions="rope", initialization_std=0.5)
    text = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    caches = [KVCache(model.config, 1, like=model.lm_head.weight) for _ in range(2)]
    model(text, caches[0])
    model(text[:, 5:], caches[1])
    slide = slide_for(model)
    assert slide is not None
    slide(caches[0], 5)
    for kept, read in zip(caches[0].layers[:1], caches[1].layers):
        assert kept.length == read.length == 3
        torch.testing.assert_close(kept.keys[:, :, :3], read.keys[:, :, :3])
        torch.testing.assert_close(kept.values[:, :, :3], read.values[:, :, :3])


def test_only_models_whose_positions_are_turns_and_whose_layers_are_known_slide():
    for positions, slides in (
        ("rope", True),
        ("none", True),
        ("learned", False),
        ("sinusoidal", False),
    ):
        assert (slide_for(tiny_gpt(positions=positions)) is not None) == slides
    model = tiny_gpt(positions="rope")

    class Own(type(model.blocks[0].attention)):  # type: ignore[misc]
        pass

    model.blocks[1].attention.__class__ = Own
    assert slide_for(model) is None
