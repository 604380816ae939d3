"""Rows of tables looked up, and their gradients.

Shapes:  R token ids · V vocabulary · C width · B batch · T positions
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.numbers import ZERO, load, store
from folio.jit import kernel


@kernel()
def embedding(token_ids, table, y):
    """The rows of a (V, C) table with (R,) numbers, written to (R, C) y.

    Raises:
        IndexError: there is no such row.
    """
    for row in range(len(token_ids)):
        if not 0 <= token_ids[row] < len(table):
            raise IndexError("a token id is below 0, or not below the rows of the embeddings")
        vector, place = table[token_ids[row]], y[row]
        for i in range(len(place)):
            place[i] = vector[i]


@kernel(fastmath=True)
def embedding_backward(gradient, token_ids, table_gradient):
    """Each row of the table gets the sum of what came back where it was looked up.

    Args:
        gradient: (R, C).
        token_ids: (R,).
        table_gradient: (V, C), written.
    """
    n_ids, width = table_gradient.shape
    ends = np.zeros(n_ids, np.int64)  # of the places of each id among all, sorted by id
    for token_id in token_ids:
        ends[token_id] += 1
    for token_id in range(1, n_ids):
        ends[token_id] += ends[token_id - 1]
    rows, next_row_of = np.empty(len(token_ids), np.int64), ends.copy()
    for row in range(len(token_ids) - 1, -1, -1):
        next_row_of[token_ids[row]] -= 1
        rows[next_row_of[token_ids[row]]] = row
    sums = np.empty(width, np.float32)
    for token_id in range(n_ids):
        sums[:] = ZERO
        for place in range(next_row_of[token_id], ends[token_id]):
            vector = gradient[rows[place]]
            for i in range(width):
                sums[i] += load(vector[i])
        for i in range(width):
            table_gradient[token_id, i] = store(sums[i], table_gradient[token_id, i])


@kernel(fastmath=True)
def add_positions(x, places, start, y):
    """(B, T, C) and the rows of a (context, C) table from the first place on, written to y."""
    n_batch, n_positions, width = x.shape
    for batch in range(n_batch):
        for place in range(n_positions):
            for i in range(width):
                number = load(x[batch, place, i]) + load(places[start + place, i])
                y[batch, place, i] = store(number, y[batch, place, i])


@kernel(fastmath=True)
def add_positions_backward(gradient, start, table_gradient):
    """The sum over a batch, (B, T, C), written to the rows from the first place on; 0 to others."""
    n_batch, n_positions, width = gradient.shape
    sums = np.empty(width, np.float32)
    for place in range(len(table_gradient)):
        sums[:] = ZERO
        if start <= place < start + n_positions:
            for batch in range(n_batch):
                for i in range(width):
                    sums[i] += load(gradient[batch, place - start, i])
        for i in range(width):
            table_gradient[place, i] = store(sums[i], table_gradient[place, i])
