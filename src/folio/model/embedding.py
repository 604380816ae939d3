"""A vector for each token.

Shapes:  C width · V vocabulary
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.model import fused


class Embedding(nn.Embedding):
    """torch's, whose gradients are added up in float32 on a processor."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) whole numbers below V -> (..., C)."""
        if not fused.serves(self.weight):
            return super().forward(input)
        y: Tensor = fused.Embedding.apply(input, self.weight)
        return y
