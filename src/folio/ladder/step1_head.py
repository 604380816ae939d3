"""Step 1: one self-attention head. A position looks back at all those before it.

Each position has a query, a key and a value. The better a query fits a key, the more of that value
comes over. Positions get an embedding as tokens do, since attention by itself sees no order.

Source: Vaswani et al. 2017, sections 3.2.1 and 3.5, https://arxiv.org/abs/1706.03762

Shapes:  B batch · T query positions · S key positions (S = T) · C = d_model · D head dimension
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.ladder.sizes import Sizes


class Head(nn.Module):
    """One attention head, written out; folio.model.attention computes the same in one fused
    call.
    """

    lower_triangle: Tensor

    def __init__(self, sizes: Sizes, head_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(sizes.d_model, head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.d_model, head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.d_model, head_dim, bias=False)
        # 1 0 0    row t is a query: position t may look at the columns with a 1,
        # 1 1 0    which are itself and those before it
        # 1 1 1
        ones = torch.ones(sizes.context_length, sizes.context_length)
        self.register_buffer("lower_triangle", ones.tril())

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        t = x.shape[1]
        queries, keys, values = self.q_proj(x), self.k_proj(x), self.v_proj(x)  # each (B, T, D)
        scores = queries @ keys.transpose(1, 2)  # (B, T, D) @ (B, D, S) -> (B, T, S)
        scores = scores / queries.shape[2] ** 0.5  # or the softmax would see only the largest
        scores = scores.masked_fill(self.lower_triangle[:t, :t] == 0, float("-inf"))
        weights = scores.softmax(dim=2)  # (B, T, S), each row sums to 1
        return weights @ values  # (B, T, S) @ (B, S, D) -> (B, T, D)


class LanguageModel(nn.Module):
    """Embeds tokens, applies a body, and computes logits. All further steps share it, and differ in
    the body.
    """

    def __init__(self, sizes: Sizes, body: nn.Module) -> None:
        """Take a body that maps (B, T, C) to (B, T, C)."""
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.d_model)
        self.position_embedding = nn.Embedding(sizes.context_length, sizes.d_model)
        self.body = body
        self.lm_head = nn.Linear(sizes.d_model, sizes.vocab_size)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, V) logits."""
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        x = self.token_embedding(token_ids) + self.position_embedding(places)  # (B, T, C)
        return self.lm_head(self.body(x))


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step: one head as wide as the model."""
    return LanguageModel(sizes, Head(sizes, head_dim=sizes.d_model))
