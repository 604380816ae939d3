"""Keep the residual stream at a steady scale.

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from folio.model import fused
from folio.model.config import ModelConfig


def make_norm(config: ModelConfig, width: int | None = None) -> nn.Module:
    """A norm over the last dimension: (..., width) -> (..., width); width is C by default.

    Sources: LayerNorm, https://arxiv.org/abs/1607.06450; RMSNorm, https://arxiv.org/abs/1910.07467.
    """
    width = width or config.d_model
    match config.normalization:
        case "layernorm":
            return LayerNorm(width, eps=config.normalization_epsilon, bias=config.bias)
        case "rmsnorm":
            return RMSNorm(width, eps=config.normalization_epsilon)


class LayerNorm(nn.LayerNorm):
    """torch's, or the compiled one."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        if fused.serves(input):
            y: Tensor = fused.LayerNorm.apply(input, self.weight, self.bias, self.eps)
            return y
        return super().forward(input)


class RMSNorm(nn.RMSNorm):
    """torch's, or the compiled one."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        if fused.serves(x):
            y: Tensor = fused.RMSNorm.apply(x, self.weight, self.eps)
            return y
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
