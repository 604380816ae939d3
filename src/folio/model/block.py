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
from folio.model.normalization import make_norm
from folio.model.positions import RotaryPositions

NORMS_AT = {
    #        entry of the layer, its exit, after the sum
    "pre": (True, False, False),  # GPT-2; trains without warmup, https://arxiv.org/abs/2002.04745
    "post": (False, False, True),  # Vaswani et al. 2017
    "both": (True, True, False),  # Gemma 2's sandwich, https://arxiv.org/abs/2408.00118
    "none": (False, False, False),
}


class Block(nn.Module):
    """Two residual sublayers: x + attention(norm(x)), then x + feed_forward(norm(x)).

    `config.norm_placement` says which norms exist; the others are identities.
    """

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()

        def norm_if(there: bool) -> nn.Module:
            return make_norm(config) if there else nn.Identity()

        at_entry, at_exit, after_sum = NORMS_AT[config.norm_placement]
        self.attention_norm = norm_if(at_entry)
        self.attention = Attention(config, rotary)
        self.attention_exit_norm = norm_if(at_exit)
        self.attention_sum_norm = norm_if(after_sum)
        self.feed_forward_norm = norm_if(at_entry)
        self.feed_forward = make_feed_forward(config)
        self.feed_forward_exit_norm = norm_if(at_exit)
        self.feed_forward_sum_norm = norm_if(after_sum)
        self.dropout = Dropout(config.residual_dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Add both sublayers to the residual stream: (B, T, C) -> (B, T, C).

        Args:
            x: (B, T, C) the residual stream.
            cache: keys and values of earlier positions; extended in place by T.
        """
        y = self.attention_exit_norm(self.attention(self.attention_norm(x), cache))
        x = self.attention_sum_norm(x + self.dropout(y))
        y = self.feed_forward_exit_norm(self.feed_forward(self.feed_forward_norm(x)))
        return self.feed_forward_sum_norm(x + self.dropout(y))
