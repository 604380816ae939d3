"""Dropout that costs little on a processor: two random bytes a number instead of a slow draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WHOLE_NUMBERS = {4: torch.int32, 2: torch.int16}
"""Of as many bytes as the floating-point numbers that are masked."""


class Dropout(nn.Module):
    """Set a share of the numbers to zero while training, and scale the rest up to make up for it.

    On the CPU it draws from its own generator where it is given one, so that models which
    train side by side do not race for the global one.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, the same shape."""
        if not (self.training and self.share):
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.share)
        dropped: Tensor = _Masked.apply(x, self.draw(x.shape), self.scale)
        return dropped

    @property
    def scale(self) -> float:
        """What makes up for the numbers that are set to zero."""
        return 1 / (1 - self.share)

    def draw(self, shape: torch.Size) -> Tensor:
        """Which numbers stay: int16 of a shape, all bits set where one does, none elsewhere.

        One 64-bit number makes four places. Of 16 bits the lowest 15 are a whole number below
        2^15, compared with the share by the sign of a difference.
        """
        n = shape.numel()
        words = torch.empty(-(-n // 4), dtype=torch.int64)
        words.random_(-(2**63), None, generator=self.generator)
        bits = words.view(torch.int16)[:n].view(shape)
        bits.bitwise_and_(0x7FFF).neg_().add_(round(self.share * 2**15) - 1)
        return bits.bitwise_right_shift_(15)  # -1 below zero, which is all bits


class _Masked(torch.autograd.Function):
    """`mask_numbers` under autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return mask_numbers(x, mask, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return mask_numbers(gradients[0], mask, ctx.scale), None, None


def mask_numbers(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """x * scale where the mask of `Dropout.draw` has all bits set, 0 where it has none."""
    whole = WHOLE_NUMBERS[x.element_size()]
    return (x.view(whole) & mask.to(whole)).view(x.dtype).mul_(scale)
