"""The feed-forward layer, which is applied to each position separately.

Shapes:  B batch · T positions · C = d_model · F = d_ff
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,  # https://arxiv.org/abs/1606.08415
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # the same, section 2; GPT-2's
    "relu2": lambda x: torch.square(F.relu(x)),  # https://arxiv.org/abs/2109.08668
}


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.down_proj = nn.Linear(config.feed_forward_width, config.d_model, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        return self.down_proj(self.activation(self.up_proj(x)))


class GatedFeedForward(nn.Module):
    """SwiGLU: one half of the wide layer gates the other.

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.up_proj = nn.Linear(config.d_model, config.feed_forward_width, bias=config.bias)
        self.down_proj = nn.Linear(config.feed_forward_width, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def make_feed_forward(config: ModelConfig) -> nn.Module:
    """Build the feed-forward layer that the config names."""
    return GatedFeedForward(config) if config.activation == "swiglu" else FeedForward(config)
