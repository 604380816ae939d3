"""Dropout that costs little on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from folio.model import fused


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

    @property
    def active(self) -> bool:
        """Whether anything is set to zero now."""
        return self.training and self.share > 0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, the same shape."""
        if not self.active:
            return x
        if fused.serves(x):
            dropped: Tensor = fused.Dropped.apply(x, self.draw_seeds(), self.share)
            return dropped
        if x.device.type != "cpu":
            return functional.dropout(x, self.share)
        kept = torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator)
        return x * kept / (1 - self.share)

    def add(self, x: Tensor, change: Tensor) -> Tensor:
        """x + self(change), in one pass where it can be."""
        if x.dtype != change.dtype or not fused.serves(x):
            return x + self(change)
        total: Tensor
        if self.active:
            total = fused.AddDropped.apply(x, change, self.draw_seeds(), self.share)
        else:
            total = fused.Add.apply(x, change)
        return total

    def draw_seeds(self, n: int = 1) -> Tensor:
        """(n,) of 63 bits each, which name masks."""
        return torch.empty(n, dtype=torch.int64).random_(generator=self.generator)
