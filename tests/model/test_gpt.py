"""The model against its promises; the parts against independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.errors import UserError
from folio.model.attention import (
    causal_attention,
    causal_attention_written_out,
    causal_mask,
)
from folio.model.config import ActivationKind, ModelConfig
from folio.model.dropout import Dropout
from folio.model.feed_forward import FeedForward, GatedFeedForward, make_feed_forward
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.model.loss import next_token_loss, penalized_loss
from folio.model.normalization import make_norm
from folio.model.positions import RotaryPositions, SinusoidalPositions
from folio.recipe.recipe import make_recipe
from folio.testing import tiny_gpt

VARIANTS = [
    {"positions": "none"},
    {"positions": "learned"},
    {"positions": "sinusoidal", "scale_embeddings": True},
    {"positions": "rope"},
    {"normalization": "rmsnorm", "bias": False},
    {"norm_placement": "post"},
    {"norm_placement": "both", "qk_norm": True},
    {"norm_placement": "none"},
    {"activation": "relu"},
    {"activation": "relu2"},
    {"activation": "gelu_tanh"},
    {"head_dim": 10, "qk_norm": True},
    {"head_dim": 4, "d_model": 13, "n_kv_heads": 1, "positions": "rope", "bias": False},
    {"activation": "swiglu", "bias": False},
    {"activation": "swiglu"},
    {"tied_head": False, "d_ff": 20},
    {"n_heads": 6, "n_kv_heads": 2, "positions": "rope", "qk_norm": True},
]
IDS = [" ".join(f"{k}={v}" for k, v in variant.items()) for variant in VARIANTS]
every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=IDS)


def tokens(b: int, t: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 11, (b, t), generator=torch.Generator().manual_seed(seed))


@every_variant
def test_logits_have_a_row_for_each_position(variant: dict[str, Any]):
    assert tiny_gpt(**variant)(tokens(3, 5)).shape == (3, 5, 11)


@every_variant
def test_position_t_does_not_see_position_t_plus_1(variant: dict[str, Any]):
    model = tiny_gpt(**variant)
    past = tokens(2, 8)
    for t in range(7):
        future = past.clone()
        future[:, t + 1 :] = (future[:, t + 1 :] + 1) % 11
        assert torch.equal(model(past)[:, : t + 1], model(future)[:, : t + 1])


@every_variant
def test_every_position_sees_the_first_one(variant: dict[str, Any]):
    # With no residual branch at all attention would be all that is left; here it only adds.
    model = tiny_gpt(initialization_std=0.3, **variant)
    one, other = tokens(1, 8), tokens(1, 8)
    other[0, 0] = (other[0, 0] + 1) % 11
    assert (model(one) != model(other)).any(dim=2).all()


@every_variant
def test_cached_logits_equal_uncached_ones(variant: dict[str, Any]):
    model = tiny_gpt(initialization_std=0.2, **variant)
    token_ids = tokens(3, 8)
    with torch.no_grad():
        cache = KVCache(model.config, 3, like=model.lm_head.weight)
        pieces = [model(token_ids[:, a:b], cache) for a, b in ((0, 3), (3, 4), (4, 6), (6, 8))]
        expected = model(token_ids)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-5, atol=1e-5)


@every_variant
def test_the_config_knows_the_number_of_parameters(variant: dict[str, Any]):
    model = tiny_gpt(**variant)
    assert model.config.n_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_the_first_loss_is_that_of_knowing_nothing(preset: str):
    recipe = make_recipe({"preset": preset, "model": {"vocab_size": 67}})
    config = recipe.model
    model = GPT(config, torch.Generator().manual_seed(1)).eval()
    token_ids = torch.randint(0, 67, (8, 65), generator=torch.Generator().manual_seed(2))
    loss = next_token_loss(model(token_ids[:, :-1]), token_ids[:, 1:]).item()
    assert loss <= math.log(67) + config.d_model * 0.02**2 / 2 + 0.1
    assert loss >= math.log(67) - 0.1


@pytest.mark.parametrize(("t", "s"), [(4, 4), (1, 5), (3, 5)])
def test_attention_equals_the_one_written_out(t: int, s: int):
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(2, 3, t, 4, generator=draw)
    k, v = torch.randn(2, 2, 3, s, 4, generator=draw)
    mixed, weights = causal_attention_written_out(q, k, v)
    torch.testing.assert_close(causal_attention(q, k, v), mixed)
    assert weights.shape == (2, 3, t, s)
    assert torch.equal(weights > 0, causal_mask(t, s, q.device).expand_as(weights))


def test_dropped_attention_weights_mix_no_values():
    dropout = Dropout(0.5)
    values = torch.eye(8).expand(1, 1, 8, 8).contiguous()  # so that the output is the weights
    q, k = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dropped = causal_attention(q, k, values, dropout)[0, 0]
    _, weights = causal_attention_written_out(q, k, values)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * weights[0, 0][kept])
    assert 5 < kept.sum() < 31  # of 36 below the diagonal


@pytest.mark.parametrize("shape", [(3, 5, 12), (2, 3, 4, 6)])
@pytest.mark.parametrize("transposed", [False, True])
def test_rmsnorm_equals_torchs_own_backward_too(shape: tuple[int, ...], transposed: bool):
    draw = torch.Generator().manual_seed(0)
    norm = make_norm(ModelConfig(normalization="rmsnorm", normalization_epsilon=0.1), shape[-1])
    assert isinstance(norm, nn.RMSNorm)
    gain = torch.randn(shape[-1], generator=draw)
    with torch.no_grad():
        norm.weight.copy_(gain)
    x, gradient = torch.randn(2, *shape, generator=draw)
    if transposed:  # as heads are
        x, gradient = x.transpose(0, 1), gradient.transpose(0, 1)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    gain.requires_grad_()
    found, expected = norm(ours), F.rms_norm(theirs, shape[-1:], gain, 0.1)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(norm.weight.grad, gain.grad)


def test_rotary_scores_depend_on_distance_alone():
    rotary = RotaryPositions(ModelConfig(d_model=8, n_heads=1, context_length=50))
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    scores = [(rotary(q, i + 3) * rotary(k, i)).sum().item() for i in (0, 7, 40)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4) == pytest.approx(scores[2], rel=1e-4)
    assert rotary(q, 0).sum().item() == pytest.approx(q.sum().item())
    assert rotary(q, 1).norm().item() == pytest.approx(q.norm().item())


def test_rotary_turns_dimension_i_with_i_plus_half():
    rotary = RotaryPositions(ModelConfig(d_model=4, n_heads=1, context_length=3))
    x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    # Angle of the first pair at place 2: 2 * 10000^0 = 2.
    expected = torch.tensor([math.cos(2), 0.0, math.sin(2), 0.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(rotary(x, 2), expected)


def test_sinusoidal_positions_follow_the_paper():
    table = SinusoidalPositions(ModelConfig(d_model=6, n_heads=1, context_length=9)).table
    for place in (0, 5):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            assert table[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "bend"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("relu2", lambda x: x.clamp(min=0) ** 2),
        (  # Hendrycks and Gimpel 2016, section 2
            "gelu_tanh",
            lambda x: x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_the_feed_forward_layer_bends_as_its_name_says(
    activation: ActivationKind, bend: Callable[[Tensor], Tensor]
):
    layer = make_feed_forward(ModelConfig(d_model=4, n_heads=1, activation=activation))
    assert isinstance(layer, FeedForward)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    wide = x @ layer.up_proj.weight.T + layer.up_proj.bias
    expected = bend(wide) @ layer.down_proj.weight.T + layer.down_proj.bias
    torch.testing.assert_close(layer(x), expected)


def test_swiglu_gates_with_silu():
    layer = make_feed_forward(ModelConfig(d_model=4, n_heads=1, activation="swiglu", bias=False))
    assert isinstance(layer, GatedFeedForward)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    gate = x @ layer.gate_proj.weight.T
    expected = (gate * gate.sigmoid() * (x @ layer.up_proj.weight.T)) @ layer.down_proj.weight.T
    torch.testing.assert_close(layer(x), expected)
    assert layer.up_proj.out_features == 32  # 8/3 * 4, rounded up to a multiple of 32


def test_residual_projections_start_smaller():
    model = tiny_gpt(n_layers=8, d_model=96, initialization_std=0.02)
    stds = {n: p.std().item() for n, p in model.named_parameters() if p.dim() == 2}
    assert stds["blocks.3.attention.qkv_proj.weight"] == pytest.approx(0.02, rel=0.05)
    for name in ("attention.out_proj", "feed_forward.down_proj"):
        assert stds[f"blocks.3.{name}.weight"] == pytest.approx(0.02 / 4, rel=0.05)


def test_the_same_generator_gives_the_same_weights():
    one, two, other = tiny_gpt(seed=1), tiny_gpt(seed=1), tiny_gpt(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.token_embedding.weight, other.token_embedding.weight)


def check_dropout(dropout: Dropout, dtype: torch.dtype, generator: torch.Generator | None) -> None:
    """Dropout of a fifth: the mean stays, masks are independent, and a seed repeats them."""
    assert dropout.p == 0.2
    dropout.generator = generator
    generator = generator or torch.default_generator
    generator.manual_seed(3)
    x = torch.ones(100_001, dtype=dtype, requires_grad=True)
    y = dropout(x)
    y.backward(torch.full_like(y, 2.0))
    kept = y != 0
    # One standard deviation of the share is 0.0013.
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.005)
    assert (y[kept] == torch.tensor(1.25, dtype=dtype)).all()
    assert x.grad is not None and torch.equal(x.grad, 2 * y)
    again = dropout(x) != 0
    for other in (kept.roll(1), kept.roll(384), again, again.roll(1)):  # independent
        assert (kept & other).double().mean().item() == pytest.approx(0.64, abs=0.006)
    generator.manual_seed(3)
    assert torch.equal(dropout(x) != 0, kept)


@pytest.mark.parametrize("generator", [torch.Generator(), None], ids=["own", "global"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_sets_each_number_to_zero_with_probability_p_and_keeps_the_mean(
    dtype: torch.dtype, generator: torch.Generator | None
):
    check_dropout(Dropout(0.2), dtype, generator)


def test_dropout_acts_in_training_only():
    model = tiny_gpt(residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5)
    x = tokens(2, 8)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_the_loss_is_the_mean_over_targets_that_count():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, -100], [4, -100, -100]])
    picked = [-F.log_softmax(logits[b, t], 0)[k] for b, t, k in ((0, 0, 1), (0, 1, 2), (1, 0, 4))]
    torch.testing.assert_close(next_token_loss(logits, targets), torch.stack(picked).mean())


def test_ids_that_do_not_exist_are_an_error():
    model = tiny_gpt()
    for token_id in (-1, model.config.vocab_size):
        with pytest.raises(IndexError):
            model(torch.tensor([[1, token_id]]))
    with pytest.raises(IndexError):
        next_token_loss(torch.zeros(1, 2, 11), torch.tensor([[3, 11]]))


@pytest.mark.parametrize("penalty", [0.3, 1e-30])
def test_confidence_costs_and_the_loss_is_told_without_it(penalty: float):
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([[1, 2, -100], [4, -100, -100]])
    told = penalized_loss(logits, targets, penalty)
    told.backward()
    found, logits.grad = logits.grad, None
    flat = logits.flatten(0, 1)
    surprise = F.cross_entropy(flat, targets.flatten(), reduction="sum")
    torch.testing.assert_close(told, surprise)
    predictions = [
        torch.distributions.Categorical(logits=logits[b, t]) for b, t in ((0, 0), (0, 1), (1, 0))
    ]
    (surprise - penalty * sum(p.entropy() for p in predictions)).backward()
    torch.testing.assert_close(found, logits.grad)


@torch.no_grad()
def test_rows_of_a_cache_have_lengths_of_their_own_and_share_its_memory():
    model = tiny_gpt(positions="rope")
    texts = [tokens(1, length) for length in (3, 1, 5)]
    pool = KVCache(model.config, 3, like=model.lm_head.weight)
    rows = pool.rows()
    assert [(row.pool, row.row) for row in rows] == [(pool, 0), (pool, 1), (pool, 2)]
    for text, row in zip(texts, rows):
        model(text[:, :-1], row) if text.shape[1] > 1 else None
    for text, row in zip(texts, rows):  # in turn, so that one would write over another
        torch.testing.assert_close(model(text[:, -1:], row)[:, -1], model(text)[:, -1])
        assert row.keys.shape == (2, 1, 2, 32, 6) and row.length == text.shape[1]
        assert row.values.data_ptr() == pool.values[:, row.row].data_ptr()
    assert pool.length == 0
    rows[2].length = 0
    assert [row.length for row in rows] == [3, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_of_a_cache_begins_at_a_cache_line_as_a_cache_alone_does(dtype: torch.dtype):
    model = tiny_gpt(context_length=11, n_heads=3, d_model=15).to(dtype)
    for row in KVCache(model.config, 5, like=model.lm_head.weight).rows():
        assert all(layer.keys.data_ptr() % 64 == 0 for layer in row.layers)
        assert all(layer.values.data_ptr() % 64 == 0 for layer in row.layers)


def test_more_positions_than_the_context_are_refused():
    model = tiny_gpt()
    with pytest.raises(ValueError, match="9 positions"):
        model(tokens(1, 9))
    cache = KVCache(model.config, 1, like=model.lm_head.weight)
    with torch.no_grad():
        model(tokens(1, 8), cache)
        with pytest.raises(ValueError, match="9 positions"):
            model(tokens(1, 1), cache)
        with pytest.raises(ValueError, match="the cache holds 32 positions; 33 were asked for"):
            cache.layers[0].extend(torch.zeros(1, 2, 25, 6), torch.zeros(1, 2, 25, 6))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"d_model": 10, "n_heads": 4}, "--model.d-model 12, another number of heads, or --model"),
        ({"d_model": 128, "n_heads": 3, "positions": "rope"}, "--model.d-model 132, another"),
        ({"d_model": 130, "n_heads": 4, "positions": "rope"}, "--model.d-model 136, another"),
        ({"head_dim": 3, "positions": "rope"}, "--model.head-dim 4"),
        ({"head_dim": -1}, "model.head_dim must be 0 or more, got -1"),
        ({"n_heads": 4, "n_kv_heads": 3}, "must be divisible by model.n_kv_heads, got 4 and 3"),
        ({"d_model": 12, "n_heads": 4, "positions": "rope"}, "--model.d-model 16"),
        ({"d_model": 5, "n_heads": 1, "positions": "sinusoidal"}, "--model.d-model 6"),
        ({"n_layers": 0}, "model.n_layers must be at least 1, got 0"),
        ({"residual_dropout": 1.0}, "0 to below 1"),
        ({"context_length": -1}, "at least 1"),
    ],
)
def test_an_impossible_shape_says_what_to_change(shape: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        ModelConfig(**shape)
    assert message in str(caught.value)
