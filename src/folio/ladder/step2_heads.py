"""Step 2: several heads in parallel. Each may look for something else.

Four heads of width 8 have as many parameters as one of width 32, but four patterns of
attention: one may find the last vowel while another finds the start of the word.

Source: Vaswani et al. 2017, section 3.2.2, https://arxiv.org/abs/1706.03762

Shapes:  B batch · T positions · H heads · D head dimension · C = d_model = H * D
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import Head, LanguageModel


class MultiHead(nn.Module):
    """Several heads that read the same x; their outputs are concatenated."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(sizes, sizes.head_dim) for _ in range(sizes.n_heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> H times (B, T, D) -> (B, T, C)."""
        return torch.cat([head(x) for head in self.heads], dim=2)


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    return LanguageModel(sizes, MultiHead(sizes))
