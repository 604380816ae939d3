"""LayerNorm and RMSNorm, both torch's own, which keep the residual stream at a steady scale.

LayerNorm  y = (x - mean(x)) / sqrt(variance(x) + epsilon) * gain + bias
RMSNorm    y = x / sqrt(mean(x^2) + epsilon) * gain

Sources: LayerNorm, https://arxiv.org/abs/1607.06450; RMSNorm, https://arxiv.org/abs/1910.07467.
"""

from __future__ import annotations

from torch import nn

from folio.model.config import ModelConfig


def make_norm(config: ModelConfig, width: int | None = None) -> nn.Module:
    """Build a norm over the last dimension, (..., width) -> (..., width); width is C by default."""
    width, epsilon = width or config.d_model, config.normalization_epsilon
    match config.normalization:
        case "layernorm":
            return nn.LayerNorm(width, eps=epsilon, bias=config.bias)
        case "rmsnorm":
            return nn.RMSNorm(width, eps=epsilon)
