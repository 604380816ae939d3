"""LayerNorm and RMSNorm, forward and backward.

Shapes:  R rows · C width of a row
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.numbers import ONE, ZERO, load, store
from folio.jit import kernel


@kernel(fastmath=True)
def layer_norm(x, gain, bias, epsilon, y, mean, inverse):
    """y = gain * (x - m) / r + bias, with m the mean of a row and r its standard deviation.

    Args:
        x, y: (R, C).
        gain, bias: (C,).
        epsilon: added to the variance.
        mean, inverse: (R,) float32, m and 1 / r are written to them.
    """
    n_rows, width = x.shape
    for row in range(n_rows):
        total, square = ZERO, ZERO
        for i in range(width):
            total += load(x[row, i])
        middle = total / np.float32(width)
        for i in range(width):
            off = load(x[row, i]) - middle
            square += off * off
        scale = ONE / np.sqrt(square / np.float32(width) + epsilon)
        mean[row], inverse[row] = middle, scale
        for i in range(width):
            unit = (load(x[row, i]) - middle) * scale
            y[row, i] = store(unit * load(gain[i]) + load(bias[i]), y[row, i])


@kernel(fastmath=True)
def layer_norm_backward(
    gradient, beside, x, gain, mean, inverse, x_gradient, gain_gradient, bias_gradient
):
    """With u = (x - m) / r and h the gradient of u, that of x is
    (h - mean(h) - u * mean(h * u)) / r, plus what comes to it from beside the norm.

    Args:
        gradient, beside, x, x_gradient: (R, C), the last one written.
        gain: (C,).
        mean, inverse: (R,), from the forward pass.
        gain_gradient, bias_gradient: (C,), written.
    """
    n_rows, width = x.shape
    gain_sums, bias_sums = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for row in range(n_rows):
        middle, scale, total, along = mean[row], inverse[row], ZERO, ZERO
        for i in range(width):
            inner = load(gradient[row, i]) * load(gain[i])
            total += inner
            along += inner * (load(x[row, i]) - middle) * scale
        total /= np.float32(width)
        along /= np.float32(width)
        for i in range(width):
            unit, change = (load(x[row, i]) - middle) * scale, load(gradient[row, i])
            gain_sums[i] += change * unit
            bias_sums[i] += change
            back = (change * load(gain[i]) - total - unit * along) * scale + load(beside[row, i])
            x_gradient[row, i] = store(back, x_gradient[row, i])
    for i in range(width):
        gain_gradient[i] = store(gain_sums[i], gain_gradient[i])
        bias_gradient[i] = store(bias_sums[i], bias_gradient[i])


@kernel(fastmath=True)
def rms_norm(x, gain, epsilon, y, inverse):
    """y = gain * x / r, with r the root of the mean square of a row.

    Args:
        x, y: (R, C).
        gain: (C,).
        epsilon: added to the mean square.
        inverse: (R,) float32, 1 / r is written to it.
    """
    n_rows, width = x.shape
    for row in range(n_rows):
        square = ZERO
        for i in range(width):
            square += load(x[row, i]) * load(x[row, i])
        scale = ONE / np.sqrt(square / np.float32(width) + epsilon)
        inverse[row] = scale
        for i in range(width):
            y[row, i] = store(load(x[row, i]) * scale * load(gain[i]), y[row, i])


@kernel(fastmath=True)
def rms_norm_backward(gradient, beside, x, gain, inverse, x_gradient, gain_gradient):
    """With u = x / r and h the gradient of u, that of x is (h - u * mean(h * u)) / r, plus what
    comes to it from beside the norm.

    Args:
        gradient, beside, x, x_gradient: (R, C), the last one written.
        gain: (C,).
        inverse: (R,), from the forward pass.
        gain_gradient: (C,), written.
    """
    n_rows, width = x.shape
    gain_sums = np.zeros(width, np.float32)
    for row in range(n_rows):
        scale, along = inverse[row], ZERO
        for i in range(width):
            along += load(gradient[row, i]) * load(gain[i]) * load(x[row, i]) * scale
        along /= np.float32(width)
        for i in range(width):
            unit, change = load(x[row, i]) * scale, load(gradient[row, i])
            gain_sums[i] += change * unit
            back = (change * load(gain[i]) - unit * along) * scale + load(beside[row, i])
            x_gradient[row, i] = store(back, x_gradient[row, i])
    for i in range(width):
        gain_gradient[i] = store(gain_sums[i], gain_gradient[i])
