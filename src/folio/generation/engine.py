"""Requests -> tokens, one of each text at a time, without end if asked.

All that Folio writes comes this way: `Batch` reads the texts, `Row` draws and ends each. A seed
gives the same text whatever else is asked: how many texts, how long, by which reader.

Shapes:  B texts · V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.generation.batch import Batch
from folio.generation.row import FINISHED, Drawn, Request


def in_step(batch: Batch, requests: Sequence[Request]) -> Iterator[NDArray[np.int64]]:
    """Write B texts that begin together; yields (B,) tokens, FINISHED after the end of a text."""
    rows = [batch.add(request) for request in requests]
    while batch.rows:
        drawn = {row: token.token_id for row, token in batch.step()}
        yield np.array([drawn.get(row, FINISHED) for row in rows])


def write(batch: Batch, requests: Sequence[Request]) -> Iterator[tuple[int, Drawn]]:
    """Write any number of texts, as many at a time as the batch has room for.

    Yields:
        The number of a request, and its next token.
    """
    waiting = iter(enumerate(requests))
    numbers: dict[object, int] = {}
    while True:
        while batch.free and (following := next(waiting, None)):
            numbers[batch.add(following[1])] = following[0]
        if not batch.rows:
            return
        for row, drawn in batch.step():
            yield numbers[row], drawn


def require_length(max_tokens: int | None) -> None:
    """Refuse a number of tokens below 0."""
    if max_tokens is not None and max_tokens < 0:
        raise UserError(f"max_tokens must be 0 or more, got {max_tokens}.")
