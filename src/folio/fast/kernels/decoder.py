"""Runs some tokens through the whole model in compiled code; `GPT.forward` is the readable version.

A token is one of any sequence: a prompt brings many of one, a batch one of each. The weights are
read once for all of them. Every thread runs `step`, takes its share of each matrix and meets the
others before anybody reads what was computed. A norm takes a tenth of that time, so that where the
tokens are few, each thread computes all of them for itself.

No sum depends on how many tokens or threads there are. So a text is the same alone and beside
others, and a prompt gives the same logits at once and token by token, to the last bit.

Shapes:  T threads · M tokens · H heads · K heads of keys and values · S positions
         D head dimension · C = d_model · F = d_ff · V vocabulary · L layers · B rows of the cache
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.barriers import add_to, barrier, pause, read
from folio.fast.kernels.cached_attention import attend, copy, rotate
from folio.fast.kernels.panels import linear, to_words
from folio.fast.kernels.vectors import (
    LANES,
    floats_at,
    fused,
    keep,
    load,
    load_some,
    splat,
    store,
    sum_of,
    zeros,
)
from folio.fast.kernels.weights import (
    ABSENT,
    APART,
    ARRIVALS,
    ATTENTION_ENTRY,
    ATTENTION_EXIT,
    ATTENTION_SUM,
    CACHE_LENGTH,
    CACHE_ROWS,
    CENTERED,
    COSINES,
    D_FF,
    D_MODEL,
    DOWN,
    EMBEDDING_SCALE,
    EPSILON,
    FEED_FORWARD_ENTRY,
    FEED_FORWARD_EXIT,
    FEED_FORWARD_SUM,
    FINAL_NORM,
    FIRST_ARRIVAL,
    HEAD_DIM,
    KEY_NORM,
    KEYS,
    LOGITS,
    MATRICES,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    N_PANELS,
    N_SCORED,
    N_THREADS,
    N_TOKENS,
    OUT,
    OWN_TURN,
    PANELS_TOGETHER,
    POSITIONS,
    QKV,
    QUERY_NORM,
    SINES,
    STARTED,
    STRIPS,
    UP,
    VALUES,
)
from folio.jit import kernel

ALONE = 2
"""Up to so many tokens, each thread computes all norms itself."""
ZERO, ONE = np.float32(0), np.float32(1)


@kernel(inner=True)
def step(rank, weights, work, seen, patience):
    """Read some tokens, append them to their caches, score what follows those that are wanted.

    Args:
        rank: of this thread. The first one starts the step; the others wait for it.
        weights: of the whole model (`Weights`).
        work: `tokens` and `job` say what is to do; the rest is memory to do it in.
        seen: how many steps were started before this one; of the first thread it does not count.
        patience: looks, after which there is none.

    Returns:
        How many steps were started by now.
    """
    if rank == 0:
        start(work)
    elif not wait(work, seen, patience):
        return seen
    shape, norms, job = weights.shape, weights.norms, work.job
    n_tokens, n_threads = job[N_TOKENS], job[N_THREADS]
    work.counters[(OWN_TURN + rank) * APART] = job[FIRST_ARRIVAL]
    if n_tokens > ALONE and n_threads > 1:
        own = len(work.x) - 1
        first, stop = n_tokens * rank // n_threads, n_tokens * (rank + 1) // n_threads
    else:
        own, first, stop = rank, 0, n_tokens

    for token in range(first, stop):
        embed(weights, work, own, token)
    for layer in range(shape[N_LAYERS]):
        places = norms[layer]
        for token in range(first, stop):
            enter(rank, weights, work, own, token, token, places[ATTENTION_ENTRY])
        multiply(rank, weights, work, own, MATRICES * layer + QKV, n_tokens, work.heads)
        finish_heads(rank, weights, work, layer)
        meet(rank, work)
        attend_all(rank, weights, work, layer)
        meet(rank, work)
        for token in range(first, stop):
            width = shape[N_HEADS] * shape[HEAD_DIM]
            take(rank, weights, work, own, token, work.mixed, width)
        number = MATRICES * layer + OUT
        multiply(rank, weights, work, own, number, n_tokens, work.change)
        meet(rank, work)
        for token in range(first, stop):
            leave(rank, weights, work, own, token, places[ATTENTION_EXIT], places[ATTENTION_SUM])
            enter(rank, weights, work, own, token, token, places[FEED_FORWARD_ENTRY])
        number = MATRICES * layer + UP
        multiply(rank, weights, work, own, number, n_tokens, work.wide)
        meet(rank, work)
        for token in range(first, stop):
            take(rank, weights, work, own, token, work.wide, shape[D_FF])
        number = MATRICES * layer + DOWN
        multiply(rank, weights, work, own, number, n_tokens, work.change)
        meet(rank, work)
        for token in range(first, stop):
            exit_norm, sum_norm = places[FEED_FORWARD_EXIT], places[FEED_FORWARD_SUM]
            leave(rank, weights, work, own, token, exit_norm, sum_norm)
    leave_model(rank, weights, work, own, first, stop)
    head, logits = MATRICES * shape[N_LAYERS], floats_at(job[LOGITS])
    multiply(rank, weights, work, own, head, job[N_SCORED], logits)
    meet(rank, work)
    return read(work.counters, STARTED * APART) if rank == 0 else seen + 1


@kernel(inner=True)
def start(work):
    """Let the other threads go, where the step is for several."""
    work.job[FIRST_ARRIVAL] = read(work.counters, ARRIVALS * APART)
    if work.job[N_THREADS] > 1:
        add_to(work.counters, STARTED * APART, 1)


@kernel(inner=True)
def wait(work, seen, patience):
    """Whether another step is started within so many looks."""
    for _ in range(patience):
        if read(work.counters, STARTED * APART) != seen:
            return True
        pause()
    return False


@kernel(inner=True)
def meet(rank, work):
    """Wait for all threads of the step."""
    turn = (OWN_TURN + rank) * APART
    work.counters[turn] += work.job[N_THREADS]
    barrier(work.counters, ARRIVALS * APART, work.counters[turn])


@kernel(inner=True)
def embed(weights, work, own, token):
    """Write what the blocks begin with: the embedding, with that of the position."""
    x, row, scale = work.x[own], work.tokens[token, 0], weights.floats[EMBEDDING_SCALE]
    width = weights.shape[D_MODEL]
    place = token * in_lanes(width)
    for i in range(0, width, LANES):
        found = load_some(weights.embedding, row * width + i, width - i)
        store(x, place + i, found * splat(scale))
    if weights.shape[POSITIONS] != ABSENT:
        position = weights.shape[POSITIONS] + work.tokens[token, 1] * in_lanes(width)
        for i in range(0, width, LANES):
            store(x, place + i, load(x, place + i) + load(weights.floats, position + i))


@kernel(inner=True)
def enter(rank, weights, work, own, token, number, norm):
    """Bring the residual stream of a token into a matrix, normalized, as words number so many."""
    width = weights.shape[D_MODEL]
    row, place = row_of(rank, work), token * in_lanes(width)
    normalize(weights, norm, work.x[own], place, width, work.row, row)
    keep_words(rank, weights, work, own, number, in_lanes(width))


@kernel(inner=True)
def row_of(rank, work):
    """Offset of a thread's own row."""
    return rank * work.words.shape[2]


@kernel(inner=True)
def take(rank, weights, work, own, token, y, width):
    """Bring what a layer computed for a token into its last matrix, as words."""
    row, stride = row_of(rank, work), in_lanes(width)
    for i in range(0, stride, LANES):
        store(work.row, row + i, load(y, token * stride + i))
    keep_words(rank, weights, work, own, token, stride)


@kernel(inner=True)
def keep_words(rank, weights, work, own, number, width):
    """Store this thread's row as words."""
    words, scales, sums = work.words[own, number], work.scales[own], work.byte_sums[own]
    to_words(weights.panels, work.row[rank], width, words, scales, sums, number)


@kernel(inner=True)
def leave(rank, weights, work, own, token, exit_norm, sum_norm):
    """Add what a layer computed for a token to its residual stream."""
    x, row, width = work.x[own], row_of(rank, work), weights.shape[D_MODEL]
    place = token * in_lanes(width)
    normalize(weights, exit_norm, work.change, place, width, work.row, row)
    for i in range(0, width, LANES):
        store(x, place + i, load(x, place + i) + load(work.row, row + i))
    normalize(weights, sum_norm, x, place, width, x, place)


@kernel(inner=True)
def normalize(weights, norm, x, x_place, width, y, y_place):
    """LayerNorm or RMSNorm of a row; without one, it is copied.

    Args:
        norm: place of the gains and then the biases, each `width` in lanes; or ABSENT.
        x, x_place: flat, and where the row begins.
        y, y_place: where it is written, which may be the same.
    """
    padded = in_lanes(width)
    if norm == ABSENT:
        for i in range(0, padded, LANES):
            store(y, y_place + i, load(x, x_place + i))
        return
    mean, squares = zeros(), zeros()
    if weights.shape[CENTERED]:
        for i in range(0, padded, LANES):
            mean = mean + load(x, x_place + i)
        mean = splat(sum_of(mean) / np.float32(width))
    for i in range(0, padded, LANES):
        centered = keep(load(x, x_place + i) - mean, width - i, ZERO)
        squares = fused(centered, centered, squares)
    variance = sum_of(squares) / np.float32(width)
    factor = splat(ONE / np.sqrt(variance + weights.floats[EPSILON]))
    for i in range(0, padded, LANES):
        unit = (load(x, x_place + i) - mean) * factor
        gain, bias = load(weights.floats, norm + i), load(weights.floats, norm + padded + i)
        store(y, y_place + i, fused(unit, gain, bias))


@kernel(inner=True)
def in_lanes(width):
    """A width rounded up to whole lanes."""
    return (width + LANES - 1) // LANES * LANES


@kernel(inner=True)
def gather(rank, work, own):
    """Meet, where each thread brought the words of some of the tokens only."""
    if own == len(work.x) - 1:
        meet(rank, work)


@kernel(inner=True)
def share_of(rank, work, matrix):
    """The panels of a matrix that a thread multiplies: the first one, and where to stop."""
    together, n_threads = matrix[PANELS_TOGETHER], work.job[N_THREADS]
    n_units = matrix[N_PANELS] // together
    return n_units * rank // n_threads * together, n_units * (rank + 1) // n_threads * together


@kernel(inner=True)
def multiply(rank, weights, work, own, number, n_tokens, y):
    """This thread's share of a matrix times the words of some tokens, written to y."""
    gather(rank, work, own)
    matrix = weights.matrices[number]
    first, stop = share_of(rank, work, matrix)
    words, scales, byte_sums = work.words[own], work.scales[own], work.byte_sums[own]
    panels, floats, sums = weights.panels, weights.floats, work.sums[rank]
    linear(
        panels, floats, matrix, first, stop,
        words, scales, byte_sums, n_tokens, sums, y,
    )  # fmt: skip


@kernel(inner=True)
def finish_heads(rank, weights, work, layer):
    """Normalize and turn this thread's heads, and keep keys and values in the cache."""
    shape, number = weights.shape, MATRICES * layer + QKV
    n_heads, n_kv_heads, head_dim = shape[N_HEADS], shape[N_KV_HEADS], shape[HEAD_DIM]
    n_all, padded = n_heads + 2 * n_kv_heads, in_lanes(head_dim)
    matrix = weights.matrices[number]
    first, stop = share_of(rank, work, matrix)
    panel = matrix[STRIPS] * LANES
    for token in range(work.job[N_TOKENS]):
        position = work.tokens[token, 1]
        for head in range(first * panel // padded, min(n_all, stop * panel // padded)):
            place = (token * n_all + head) * padded
            if head < n_heads + n_kv_heads:
                norm = weights.norms[layer, QUERY_NORM if head < n_heads else KEY_NORM]
                if norm != ABSENT:
                    normalize(weights, norm, work.heads, place, head_dim, work.heads, place)
                if shape[COSINES] != ABSENT:
                    cosines = shape[COSINES] + position * head_dim
                    sines = shape[SINES] + position * head_dim
                    rotate(work.heads, place, weights.floats, cosines, sines, head_dim)
            if head >= n_heads:
                kept = (head - n_heads) % n_kv_heads
                where = cache_place(weights, work, layer, token, kept) + position * head_dim
                which = KEYS if head < n_heads + n_kv_heads else VALUES
                copy(work.heads, place, floats_at(work.job[which]), where, head_dim)


@kernel(inner=True)
def cache_place(weights, work, layer, token, head):
    """Offset of a token's sequence in the cache, for one layer and head."""
    shape, job = weights.shape, work.job
    row = layer * job[CACHE_ROWS] + work.tokens[token, 2]
    return (row * shape[N_KV_HEADS] + head) * job[CACHE_LENGTH] * shape[HEAD_DIM]


@kernel(inner=True)
def attend_all(rank, weights, work, layer):
    """This thread's share of all queries."""
    shape, job = weights.shape, work.job
    n_heads, head_dim = shape[N_HEADS], shape[HEAD_DIM]
    group = n_heads // shape[N_KV_HEADS]
    n_all, padded = n_heads + 2 * shape[N_KV_HEADS], in_lanes(head_dim)
    width = in_lanes(n_heads * head_dim)
    keys, values = floats_at(job[KEYS]), floats_at(job[VALUES])
    for item in range(rank, job[N_TOKENS] * n_heads, job[N_THREADS]):
        token, head = item // n_heads, item % n_heads
        attend(
            work.heads,
            (token * n_all + head) * padded,
            keys,
            values,
            cache_place(weights, work, layer, token, head // group),
            work.tokens[token, 1] + 1,
            head_dim,
            work.attention[rank],
            work.mixed,
            token * width + head * head_dim,
        )


@kernel(inner=True)
def leave_model(rank, weights, work, own, first, stop):
    """Bring the residual stream into the head, of the tokens whose logits are wanted."""
    shape = weights.shape
    for token in range(first, stop):
        number = work.tokens[token, 3]
        if number >= 0:
            enter(rank, weights, work, own, token, number, shape[FINAL_NORM])
