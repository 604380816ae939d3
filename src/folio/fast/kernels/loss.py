"""Cross-entropy, forward and backward.

Shapes:  R rows · V vocabulary
"""

from __future__ import annotations

import math

import numpy as np

from folio.fast.kernels.numbers import LOWEST_RANK, ONE, ZERO, exp, from_rank, load, store, to_rank
from folio.jit import kernel


@kernel(fastmath=True)
def cross_entropy(logits, targets, logs, total):
    """Cross-entropy at the targets, summed.

    Args:
        logits: (R, V).
        targets: (R,) integers; below 0 a row does not count.
        logs: (R,) float32, the logarithms of the sums of exponentials are written to it.
        total: (1,) float32, written; in nats.

    Raises:
        IndexError: a target is not below V.
    """
    n_rows, n_ids = logits.shape
    nats = 0.0
    for row in range(n_rows):
        if targets[row] >= n_ids:
            raise IndexError("a target is not below the number of logits")
        rank = LOWEST_RANK
        for i in range(n_ids):
            other = to_rank(load(logits[row, i]))
            rank = other if other > rank else rank
        highest, powers = from_rank(rank), ZERO
        for i in range(n_ids):
            powers += exp(load(logits[row, i]) - highest)
        log = np.float32(highest + math.log(powers))
        logs[row] = log
        if targets[row] >= 0:
            nats += log - load(logits[row, targets[row]])
    total[0] = nats


@kernel(fastmath=True)
def cross_entropy_backward(gradient, logits, targets, logs, penalty, logits_gradient):
    """p * (1 + penalty * (x - sum(p * x))), less 1 at the target.

    Args:
        gradient: (1,) of the total.
        logits, targets, logs: as for `cross_entropy`, with p the exponential of x less its row's.
        penalty: float32, times the entropy of p.
        logits_gradient: (R, V), written.
    """
    n_rows, n_ids = logits.shape
    for row in range(n_rows):
        scale = ZERO if targets[row] < 0 else load(gradient[0])
        log, mean = logs[row], ZERO
        if penalty != ZERO:
            for i in range(n_ids):
                x = load(logits[row, i])
                mean += exp(x - log) * x
        for i in range(n_ids):
            x = load(logits[row, i])
            back = scale * exp(x - log) * (ONE + penalty * (x - mean))
            logits_gradient[row, i] = store(back, logits_gradient[row, i])
        if targets[row] >= 0:
            x = load(logits[row, targets[row]])
            back = scale * (exp(x - log) * (ONE + penalty * (x - mean)) - ONE)
            logits_gradient[row, targets[row]] = store(back, logits_gradient[row, targets[row]])
