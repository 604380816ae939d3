"""Train with attention of your own: here its scores are capped softly, as in Gemma 2.

A layer of your own is a subclass of a layer of the model. Folio trains and samples what it says:
only layers that nobody changed are replaced by faster ones. To keep such a change, edit `forward`
in src/folio/model/attention.py instead; nothing else has to be touched.

Source: Gemma Team 2024, https://arxiv.org/abs/2408.00118, section 2.

Shapes:  B batch · T query positions · S key positions · H heads · D head dimension · C = H * D

python examples/04_own_attention.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import folio
from folio.model import block
from folio.model.attention import Attention, causal_mask, merge_heads, share_heads
from folio.model.kv_cache import LayerCache

CAP = 20.0


class SoftCappedAttention(Attention):
    """Attention with scores between -CAP and CAP."""

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C); position t sees positions <= t only."""
        q, k, v = self.project(x, cache.length if cache is not None else 0)
        if cache is not None:
            k, v = cache.extend(k, v)
        k, v = (share_heads(z, self.n_heads) for z in (k, v))  # (B, H, S, D)

        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
        scores = CAP * torch.tanh(scores / CAP)

        mask = causal_mask(q.shape[2], k.shape[2], q.device)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=3)
        return self.out_proj(merge_heads(self.dropout(weights) @ v))


def main(text: str = "python-docs", minutes: float | None = 1, **settings: Any) -> str:
    block.Attention = SoftCappedAttention  # of every block that is built from here on
    result = folio.train(text, minutes=minutes, **settings)
    written = folio.load(result.run.path).generate("The ", max_tokens=200, seed=1)
    print(written)
    return written


if __name__ == "__main__":
    main()
