"""Scores a text with several processes, each a shard of the windows, with the same result."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from torch import nn

from folio.device import one_thread
from folio.evaluation.score import Score, Window, excerpt, score
from folio.tokenizers.base import TokenIds
from folio.workers import (
    READ_AGAIN,
    ProcessPool,
    forks,
    keep_freed_memory,
    return_freed_memory,
)

Part = tuple[TokenIds, list[Window], str]


def score_by_workers(
    model: nn.Module,
    tokens: TokenIds,
    windows: list[Window],
    protocol: str,
    world_size: int = 1,
) -> tuple[Score, NDArray[np.float32]]:
    """Score the windows of a text, without dropout.

    Threads that share every operation wait for each other hundreds of times per forward pass, on a
    busy machine for longer than they compute; processes with windows of their own never wait.

    Args:
        model: must be on the CPU if there are several workers.
        tokens, windows, protocol: as in `score`.
        world_size: processes, this one included; 1 uses torch's own threads in this process.

    Returns:
        The score, and (n,) the nats of each target in the order of the windows.
    """
    parts = split_windows(tokens, windows, protocol, world_size if forks() else 1)

    def read(rank: int, part: Part) -> tuple[Score, NDArray[np.float32]]:
        nll: list[NDArray[np.float32]] = []
        return score(model, *part, nll=nll), np.concatenate(nll)

    keep_freed_memory()
    try:
        if len(parts) == 1:
            answers = [read(0, parts[0])]
        else:
            with one_thread(), ProcessPool(len(parts), [[read]], lambda: None, READ_AGAIN) as pool:
                answers = pool.run(0, parts)
    finally:
        return_freed_memory()
    total = reduce(operator.add, (found for found, _ in answers))
    nll = np.concatenate([each for _, each in answers])
    return total, nll


def split_windows(
    tokens: TokenIds, windows: list[Window], protocol: str, world_size: int
) -> list[Part]:
    """Split windows into at most `world_size` shards, each with the tokens that it reads.

    Returns:
        Tokens, windows with positions in them, and the protocol: the arguments of `score`. One
        shard if there are no windows, so that `score` raises its error.
    """
    n = max(min(world_size, len(windows)), 1)
    if n == 1:
        return [(tokens, windows, protocol)]
    shares = (windows[len(windows) * i // n : len(windows) * (i + 1) // n] for i in range(n))
    return [(*excerpt(tokens, share), protocol) for share in shares]
