"""The layer that works on each position by itself.

Shapes:  B batch · T positions · C = d_model · F = d_ff
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from folio.model import fused
from folio.model.config import ModelConfig
from folio.model.linear import Linear


def gelu(x: Tensor) -> Tensor:
    """torch's, or the compiled one; https://arxiv.org/abs/1606.08415."""
    if fused.serves(x):
        y: Tensor = fused.GELU.apply(x)
        return y
    return functional.gelu(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": gelu,
    "relu2": lambda x: torch.square(functional.relu(x)),  # https://arxiv.org/abs/2109.08668
}


class FeedForward(nn.Module):
    """Widen, bend, narrow."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.down_proj = Linear(config.feed_forward_width, config.d_model, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        return self.down_proj(self.activation(self.up_proj(x)))


class GatedFeedForward(nn.Module):
    """SwiGLU: one half of the wide layer opens and closes the other.

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.up_proj = Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.down_proj = Linear(config.feed_forward_width, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        if fused.serves(gate):
            return self.down_proj(fused.SwiGLU.apply(gate, up))
        return self.down_proj(functional.silu(gate) * up)


def make_feed_forward(config: ModelConfig) -> nn.Module:
    """The feed-forward layer that the config names."""
    return GatedFeedForward(config) if config.activation == "swiglu" else FeedForward(config)
