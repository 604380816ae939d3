"""Causal multi-head attention.

Shapes:  B batch · T query positions · S key positions (S = T without a cache)
         H heads · D head dimension · C = d_model · W = H * D, which is C unless head_dim is given
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.model.config import ModelConfig
from folio.model.dropout import Dropout
from folio.model.kv_cache import LayerCache
from folio.model.normalization import make_norm
from folio.model.positions import RotaryPositions


class Attention(nn.Module):
    """Each position takes a mean of the values up to it, weighted by query times key."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.key_value_heads
        self.dropout = Dropout(config.attention_dropout)
        q_width, kv_width = config.attention_width, self.n_kv_heads * config.head_width
        # One matrix for all three, stacked by rows: one large matmul instead of three.
        self.widths = (q_width, kv_width, kv_width)
        self.qkv_proj = nn.Linear(config.d_model, sum(self.widths), bias=config.bias)
        self.out_proj = nn.Linear(q_width, config.d_model, bias=config.bias)
        self.q_norm = make_norm(config, config.head_width) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.head_width) if config.qk_norm else nn.Identity()
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
        q, k, v = self.project(x, cache.length if cache is not None else 0)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, n_kv_heads, S, D)
        k, v = (share_heads(z, self.n_heads) for z in (k, v))  # (B, H, S, D)
        y = causal_attention(q, k, v, self.dropout)  # (B, H, T, D)
        return self.out_proj(merge_heads(y))  # (B, T, W) -> (B, T, C)

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values, with qk_norm and rotation if the config has them.

        Args:
            x: (B, T, C) hidden states of the positions start ... start + T - 1.
            start: how many positions came before.

        Returns:
            (B, H, T, D) queries; keys and values of the same shape, with n_kv_heads for H.
        """
        n_heads = self.n_heads, self.n_kv_heads, self.n_kv_heads
        q, k, v = split_heads(self.qkv_proj(x), n_heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, start), self.rotary(k, start)
        return q, k, v


def split_heads(x: Tensor, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
    """(B, T, all heads * D) -> (B, H, T, D) for each number of heads H, in their order."""
    heads = x.view(*x.shape[:2], sum(n_heads), -1).transpose(1, 2)
    return torch.split(heads, list(n_heads), dim=1)


def share_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, n_kv_heads, S, D) -> (B, H, S, D): a group of query heads shares each key head."""
    return x if x.shape[1] == n_heads else x.repeat_interleave(n_heads // x.shape[1], dim=1)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    return x.transpose(1, 2).flatten(2)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """Compute attention by torch's fastest kernel for the device.

    Args:
        q: (B, H, T, D), the last T of the S positions.
        k, v: (B, H, S, D), S >= T.
        dropout: dropout of the attention weights.

    Returns:
        (B, H, T, D).
    """
    p = dropout.p if dropout is not None and dropout.active else 0.0
    if p and dropout is not None and dropout.generator is not None and q.device.type == "cpu":
        return causal_attention_written_out(q, k, v, dropout)[0]  # with masks of that generator
    t, s = q.shape[2], k.shape[2]
    if t == s or t == 1:  # the two cases that need no mask in memory
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=t > 1)
    mask = causal_mask(t, s, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)


def causal_attention_written_out(
    q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the same as `causal_attention`, written to be read: scores, mask, softmax, values.

    Returns:
        (B, H, T, D) the mixed values, and (B, H, T, S) the weights, each row summing to 1.
    """
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
    mask = causal_mask(q.shape[2], k.shape[2], q.device)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=3)
    kept = dropout(weights) if dropout is not None else weights
    return kept @ v, weights


def causal_mask(t: int, s: int, device: torch.device) -> Tensor:
    """(T, S), True where a query may attend; the queries are the last T of S positions.

    For T = 2, S = 4:    1 1 1 0
                         1 1 1 1
    """
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(diagonal=s - t)
