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
        return self.fork(input)[0]

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `fork`."""
        if fused.serves(x):
            both: tuple[Tensor, Tensor] = fused.LayerNorm.apply(x, self.weight, self.bias, self.eps)
            return both
        return super().forward(x), x


class RMSNorm(nn.RMSNorm):
    """torch's, or the compiled one."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.fork(x)[0]

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `fork`."""
        if fused.serves(x):
            both: tuple[Tensor, Tensor] = fused.RMSNorm.apply(x, self.weight, self.eps)
            return both
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps), x


def fork(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """norm(x), and x for what goes past the norm: the gradients of both are added in one pass."""
    return norm.fork(x) if isinstance(norm, (LayerNorm, RMSNorm)) else (norm(x), x)
