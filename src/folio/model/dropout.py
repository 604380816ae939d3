"""Dropout whose masks can come from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Set each number to zero with probability p while training, and divide the rest by 1 - p.

    `nn.Dropout` draws from torch's global generator, on which models in several threads would race.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None
        """A generator on the CPU. None draws from the global generator, as other devices
        always do."""

    @property
    def active(self) -> bool:
        """Whether dropout is applied now."""
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape; the shape is kept."""
        if not self.active:
            return x
        if self.generator is None or x.device != self.generator.device:
            return F.dropout(x, self.p)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept / (1 - self.p)
