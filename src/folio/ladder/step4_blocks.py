"""Step 4: the same block three times. Deeper, and no better for it.

Each block reads the output of the one before. But gradients must flow back through all of them, and
whatever a block does not pass on is lost to the next. Step 5 repairs that.

Source: He et al. 2015, figure 1, where a deeper plain network trains worse,
https://arxiv.org/abs/1512.03385

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import LanguageModel
from folio.ladder.step2_heads import MultiHead
from folio.ladder.step3_feed_forward import Linear


class Block(nn.Module):
    """Attention, then a feed-forward layer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = MultiHead(sizes)
        self.feed_forward = Linear(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.attention(x)
        return self.feed_forward(x)


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    return LanguageModel(sizes, nn.Sequential(*(Block(sizes) for _ in range(sizes.n_layers))))
