"""The compiled kernels under autograd; the modules that call them have the readable twins.

They serve tensors that lie on a processor in float32 or bfloat16 and are large enough to be
worth a call, where numba is there. All else takes torch's operations.

Shapes:  B batch · T positions · H heads · D head dimension · C width · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio import jit

FEWEST = 1 << 13
"""Numbers in a tensor that are worth a call."""

QUERIES = 64
"""Rows of a block in CausalAttention: fewer skip more, but make small products."""

listener: ContextVar[Callable[[Callable[..., None], tuple[Any, ...]], None] | None] = ContextVar(
    "listener", default=None
)
"""Is told each call of a kernel in its thread, of which torch does not know."""


def serves(x: Tensor) -> bool:
    """Whether the kernels take a tensor."""
    return (
        x.numel() >= FEWEST
        and x.device.type == "cpu"
        and x.dtype in (torch.bfloat16, torch.float32)
        and jit.available()
    )


def load() -> None:
    """Load the kernels, where there are any, so that processes forked from this one share them."""
    if jit.available():  # which sets itself up at its first call
        RMSNorm.apply(torch.ones(1, 1), torch.ones(1), 1e-6)


def must_compile() -> bool:
    """Whether the first step would take seconds, since no earlier process has compiled it."""
    return jit.available() and jit.must_compile(_kernels().causal_softmax)


class Linear(torch.autograd.Function):
    """x W^T + bias: (..., C), (F, C), (F,) -> (..., F)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        if x.dtype == torch.bfloat16 and _onednn_has_bfloat16():
            # addmm writes the bias everywhere and reads it back; oneDNN adds it to what it stores.
            y = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        else:
            y = torch.addmm(bias, rows, weight.t())
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(weight))
        x_gradient = (gradient @ weight).view(*gradients[0].shape[:-1], -1)
        return x_gradient, gradient.t() @ rows, sum_rows(gradient)


def sum_rows(x: Tensor) -> Tensor:
    """(R, C) -> (C,)."""
    y = x.new_empty(x.shape[1])
    run("sum_rows", *arrays(x, y))
    return y


class Embedding(torch.autograd.Function):
    """Rows of a table: (...) token ids, (V, C) -> (..., C)."""

    @staticmethod
    def forward(ctx: Any, token_ids: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(token_ids, table)
        y = table.new_empty(*token_ids.shape, table.shape[1])
        run("embedding", *arrays(token_ids.reshape(-1), table, y.flatten(0, -2)))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        token_ids, table = ctx.saved_tensors
        table_gradient = torch.empty_like(table)
        gradient = gradients[0].contiguous().flatten(0, -2)
        run("embedding_backward", *arrays(gradient, token_ids.reshape(-1), table_gradient))
        return None, table_gradient


class AddPlaces(torch.autograd.Function):
    """(B, T, C) and T rows of a table (context, C) from the first place on -> (B, T, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, start: int) -> Tensor:
        ctx.shape, ctx.start = places.shape, start
        y = torch.empty_like(x)
        run("add_places", *arrays(x, places), start, _array(y))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        places_gradient = gradients[0].new_empty(ctx.shape)
        gradient = gradients[0].contiguous()
        run("add_places_backward", _array(gradient), ctx.start, _array(places_gradient))
        return gradient, places_gradient, None


class Dropped(torch.autograd.Function):
    """Dropout of a share of numbers, which a (1,) seed names: any shape, the same shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, share: float) -> Tensor:
        ctx.named = seed, share
        return drop(x.contiguous(), seed, share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return drop(gradients[0].contiguous(), *ctx.named), None, None


class Add(torch.autograd.Function):
    """x + the change, all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor) -> Tensor:
        y = torch.empty_like(x)
        run("add", *_rows(x, change, y))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0]


class AddDropped(torch.autograd.Function):
    """x + the change after dropout, all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor, seed: Tensor, share: float) -> Tensor:
        ctx.named = seed, share
        y = torch.empty_like(x)
        rows = _rows(x, change, y)
        run("add_dropped", *rows[:2], _array(seed), share, rows[2])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return gradients[0], drop(gradients[0].contiguous(), *ctx.named), None, None


def drop(x: Tensor, seed: Tensor, share: float) -> Tensor:
    """Dropout that a (1,) seed repeats, of a contiguous tensor; the way back is the same."""
    y = torch.empty_like(x)
    run("drop", *_rows(x), _array(seed), share, *_rows(y))
    return y


class LayerNorm(torch.autograd.Function):
    """(x - mean) / deviation * gain + bias: (..., C), (C,), (C,) or None -> (..., C).

    And x itself, to be used beside it: the way back adds up the gradients of both in one pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1])
        y, mean, inverse = torch.empty_like(rows), torch.empty(len(rows)), torch.empty(len(rows))
        run(
            "layer_norm",
            *arrays(rows, gain, torch.zeros_like(gain) if bias is None else bias),
            np.float32(epsilon),
            *arrays(y, mean, inverse),
        )
        ctx.save_for_backward(rows, gain, mean, inverse)
        ctx.has_bias = bias is not None
        return y.view(x.shape), x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        rows, gain, mean, inverse = ctx.saved_tensors
        given = arrays(*(gradient.reshape(rows.shape).contiguous() for gradient in gradients))
        x_gradient, gain_gradient, bias_gradient = map(torch.empty_like, (rows, gain, gain))
        found = arrays(x_gradient, gain_gradient, bias_gradient)
        run("layer_norm_backward", *given, *arrays(rows, gain, mean, inverse), *found)
        return (
            x_gradient.view(gradients[0].shape),
            gain_gradient,
            bias_gradient if ctx.has_bias else None,
            None,
        )


class RMSNorm(torch.autograd.Function):
    """gain * x over the root of its mean square: (..., C), (C,) -> (..., C). And x, as there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1])
        y, inverse = torch.empty_like(rows), torch.empty(len(rows))
        run("rms_norm", *arrays(rows, gain), np.float32(epsilon), *arrays(y, inverse))
        ctx.save_for_backward(rows, gain, inverse)
        return y.view(x.shape), x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, gain, inverse = ctx.saved_tensors
        given = arrays(*(gradient.reshape(rows.shape).contiguous() for gradient in gradients))
        x_gradient, gain_gradient = torch.empty_like(rows), torch.empty_like(gain)
        found = arrays(x_gradient, gain_gradient)
        run("rms_norm_backward", *given, *arrays(rows, gain, inverse), *found)
        return x_gradient.view(gradients[0].shape), gain_gradient, None


class SplitHeads(torch.autograd.Function):
    """(B, T, W) heads side by side -> (B, H, T, D) for each number of heads H, in their order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
        wide = x.unflatten(2, (sum(n_heads), -1))
        ctx.shape = wide.shape
        return split_heads(wide, 0, n_heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x_gradient = gradients[0].new_empty(ctx.shape)
        merge_heads(gradients, 0, x_gradient)
        return x_gradient.flatten(2), None


class MergedHeads(torch.autograd.Function):
    """(B, H, T, D) -> (B, T, H * D), heads side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        b, ctx.n_heads, t, d = x.shape
        y = x.new_empty(b, t, ctx.n_heads, d)
        merge_heads((x,), 0, y)
        return y.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        wide = gradients[0].unflatten(2, (ctx.n_heads, -1))
        return split_heads(wide, 0, (ctx.n_heads,))[0]


def split_heads(x: Tensor, first: int, n_heads: tuple[int, ...]) -> tuple[Tensor, ...]:
    """(B, T, W, D) -> (B, H, T, D) for each number of heads H, from the first head on."""
    b, t, _, d = x.shape
    ys = tuple(x.new_empty(b, h, t, d) for h in n_heads)
    run("split_heads", _array(x.contiguous()), first, tuple(arrays(*ys)))
    return ys


def merge_heads(xs: tuple[Tensor, ...], first: int, y: Tensor) -> None:
    """(B, H, T, D) of each, in turn, into (B, T, W, D), from the first head on."""
    run("merge_heads", tuple(arrays(*(x.contiguous() for x in xs))), first, _array(y))


class RotatedHeads(torch.autograd.Function):
    """Queries and keys normalized, turned by their place, and beside the values laid out by head.

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
                "heads",
                _array(x),
                first,
                _array(gain),
                np.float32(epsilon),
                *arrays(cosines, sines, y, inverse),
            )
            out.append(y)
            inverses.append(inverse)
        ctx.save_for_backward(x, q_gain, k_gain, cosines, sines, *inverses)
        return (*out, *split_heads(x, ctx.firsts[2], n_heads[1:]))

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
                "heads_backward",
                *arrays(gradient.contiguous(), x),
                first,
                *arrays(gain, inverse, cosines, sines, x_gradient, gain_gradient),
            )
            gain_gradients.append(gain_gradient)
        merge_heads(gradients[2:], ctx.firsts[2], x_gradient)
        return x_gradient.flatten(2), *gain_gradients, None, None, None, None


class GELU(torch.autograd.Function):
    """x times the share of a normal distribution below it: any shape, the same shape.

    The way forward has what the slope takes, and keeps that in place of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x)
        run("gelu", *_rows(x, y, slope))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return multiply(gradients[0].contiguous(), *ctx.saved_tensors)


class SwiGLU(torch.autograd.Function):
    """gate * sigmoid(gate) * up, all of one shape; keeps slopes, as GELU does."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        y, gate_slope, up_slope = (torch.empty_like(gate) for _ in range(3))
        run("swiglu", *_rows(gate, up, y, gate_slope, up_slope))
        ctx.save_for_backward(gate_slope, up_slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gradient = gradients[0].contiguous()
        gate_slope, up_slope = ctx.saved_tensors
        return multiply(gradient, gate_slope), multiply(gradient, up_slope)


def multiply(x: Tensor, slope: Tensor) -> Tensor:
    """Their product; all contiguous and of one shape."""
    y = torch.empty_like(x)
    run("multiply", *_rows(x, slope, y))
    return y


class CausalAttention(torch.autograd.Function):
    """Attention over the positions up to each: three times (N, T, D), N heads -> (N, T, D).

    A block of queries looks at the keys up to its own last one, so that half of what a mask
    would hide is never computed. Where there are (blocks,) seeds, a share of the weights is
    dropped.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, seeds: Tensor | None, share: float
    ) -> Tensor:
        _, t, d = q.shape
        y = torch.empty_like(q)
        weights = []
        for first, last in query_blocks(t):
            w = torch.bmm(q[:, first:last], _turned(k[:, :last]))
            run("causal_softmax", _array(w), first, np.float32(d**-0.5))
            weights.append(w)
            if seeds is not None:
                w = drop(w, seeds[first // QUERIES, None], share)
            torch.bmm(w, v[:, :last], out=y[:, first:last])
        ctx.seeds, ctx.share = seeds, share
        ctx.save_for_backward(q, k, v, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        _, t, d = q.shape
        q_gradient, k_gradient, v_gradient = (torch.empty_like(x) for x in (q, k, v))
        for w, (first, last) in zip(weights, query_blocks(t)):
            gradient = gradients[0][:, first:last].contiguous()
            kept, w_gradient = w, torch.bmm(gradient, _turned(v[:, :last]))
            if ctx.seeds is not None:
                seed = ctx.seeds[first // QUERIES, None]
                kept, w_gradient = (drop(x, seed, ctx.share) for x in (w, w_gradient))
            run("causal_softmax_backward", *arrays(w_gradient, w), first, np.float32(d**-0.5))
            torch.bmm(w_gradient, k[:, :last], out=q_gradient[:, first:last])
            keep = float(last < t)  # nothing of what the last block, the first to come, finds
            v_gradient[:, :last].baddbmm_(kept.mT, gradient, beta=keep)
            k_gradient[:, :last].baddbmm_(w_gradient.mT, q[:, first:last], beta=keep)
        return q_gradient, k_gradient, v_gradient, None, None


class CrossEntropy(torch.autograd.Function):
    """The surprise at (..., targets) by (..., V) logits, added up: a scalar in float32.

    Its gradient is that of the surprise less `penalty` times the entropy of each prediction.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, penalty: float) -> Tensor:
        rows, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        logs, total = torch.empty(len(rows)), torch.empty(1)
        run("cross_entropy", *arrays(rows, targets, logs, total))
        ctx.save_for_backward(rows, targets, logs)
        ctx.penalty, ctx.shape = penalty, logits.shape
        return total.view(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, targets, logs = ctx.saved_tensors
        given = arrays(gradients[0].view(1), rows, targets, logs)
        logits_gradient = torch.empty_like(rows)
        penalty = np.float32(ctx.penalty)
        run("cross_entropy_backward", *given, penalty, _array(logits_gradient))
        return logits_gradient.view(ctx.shape), None, None


def query_blocks(t: int) -> list[tuple[int, int]]:
    """First and last + 1 of each block of queries in CausalAttention; the last one comes first."""
    return [(first, min(first + QUERIES, t)) for first in reversed(range(0, t, QUERIES))]


def _turned(x: Tensor) -> Tensor:
    """(N, S, D) -> (N, D, S); a part is copied first, which products read a third faster."""
    return x.contiguous().mT


def _array(x: Tensor) -> NDArray[Any]:
    """The memory of a contiguous tensor as the kernels read it: bfloat16 by its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).detach().numpy()


def arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """Each as the kernels read it."""
    return [_array(x) for x in tensors]


def _rows(*tensors: Tensor) -> list[NDArray[Any]]:
    """Each as one long row."""
    return [_array(x.view(-1)) for x in tensors]


@cache
def _onednn_has_bfloat16() -> bool:
    """Whether its layers take it; all else of torch does, if slowly, on every processor."""
    there = torch.backends.mkldnn.is_available()
    return bool(there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def run(kernel: str, *arguments: Any) -> None:
    """Call a kernel of a model."""
    call(getattr(_kernels(), kernel), *arguments)


def call(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel, and tell the listener."""
    kernel(*arguments)
    if (tell := listener.get()) is not None:
        tell(kernel, arguments)


@cache
def _kernels() -> ModuleType:
    from folio.model import kernels

    return kernels
