"""Step 5: residual connections. A block adds to what is there, instead of replacing it.

From the embedding to the head there is now a straight path, the residual stream, along which tokens
and gradients pass unchanged; blocks add to it. Each sublayer ends in a linear layer that decides in
which direction to add, and the feed-forward layer gets four times the width.

Sources: He et al. 2015, https://arxiv.org/abs/1512.03385; Vaswani et al. 2017, sections 3.1 and
3.3, https://arxiv.org/abs/1706.03762

Shapes:  B batch · T positions · C = d_model · F = 4 * C
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import LanguageModel
from folio.ladder.step2_heads import MultiHead


class Attention(nn.Module):
    """Several heads, and a projection of their outputs into the residual stream."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = MultiHead(sizes)
        self.out_proj = nn.Linear(sizes.d_model, sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.out_proj(self.heads(x))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, the inner one four times as wide."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.up_proj = nn.Linear(sizes.d_model, 4 * sizes.d_model)
        self.down_proj = nn.Linear(4 * sizes.d_model, sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        return self.down_proj(self.up_proj(x).relu())


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to x."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = Attention(sizes)
        self.feed_forward = FeedForward(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    return LanguageModel(sizes, nn.Sequential(*(Block(sizes) for _ in range(sizes.n_layers))))
