"""Every fast layer computes what the plain one does, forward and backward: the whole table FAST."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from folio.fast import functions
from folio.fast.accelerate import FAST, accelerate
from folio.fast.attention import QUERIES, CausalAttention, causal_attention
from folio.fast.layers import FastDropout, add_dropped
from folio.fast.loss import next_token_loss, penalized_loss
from folio.model import loss as plain_loss
from folio.model.attention import causal_attention_written_out
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.positions import LearnedPositions
from folio.tokens.ignored import IGNORED
from tests.model.test_gpt import check_dropout

pytest.importorskip("numba")
pytestmark = pytest.mark.usefixtures("small_ones_too")

TEXTBOOK = ModelConfig(
    vocab_size=11, context_length=300, n_layers=1, d_model=48, n_heads=4, activation="gelu"
)
MODERN = replace(
    TEXTBOOK,
    n_kv_heads=2,
    positions="rope",
    normalization="rmsnorm",
    norm_placement="both",
    qk_norm=True,
    activation="swiglu",
    bias=False,
)
MIXED = replace(TEXTBOOK, bias=False, n_kv_heads=2, activation="relu", norm_placement="post")
WIDE_HEADS = replace(TEXTBOOK, activation="gelu_tanh", head_dim=20, d_model=50)
CONFIGS = (
    TEXTBOOK,
    MODERN,
    MIXED,
    replace(MIXED, positions="rope", qk_norm=True),
    WIDE_HEADS,
    replace(MODERN, head_dim=8),
)

Example = tuple[nn.Module, tuple[Any, ...]]


@cache
def calls(t: int) -> list[Example]:
    """Every layer of some models, with what it reads there."""
    seen: list[Example] = []

    def note(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append((layer, tuple(x.detach() if is_float(x) else x for x in arguments)))

    for config in CONFIGS:
        model = randomized(GPT(config))
        handles = [layer.register_forward_pre_hook(note) for layer in model.modules()]
        model(torch.arange(2 * t).view(2, t) ** 2 % config.vocab_size)
        for handle in handles:
            handle.remove()
    return seen


def examples(kind: type[nn.Module], t: int) -> list[Example]:
    """Layers of a class as they stand in models, with arguments such as they read there.

    Numbers are random, in float32, of the shapes that come in; token ids stay.
    """
    draw = torch.Generator().manual_seed(t)
    return [
        (layer, tuple(torch.randn(x.shape, generator=draw) if is_float(x) else x for x in read))
        for layer, read in calls(t)
        if type(layer) is kind
    ]


def randomized(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        mean, std = (0.5, 0.3) if parameter.dim() == 1 else (0.0, 0.15)
        nn.init.normal_(parameter, mean, std, generator=draw)
    return module


def results(function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> list[Tensor]:
    """The value, and the gradients of its product with something fixed."""
    arguments = tuple(x.detach().clone().requires_grad_() if is_float(x) else x for x in arguments)
    y = function(*arguments)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    (y.float() * weights).sum().backward()
    leaves = (x for x in arguments if is_float(x))
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def of_layer(
    layer: nn.Module, arguments: tuple[Any, ...], dtype: torch.dtype, fast: bool = False
) -> list[Tensor]:
    layer = copy.deepcopy(layer).to(dtype)
    twin = accelerate(layer) if fast else layer
    assert (type(twin) in FAST.values()) == fast
    given = tuple(x.to(dtype) if is_float(x) else x for x in arguments)
    found = results(twin, given)
    return [*found, *(p.grad for p in layer.parameters() if p.grad is not None)]


def error_of(x: Tensor, true: Tensor) -> float:
    """As a share of what is true."""
    return float((x - true).norm() / true.norm().clamp(min=1e-30))


every_layer = pytest.mark.parametrize("kind", FAST, ids=lambda kind: kind.__name__)


@every_layer
@pytest.mark.parametrize("t", [1, 7, QUERIES, QUERIES + 1, 2 * QUERIES + 5])
def test_a_fast_layer_gives_the_same_in_float32(kind: type[nn.Module], t: int):
    tried = examples(kind, t)
    assert tried, "a new entry of FAST needs a config here that builds it"
    for layer, arguments in tried:
        ours = of_layer(layer, arguments, torch.float32, fast=True)
        theirs, exact = (of_layer(layer, arguments, d) for d in (torch.float32, torch.float64))
        assert len(ours) == len(theirs)
        for one, other, true in zip(ours, theirs, exact):
            assert one.dtype == torch.float32 and one.shape == other.shape
            assert error_of(one, true) < 3 * error_of(other, true) + 2e-6


@every_layer
def test_bfloat16_is_as_near_to_float32_as_torchs_own(kind: type[nn.Module]):
    for layer, arguments in examples(kind, 40):
        ours = of_layer(layer, arguments, torch.bfloat16, fast=True)
        theirs, exact = (of_layer(layer, arguments, d) for d in (torch.bfloat16, torch.float32))
        for one, other, true in zip(ours, theirs, exact):
            assert one.dtype == other.dtype
            assert error_of(one, true) < 1.5 * error_of(other, true) + 1e-3


@every_layer
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_none_do_not_get_lost(
    kind: type[nn.Module], value: float, dtype: torch.dtype
):
    for layer, (x, *others) in examples(kind, 4):
        if not is_float(x):
            continue
        x = torch.ones_like(x)
        x[(0,) * (x.dim() - 2) + (2, 5)] = value
        y, *gradients = of_layer(layer, (x, *others), dtype, fast=True)
        assert not y.isfinite().all()
        if [*layer.parameters()] and kind is not LearnedPositions:  # whose gradients are those of y
            assert not all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_whole_model_gives_the_same(config: ModelConfig):
    model = GPT(config, torch.Generator().manual_seed(2))
    token_ids = torch.arange(2 * 70).view(2, 70) % config.vocab_size
    plain, fast = model(token_ids), accelerate(model)(token_ids)
    assert fast.shape == (2, 70, config.vocab_size)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_gives_the_same(penalty: float, dtype: torch.dtype):
    targets = torch.arange(2 * 40).view(2, 40) % 37
    targets[:, ::3] = IGNORED
    logits = torch.randn(2, 40, 37, generator=torch.Generator().manual_seed(0))

    def loss(of: Any) -> Callable[[Tensor], Tensor]:
        if penalty:
            return lambda x: of.penalized_loss(x, targets, penalty)
        return lambda x: of.next_token_loss(x, targets)

    class Fast:
        penalized_loss = staticmethod(penalized_loss)
        next_token_loss = staticmethod(next_token_loss)

    ours, theirs = (results(loss(of), (logits.to(dtype),)) for of in (Fast, plain_loss))
    exact = results(loss(plain_loss), (logits.double(),))
    for one, other, true in zip(ours, theirs, exact):
        assert one.dtype == other.dtype
        assert error_of(one, true) < 1.5 * error_of(other, true) + 2e-6


def test_the_loss_of_targets_that_do_not_exist_is_an_error():
    for target in (11, 12):
        with pytest.raises(IndexError):
            next_token_loss(torch.zeros(1, 2, 11), torch.tensor([[3, target]]))


def test_token_ids_that_do_not_exist_are_an_error():
    model = accelerate(GPT(TEXTBOOK))
    for token_id in (-1, 11):
        with pytest.raises(IndexError):
            model(torch.tensor([[1, token_id]]))


@pytest.mark.parametrize("penalty", [0.3, 1e-30])
def test_confidence_costs_and_the_loss_is_told_without_it(penalty: float):
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, IGNORED], [4, IGNORED, IGNORED]])
    told = penalized_loss(logits, targets, penalty)
    torch.testing.assert_close(told, next_token_loss(logits, targets, "sum"))


# ---- dropout -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_dropout_keeps_the_mean_too(dtype: torch.dtype):
    check_dropout(FastDropout(0.2), dtype, torch.Generator())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.3, 0.0])
def test_adding_a_dropped_change_is_the_sum(p: float, training: bool):
    x, change = torch.randn(2, 3, 100, 64, generator=torch.Generator().manual_seed(0))
    dropout = FastDropout(p).train(training)

    def both(function: Callable[..., Tensor]) -> list[Tensor]:
        dropout.generator = torch.Generator().manual_seed(1)
        return results(function, (x, change))

    ours, theirs = both(lambda x, c: add_dropped(x, c, dropout)), both(lambda x, c: x + dropout(c))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("p", [0.001, 0.999])
def test_small_and_large_probabilities_are_met(p: float):
    kept = (FastDropout(p)(torch.ones(1_000_000)) != 0).double().mean().item()
    assert 1 - kept == pytest.approx(p, abs=0.0002)


def test_attention_with_dropout_equals_the_one_written_out():
    q, k, v = torch.randn(3, 2, 3, 150, 8, generator=torch.Generator().manual_seed(0))

    # Each block of queries has a mask of its own; the same in one mask for the other.
    p, seeds = 0.3, torch.tensor([5, 2**62 + 7, 11])
    whole = torch.zeros(6, 150, 150)
    for seed, first in zip(seeds.split(1), range(0, 150, QUERIES)):
        last = min(first + QUERIES, 150)
        whole[:, first:last, :last] = functions.drop(torch.ones(6, last - first, last), seed, p)

    class Chosen(FastDropout):
        def draw_seeds(self, n: int = 1) -> Tensor:
            assert n == len(seeds)
            return seeds

        def forward(self, x: Tensor) -> Tensor:
            return x * whole.view(x.shape)

    def with_mask(attention: Callable[..., Tensor]) -> list[Tensor]:
        return results(lambda *x: attention(*x, Chosen(p)), (q, k, v))

    ours = with_mask(causal_attention)
    theirs = with_mask(lambda *x: causal_attention_written_out(*x)[0])
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1.0, 80.0, 1e4])
def test_large_and_small_scores_give_torchs_softmax(size: float):
    scores = size * torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(9).expand(2, 9, 9).contiguous()
    found = CausalAttention.apply(scores * 3, eye, eye, None, 0.0)  # sqrt(9) takes the 3 away
    masked = scores.masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), float("-inf"))
    torch.testing.assert_close(found, masked.softmax(2), rtol=1e-4, atol=1e-7)


UNCOMMON: tuple[nn.Module, ...] = (
    nn.RMSNorm(48),
    nn.RMSNorm(48, eps=1e-5, elementwise_affine=False),
    nn.LayerNorm(48, elementwise_affine=False),
    nn.LayerNorm([7, 48]),
    nn.Embedding(11, 48, padding_idx=5),
    nn.Embedding(11, 48, scale_grad_by_freq=True),
    nn.Embedding(11, 48, max_norm=0.5),
)


@pytest.mark.parametrize("layer", UNCOMMON, ids=repr)
def test_what_the_kernels_do_not_take_is_what_torch_gives(layer: nn.Module):
    x = torch.randn(3, 7, 48, generator=torch.Generator().manual_seed(3))
    if isinstance(layer, nn.Embedding):
        x = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(3))
    given = copy.deepcopy(layer)
    ours = of_layer(given, (x,), torch.float32, fast=type(accelerate(given)) in FAST.values())
    theirs = of_layer(layer, (x,), torch.float32)
    assert len(ours) == len(theirs)
    for found, expected in zip(ours, theirs):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("active", [True, False])
def test_a_change_of_another_shape_or_layout_is_added_as_torch_adds_it(active: bool):
    dropout = FastDropout(0.5 if active else 0.0)
    x = torch.randn(3, 48, 48)
    turned = torch.randn(3, 48, 48).transpose(1, 2)
    assert not torch.isnan(add_dropped(x, torch.randn(48), dropout)).any()
    found = add_dropped(x, turned, dropout) - x
    kept = found != 0
    factor = 2.0 if active else 1.0
    torch.testing.assert_close(found[kept], factor * turned[kept], rtol=1e-4, atol=1e-5)
