"""Causal multi-head attention.

Shapes:  B batch · T query positions · S key positions (S = T without a cache)
         H heads · D head dimension · C = d_model = H * D
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.model.config import ModelConfig
from folio.model.kv_cache import LayerCache
from folio.model.normalization import make_norm
from folio.model.positions import RotaryPositions


class Attention(nn.Module):
    """Each position takes a mean of the values at and before it, weighted by query times key."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.key_value_heads
        self.dropout = config.attention_dropout
        kv_width = self.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=config.bias)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=config.bias)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.q_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.rotary = rotary

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mix information along time; position t sees positions <= t only.

        Args:
            x: (B, T, C) hidden states.
            cache: keys and values of earlier positions; extended in place by T.

        Returns:
            (B, T, C).

        Raises:
            ValueError: if the cache has no room for T more positions.

        Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.
        """
        q = self.q_norm(split_heads(self.q_proj(x), self.n_heads))  # (B, H, T, D)
        k = self.k_norm(split_heads(self.k_proj(x), self.n_kv_heads))
        v = split_heads(self.v_proj(x), self.n_kv_heads)
        if self.rotary is not None:
            start = cache.length if cache is not None else 0
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, H, S, D)
        if self.n_kv_heads != self.n_heads:
            group = self.n_heads // self.n_kv_heads
            k, v = (z.repeat_interleave(group, dim=1) for z in (k, v))
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        return self.out_proj(merge_heads(y))  # (B, H, T, D) -> (B, T, C)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, H * D) -> (B, H, T, D)."""
    return x.unflatten(2, (n_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    return x.transpose(1, 2).flatten(2)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Fused attention; the queries are the last T of the S positions.

    Args:
        q: (B, H, T, D).
        k, v: (B, H, S, D), S >= T.
        dropout: share of the weights set to zero.

    Returns:
        (B, H, T, D).
    """
    t, s = q.shape[2], k.shape[2]
    if t == s or t == 1:  # the two cases that need no mask in memory
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=t > 1)
    mask = causal_mask(t, s, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def causal_attention_written_out(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same as `causal_attention`, to read: scores, mask, softmax, values.

    Returns:
        (B, H, T, D) the mixed values, and (B, H, T, S) the weights, each row summing to 1.
    """
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
    mask = causal_mask(q.shape[2], k.shape[2], q.device)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=3)
    return F.dropout(weights, dropout) @ v, weights


def causal_mask(t: int, s: int, device: torch.device) -> Tensor:
    """(T, S), True where the query may look; the queries are the last T of S positions.

    For T = 2, S = 4:    1 1 1 0
                         1 1 1 1
    """
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(diagonal=s - t)
