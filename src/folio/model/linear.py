"""A matrix and a bias, as the layers of a block use them.

Shapes:  C width of what comes in · F of what goes out
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.model import fused
from folio.model.int8 import Int8Linear, Int8Weight


class Linear(nn.Linear):
    """torch's, or one that makes fewer passes for the bias, or one that learns in bytes."""

    int8_weight: Int8Weight | None = None
    """To learn with; whoever changes the weights refreshes it."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> (..., F)."""
        if input.dtype != self.weight.dtype or not fused.serves(input):
            return super().forward(input)
        if self.int8_weight is not None and self.training:
            y: Tensor = Int8Linear.apply(input, self.weight, self.bias, self.int8_weight)
        elif self.bias is not None:
            y = fused.Linear.apply(input, self.weight, self.bias)
        else:
            y = super().forward(input)
        return y
