"""Attention on processors: heads laid out and turned by kernels, products in blocks of queries.

Shapes:  B batch · T query positions · S key positions · H heads · D head dimension
         C = d_model · W all heads side by side · N = B * H
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from folio.fast.calls import array, arrays, run, serves
from folio.fast.functions import drop
from folio.fast.layers import FastDropout, FastRMSNorm, serves_norm
from folio.model import attention as plain
from folio.model.dropout import Dropout
from folio.model.kv_cache import LayerCache
from folio.model.positions import RotaryPositions

QUERIES = 64
"""Queries per block in CausalAttention: smaller blocks skip more of the mask, but make small
matmuls."""


class FastRotaryPositions(RotaryPositions):
    """Rotary positions as they are written, so that kernels may turn heads in their place."""


class FastAttention(plain.Attention):
    """`Attention`, whose heads and whose softmax are made by kernels."""

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Mix information along time: (B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x, cache.length if cache is not None else 0)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, n_kv_heads, S, D)
        k, v = (plain.share_heads(z, self.n_heads) for z in (k, v))  # (B, H, S, D)
        return self.out_proj(merge_heads(causal_attention(q, k, v, self.dropout)))

    def project(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values; normalize and turn the former in one pass."""
        qkv, norms = self.qkv_proj(x), (self.q_norm, self.k_norm)
        if isinstance(self.rotary, FastRotaryPositions) and all(
            isinstance(norm, FastRMSNorm) and serves_norm(norm, qkv) for norm in norms
        ):
            return RotateHeads.apply(
                qkv,
                self.q_norm.weight,
                self.k_norm.weight,
                self.q_norm.eps,
                *self.rotary.tables(start, x.shape[1]),
                (self.n_heads, self.n_kv_heads),
            )
        q, k, v = split_heads(qkv, (self.n_heads, self.n_kv_heads, self.n_kv_heads))
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, start), self.rotary(k, start)
        return q, k, v


def split_heads(x: Tensor, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
    """(B, T, all heads * D) -> (B, H, T, D) for each number of heads H, in their order."""
    return SplitHeads.apply(x, n_heads) if serves(x) else plain.split_heads(x, n_heads)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    return MergeHeads.apply(x) if serves(x) else plain.merge_heads(x)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout | None = None) -> Tensor:
    """Compute attention as `folio.model.attention.causal_attention` does.

    Args:
        q: (B, H, T, D), the last T of the S positions.
        k, v: (B, H, S, D), S >= T.
        dropout: of the weights.

    Returns:
        (B, H, T, D).
    """
    t, seeds, p = q.shape[2], None, 0.0
    if q.device.type != "cpu" or t != k.shape[2] or t == 1:
        return plain.causal_attention(q, k, v, dropout)
    drops = dropout is not None and dropout.active
    if not serves(q) or (drops and not isinstance(dropout, FastDropout)):
        return plain.causal_attention_written_out(q, k, v, dropout)[0]
    if isinstance(dropout, FastDropout) and drops:
        seeds, p = dropout.draw_seeds(len(query_blocks(t))), dropout.p
    rows = (z.reshape(-1, t, z.shape[3]) for z in (q, k, v))  # each (B * H, T, D)
    return CausalAttention.apply(*rows, seeds, p).view(q.shape)


class SplitHeads(torch.autograd.Function):
    """(B, T, W) heads side by side -> (B, H, T, D) for each number of heads H, in their order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
        wide = x.unflatten(2, (sum(n_heads), -1))
        ctx.shape = wide.shape
        return _split_heads(wide, 0, n_heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x_gradient = gradients[0].new_empty(ctx.shape)
        _merge_heads(gradients, 0, x_gradient)
        return x_gradient.flatten(2), None


class MergeHeads(torch.autograd.Function):
    """(B, H, T, D) -> (B, T, H * D), heads side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        b, ctx.n_heads, t, d = x.shape
        y = x.new_empty(b, t, ctx.n_heads, d)
        _merge_heads((x,), 0, y)
        return y.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        wide = gradients[0].unflatten(2, (ctx.n_heads, -1))
        return _split_heads(wide, 0, (ctx.n_heads,))[0]


class RotateHeads(torch.autograd.Function):
    """Queries and keys normalized, turned by their position, and laid out by head, as values are.

    (B, T, W) and two gains (D,) -> (B, H, T, D) queries; keys and values, with their own H.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        q_gain: Tensor,
        k_gain: Tensor,
        epsilon: float,
        cosines: Tensor,
        sines: Tensor,
        n_heads: tuple[int, int],
    ) -> tuple[Tensor, ...]:
        d = len(q_gain)
        x = qkv.unflatten(2, (-1, d))  # (B, T, all heads, D)
        b, t, _, _ = x.shape
        ctx.firsts, out, inverses = [0, n_heads[0], sum(n_heads)], [], []
        for first, h, gain in zip(ctx.firsts, n_heads, (q_gain, k_gain)):
            y, inverse = qkv.new_empty(b, h, t, d), torch.empty(b, t, h)
            run(
                "rotate_heads",
                array(x),
                first,
                array(gain),
                np.float32(epsilon),
                *arrays(cosines, sines, y, inverse),
            )
            out.append(y)
            inverses.append(inverse)
        ctx.save_for_backward(x, q_gain, k_gain, cosines, sines, *inverses)
        return (*out, *_split_heads(x, ctx.firsts[2], n_heads[1:]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, q_gain, k_gain, cosines, sines, *inverses = ctx.saved_tensors
        x_gradient = torch.empty_like(x)
        gain_gradients = []
        for gradient, first, gain, inverse in zip(
            gradients, ctx.firsts, (q_gain, k_gain), inverses
        ):
            gain_gradient = torch.empty_like(gain)
            run(
                "rotate_heads_backward",
                *arrays(gradient.contiguous(), x),
                first,
                *arrays(gain, inverse, cosines, sines, x_gradient, gain_gradient),
            )
            gain_gradients.append(gain_gradient)
        _merge_heads(gradients[2:], ctx.firsts[2], x_gradient)
        return x_gradient.flatten(2), *gain_gradients, None, None, None, None


class CausalAttention(torch.autograd.Function):
    """Attention over the positions up to each: three times (N, T, D), N heads -> (N, T, D).

    A block of queries looks at the keys up to its own last one, so that half of what a mask
    would hide is never computed. Where there are (blocks,) seeds, weights are dropped with
    probability p.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, seeds: Tensor | None, p: float
    ) -> Tensor:
        _, t, d = q.shape
        y = torch.empty_like(q)
        weights = []
        for first, last in query_blocks(t):
            w = torch.bmm(q[:, first:last], _transposed(k[:, :last]))
            run("causal_softmax", array(w), first, np.float32(d**-0.5))
            weights.append(w)
            if seeds is not None:
                w = drop(w, seeds[first // QUERIES, None], p)
            torch.bmm(w, v[:, :last], out=y[:, first:last])
        ctx.seeds, ctx.p = seeds, p
        ctx.save_for_backward(q, k, v, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        _, t, d = q.shape
        q_gradient, k_gradient, v_gradient = (torch.empty_like(x) for x in (q, k, v))
        for w, (first, last) in zip(weights, query_blocks(t)):
            gradient = gradients[0][:, first:last].contiguous()
            kept, w_gradient = w, torch.bmm(gradient, _transposed(v[:, :last]))
            if ctx.seeds is not None:
                seed = ctx.seeds[first // QUERIES, None]
                kept, w_gradient = (drop(x, seed, ctx.p) for x in (w, w_gradient))
            run("causal_softmax_backward", *arrays(w_gradient, w), first, np.float32(d**-0.5))
            torch.bmm(w_gradient, k[:, :last], out=q_gradient[:, first:last])
            keep = float(last < t)  # nothing of what the last block, the first to come, finds
            v_gradient[:, :last].baddbmm_(kept.mT, gradient, beta=keep)
            k_gradient[:, :last].baddbmm_(w_gradient.mT, q[:, first:last], beta=keep)
        return q_gradient, k_gradient, v_gradient, None, None


def _split_heads(x: Tensor, first: int, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
    """(B, T, W, D) -> (B, H, T, D) for each number of heads H, from the first head on."""
    b, t, _, d = x.shape
    ys = tuple(x.new_empty(b, h, t, d) for h in n_heads)
    run("split_heads", array(x.contiguous()), first, tuple(arrays(*ys)))
    return ys


def _merge_heads(xs: tuple[Tensor, ...], first: int, y: Tensor) -> None:
    """(B, H, T, D) of each, in turn, into (B, T, W, D), from the first head on."""
    run("merge_heads", tuple(arrays(*(x.contiguous() for x in xs))), first, array(y))


def query_blocks(t: int) -> list[tuple[int, int]]:
    """First and last + 1 of each block of queries in CausalAttention; the last one comes first."""
    return [(first, min(first + QUERIES, t)) for first in reversed(range(0, t, QUERIES))]


def _transposed(x: Tensor) -> Tensor:
    """(N, S, D) -> (N, D, S); copied first, which products read a third faster."""
    return x.contiguous().mT
