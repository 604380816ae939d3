"""Step 6: LayerNorm before each sublayer. A sublayer sees the same scale, whatever that of the
stream.

The stream grows as blocks add to it. Each position is shifted and scaled to mean 0 and variance 1
before a sublayer reads it, and once more before the head; the stream itself is left alone. This is
the block of GPT-2, which has GELU for ReLU and biases in queries, keys and values. The usual model
of folio.model has these, too, and a head without a bias that shares the matrix of the embedding.

Sources: Ba et al. 2016, https://arxiv.org/abs/1607.06450; before the sublayer instead of after the
sum: Xiong et al. 2020, https://arxiv.org/abs/2002.04745

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import LanguageModel
from folio.ladder.step5_residuals import Attention, FeedForward


class Block(nn.Module):
    """Attention, then a feed-forward layer, each reading a normalized x and adding to x itself."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(sizes.d_model)
        self.attention = Attention(sizes)
        self.feed_forward_norm = nn.LayerNorm(sizes.d_model)
        self.feed_forward = FeedForward(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    blocks = (Block(sizes) for _ in range(sizes.n_layers))
    return LanguageModel(sizes, nn.Sequential(*blocks, nn.LayerNorm(sizes.d_model)))
