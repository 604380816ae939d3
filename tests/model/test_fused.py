"""The compiled kernels compute what the modules written in torch do, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from folio.model import fused
from folio.model.attention import Attention, causal_attention, causal_attention_written_out
from folio.model.block import Block
from folio.model.config import ModelConfig
from folio.model.dropout import Dropout
from folio.model.embedding import Embedding
from folio.model.feed_forward import make_feed_forward
from folio.model.linear import Linear
from folio.model.loss import next_token_loss, penalized_loss
from folio.model.normalization import make_norm
from folio.model.positions import LearnedPositions, RotaryPositions
from folio.tokens.stream import IGNORED

pytest.importorskip("numba")

MODERN = ModelConfig(
    vocab_size=11,
    context_length=300,
    d_model=48,
    n_heads=4,
    n_kv_heads=2,
    positions="rope",
    normalization="rmsnorm",
    qk_norm=True,
    activation="swiglu",
    bias=False,
)

TEXTBOOK = ModelConfig(
    vocab_size=11, context_length=300, d_model=48, n_heads=4, activation="gelu", bias=True
)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "FEWEST", 1)


def results(function: Callable[..., Tensor], *leaves: Tensor) -> list[Tensor]:
    """The value, and the gradients of its product with something fixed."""
    leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves)
    y = function(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    (y.float() * weights).sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def of_module(module: nn.Module, x: Tensor) -> list[Tensor]:
    module = copy.deepcopy(module).to(x.dtype)
    found = results(module, x)
    return [*found, *(p.grad for p in module.parameters() if p.grad is not None)]


def randomized(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.5, 0.3, generator=draw)
    return module


class Certain(nn.Module):
    """The loss of a model whose certainty costs, where some targets do not count."""

    def __init__(self, penalty: float) -> None:
        super().__init__()
        self.head, self.penalty = nn.Linear(48, 37, bias=False), penalty

    def forward(self, x: Tensor) -> Tensor:
        targets = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2]) % 37
        targets[:, ::3] = IGNORED
        targets[-1, -1] = 5
        logits = self.head(x) / 4
        if self.penalty:
            return penalized_loss(logits, targets, self.penalty)
        return next_token_loss(logits, targets)


class Looked(nn.Module):
    """Vectors of tokens and of their places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = Embedding(19, 48), LearnedPositions(TEXTBOOK)

    def forward(self, x: Tensor) -> Tensor:
        token_ids = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2]) ** 2 % 19
        return self.places(x + self.tokens(token_ids), 3)


MODULES = {
    "loss": lambda: Certain(0.0),
    "loss with a penalty": lambda: Certain(0.2),
    "embeddings": Looked,
    "norm": lambda: make_norm(MODERN),
    "layernorm": lambda: make_norm(TEXTBOOK),
    "layernorm without bias": lambda: make_norm(replace(TEXTBOOK, bias=False)),
    "feed-forward": lambda: make_feed_forward(MODERN),
    "gelu": lambda: make_feed_forward(TEXTBOOK),
    "linear": lambda: Linear(48, 36),
    "attention": lambda: Attention(MODERN, RotaryPositions(MODERN)),
    "block": lambda: Block(replace(MODERN, norm_placement="both"), RotaryPositions(MODERN)),
    "textbook's block": lambda: Block(TEXTBOOK, None),
    "attention without rotation": lambda: Attention(replace(TEXTBOOK, n_kv_heads=2), None),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("t", [1, 7, fused.QUERIES, fused.QUERIES + 1, 2 * fused.QUERIES + 5])
def test_a_module_gives_the_same_in_float32(name: str, t: int, monkeypatch: pytest.MonkeyPatch):
    module = randomized(MODULES[name]())
    x = torch.randn(2, t, 48, generator=torch.Generator().manual_seed(t))
    ours = of_module(module, x)
    monkeypatch.setattr(fused, "serves", lambda x: False)
    theirs, exact = of_module(module, x), of_module(module, x.double())
    assert len(ours) == len(theirs) >= 3
    for one, other, true in zip(ours, theirs, exact):
        assert one.dtype == torch.float32
        assert error_of(one, true) < 3 * error_of(other, true) + 2e-6


@pytest.mark.parametrize("name", MODULES)
def test_bfloat16_is_as_near_to_float32_as_torchs_own(name: str, monkeypatch: pytest.MonkeyPatch):
    module = randomized(MODULES[name]())
    x = torch.randn(2, 40, 48, generator=torch.Generator().manual_seed(0))
    ours = of_module(module, x.bfloat16())
    monkeypatch.setattr(fused, "serves", lambda x: False)
    theirs, exact = of_module(module, x.bfloat16()), of_module(module, x)
    for one, other, true in zip(ours, theirs, exact):
        assert one.dtype == other.dtype
        assert error_of(one, true) < 1.5 * error_of(other, true) + 1e-3


def error_of(x: Tensor, true: Tensor) -> float:
    """As a share of what is true."""
    return float((x - true).norm() / true.norm())


def test_attention_with_dropout_equals_the_one_written_out():
    q, k, v = torch.randn(3, 2, 3, 150, 8, generator=torch.Generator().manual_seed(0))

    # Each block of queries has a mask of its own; the same in one mask for the other.
    share, seeds = 0.3, torch.tensor([5, 2**62 + 7, 11])
    whole = torch.zeros(6, 150, 150)
    for seed, first in zip(seeds.split(1), range(0, 150, fused.QUERIES)):
        last = min(first + fused.QUERIES, 150)
        whole[:, first:last, :last] = fused.drop(torch.ones(6, last - first, last), seed, share)

    class Chosen(Dropout):
        def draw_seeds(self, n: int = 1) -> Tensor:
            assert n == len(seeds)
            return seeds

        def forward(self, x: Tensor) -> Tensor:
            return x * whole.view(x.shape)

    def with_mask(attention: Callable[..., Tensor]) -> list[Tensor]:
        return results(lambda *x: attention(*x, Chosen(share)), q, k, v)

    ours = with_mask(causal_attention)
    theirs = with_mask(lambda *x: causal_attention_written_out(*x)[0])
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1.0, 80.0, 1e4])
def test_large_and_small_scores_give_torchs_softmax(size: float):
    scores = size * torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    values = torch.eye(9).expand(2, 9, 9).contiguous()
    eye = torch.eye(9).expand(2, 9, 9).contiguous()
    found = fused.CausalAttention.apply(
        scores * 3, eye, values, None, 0.0
    )  # sqrt(9) takes the 3 away
    masked = scores.masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), float("-inf"))
    torch.testing.assert_close(found, masked.softmax(2), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"embeddings"}))  # whose slopes are 1
def test_numbers_that_are_none_do_not_get_lost(name: str, value: float):
    module = randomized(MODULES[name]())
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(1, 4, 48, dtype=dtype)
        x[0, 2, 5] = value
        y, *gradients = of_module(module, x)
        assert not (y[0, 2] if y.dim() else y).isfinite().all()
        assert not all(gradient.isfinite().all() for gradient in gradients)
