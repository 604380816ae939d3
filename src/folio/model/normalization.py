"""Keep the residual stream at a steady scale.

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.model.config import ModelConfig


def make_norm(config: ModelConfig, width: int | None = None) -> nn.Module:
    """A norm over the last dimension: (..., width) -> (..., width); width is C by default.

    Sources: LayerNorm, https://arxiv.org/abs/1607.06450; RMSNorm, https://arxiv.org/abs/1910.07467.
    """
    width = width or config.d_model
    match config.normalization:
        case "layernorm":
            return nn.LayerNorm(width, eps=config.normalization_epsilon, bias=config.bias)
        case "rmsnorm":
            return RMSNorm(width, eps=config.normalization_epsilon)


class RMSNorm(nn.RMSNorm):
    """torch's; on the CPU by the steps below, which cost a third of it backward."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        if x.device.type != "cpu":
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
        assert self.eps is not None
        y: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return y


class _RMSNorm(torch.autograd.Function):
    """y = gain * x / r with r the root of the mean square of x.

    With u = x / r and h the gradient of u, that of x is (h - u * mean(h * u)) / r.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_().to(x.dtype)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, gain)
        return unit * gain

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, gain = ctx.saved_tensors
        (gradient,) = gradients
        gain_gradient = (gradient * unit).flatten(0, -2).sum(0)
        inner = gradient * gain
        along = (inner * unit).mean(-1, keepdim=True)
        return inner.addcmul_(unit, along, value=-1).mul_(inverse), gain_gradient, None
