"""One block: attention, then feed-forward, each added to the residual stream.

Shapes:  B batch · T positions · C = d_model
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.model.attention import Attention
from folio.model.config import ModelConfig
from folio.model.dropout import Dropout
from folio.model.feed_forward import make_feed_forward
from folio.model.kv_cache import LayerCache
from folio.model.normalization import fork, make_norm
from folio.model.positions import RotaryPositions

NORMS_AT = {
    #        entry of the sublayer, its exit, after the sum
    "pre": (True, False, False),  # GPT-2; trains without warmup, https://arxiv.org/abs/2002.04745
    "post": (False, False, True),  # Vaswani et al. 2017
    "both": (True, True, False),  # Gemma 2's sandwich, https://arxiv.org/abs/2408.00118
    "none": (False, False, False),
}


class Residual(nn.Module):
    """x + sublayer(x), with norms where the config places them, and dropout."""

    def __init__(self, config: ModelConfig, sublayer: nn.Module) -> None:
        super().__init__()
        entry, leave, total = NORMS_AT[config.norm_placement]
        self.entry_norm = make_norm(config) if entry else nn.Identity()
        self.sublayer = sublayer
        self.exit_norm = make_norm(config) if leave else nn.Identity()
        self.dropout = Dropout(config.residual_dropout)
        self.sum_norm = make_norm(config) if total else nn.Identity()

    def forward(self, x: Tensor, *arguments: object) -> Tensor:
        """(B, T, C) -> (B, T, C); further arguments go to the sublayer."""
        normed, x = fork(self.entry_norm, x)
        change = self.exit_norm(self.sublayer(normed, *arguments))
        return self.sum_norm(self.dropout.add(x, change))


class Block(nn.Module):
    """Look around, then think."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.attention = Residual(config, Attention(config, rotary))
        self.feed_forward = Residual(config, make_feed_forward(config))

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C); the cache is extended in place by T."""
        x = self.attention(x, cache)
        return self.feed_forward(x)
