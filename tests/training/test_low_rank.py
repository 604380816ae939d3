from __future__ import annotations

import torch
from torch import nn

from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.training.low_rank import LowRankLinear, add_low_rank, corrected, merged, plain_parameters

CONFIG = ModelConfig(vocab_size=13, context_length=7, n_layers=2, n_heads=2, d_model=12)


def adapted(seed: int = 0) -> tuple[GPT, GPT]:
    """A plain model, and the same with corrections that are not 0."""
    plain, model = (GPT(CONFIG, torch.Generator().manual_seed(seed)) for _ in range(2))
    add_low_rank(model, 3, torch.Generator().manual_seed(1))
    return plain, model


def disturb(model: GPT) -> None:
    generator = torch.Generator().manual_seed(2)
    for layer in corrected(model).values():
        nn.init.normal_(layer.up, generator=generator)


def test_corrections_begin_as_the_model_was():
    plain, model = adapted()
    token_ids = torch.arange(14).view(2, 7) % 13
    assert torch.equal(plain(token_ids), model(token_ids))
    expected = dict(plain.named_parameters())
    assert merged(model).keys() == expected.keys() == plain_parameters(model).keys()
    assert all(torch.equal(merged(model)[name], expected[name]) for name in expected)


def test_only_corrections_of_the_blocks_learn():
    _, model = adapted()
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    layers = ("attention.qkv_proj", "attention.out_proj", "feed_forward.up_proj")
    layers += ("feed_forward.down_proj",)
    names = {f"blocks.{i}.{layer}" for i in range(2) for layer in layers}
    assert corrected(model).keys() == names
    assert learned == {f"{name}.{part}" for name in names for part in ("down", "up")}


def test_a_merged_model_computes_the_same():
    plain, model = adapted()
    disturb(model)
    token_ids = torch.arange(14).view(2, 7) % 13
    expected = model(token_ids)
    assert not torch.allclose(plain(token_ids), expected, atol=1e-3)
    plain.load_state_dict(
        merged(model) | {"lm_head.weight": merged(model)["token_embedding.weight"]}
    )
    torch.testing.assert_close(plain(token_ids), expected, atol=1e-5, rtol=1e-5)


def test_a_correction_is_written_out():
    layer = LowRankLinear(nn.Linear(5, 4), 2)
    nn.init.normal_(layer.up)
    x = torch.randn(3, 6, 5)
    update = sum(torch.outer(layer.up[:, r], layer.down[r]) for r in range(2))
    by_hand = x @ (layer.frozen.weight + update).T + layer.frozen.bias
    torch.testing.assert_close(layer(x), by_hand)
    assert layer(x).shape == (3, 6, 4)
    layer(x).sum().backward()
    assert layer.frozen.weight.grad is None and layer.up.grad is not None
