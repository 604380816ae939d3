"""The kernels of the layers under autograd, but for attention's; `layers.py` calls them.

Each function computes what the plain layer does, in one pass over memory where torch makes up to
ten, and keeps what its backward pass needs.

Shapes:  B batch · T positions · C width · R rows · V vocabulary
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folio.fast.calls import array, arrays, flat_arrays, run


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
    """Sum over rows: (R, C) -> (C,)."""
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


class AddPositions(torch.autograd.Function):
    """(B, T, C) and T rows of a table (context, C) from position `start` on -> (B, T, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor, start: int) -> Tensor:
        ctx.shape, ctx.start = positions.shape, start
        y = torch.empty_like(x)
        run("add_positions", *arrays(x, positions), start, array(y))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        table_gradient = gradients[0].new_empty(ctx.shape)
        gradient = gradients[0].contiguous()
        run("add_positions_backward", array(gradient), ctx.start, array(table_gradient))
        return gradient, table_gradient, None


class Drop(torch.autograd.Function):
    """Dropout with probability p, whose mask a (1,) seed names: any shape, the same shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, p: float) -> Tensor:
        ctx.mask = seed, p
        return drop(x.contiguous(), seed, p)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return drop(gradients[0].contiguous(), *ctx.mask), None, None


class Add(torch.autograd.Function):
    """x + the change, all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor) -> Tensor:
        y = torch.empty_like(x)
        run("add", *flat_arrays(x, change, y))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0]


class AddDropped(torch.autograd.Function):
    """x + the change after dropout, all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor, seed: Tensor, p: float) -> Tensor:
        ctx.mask = seed, p
        y = torch.empty_like(x)
        rows = flat_arrays(x, change, y)
        run("add_dropped", *rows[:2], array(seed), p, rows[2])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return gradients[0], drop(gradients[0].contiguous(), *ctx.mask), None, None


def drop(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """Drop numbers of a contiguous tensor by a (1,) seed; the backward pass does the same."""
    y = torch.empty_like(x)
    run("drop", *flat_arrays(x), array(seed), p, *flat_arrays(y))
    return y


class LayerNorm(torch.autograd.Function):
    """(x - mean) / deviation * gain + bias: (..., C), (C,), (C,) or None -> (..., C).

    And x itself, to be used beside it: the backward pass adds up the gradients of both in one pass.
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


class GELU(torch.autograd.Function):
    """x times the probability of a normal number below it: any shape, the same shape.

    The forward pass has all that the slope is made of, and keeps the slope in place of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x)
        run("gelu", *flat_arrays(x, y, slope))
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
        run("swiglu", *flat_arrays(gate, up, y, gate_slope, up_slope))
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
    run("multiply", *flat_arrays(x, slope, y))
    return y


class CrossEntropy(torch.autograd.Function):
    """The cross-entropy at (..., targets) by (..., V) logits, added up: a scalar in float32.

    Its gradient is that of the cross-entropy less `penalty` times the entropy of each prediction.
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
        run("cross_entropy_backward", *given, penalty, array(logits_gradient))
        return logits_gradient.view(ctx.shape), None, None


@cache
def _onednn_has_bfloat16() -> bool:
    """Whether its layers take it; all else of torch does, if slowly, on every processor."""
    there = torch.backends.mkldnn.is_available()
    return bool(there and torch.ops.mkldnn._is_mkldnn_bf16_supported())
