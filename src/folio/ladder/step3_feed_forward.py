"""Step 3: a feed-forward layer. After attention, each position is processed by itself.

Attention only averages values. A linear layer with a nonlinearity lets a position do something with
what it gathered.

Source: Vaswani et al. 2017, section 3.3, https://arxiv.org/abs/1706.03762; there, as from step 5
on, it is two layers.

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import LanguageModel
from folio.ladder.step2_heads import MultiHead


class Linear(nn.Module):
    """A linear layer of the model's own width with a ReLU, the same at each position."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Linear(sizes.d_model, sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.proj(x).relu()


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    return LanguageModel(sizes, nn.Sequential(MultiHead(sizes), Linear(sizes)))
