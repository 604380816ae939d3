"""Sequences on the CPU, by a compiled step that reads the weights as fast as memory gives them.

torch multiplies a matrix by a few rows at a fraction of the memory's speed, and each of its calls
costs more than the arithmetic in it. One compiled call for a whole step does neither, whether it
reads a prompt, one more token of one sequence, or of many.

Shapes:  B sequences · V vocabulary · S positions in the cache
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from folio import jit
from folio.fast.accelerate import is_known
from folio.fast.kernels import weights as fields
from folio.fast.kernels.weights import Weights, Work
from folio.fast.packing import LANES, STRIPS, Precision, aligned, in_lanes, pack
from folio.fast.threads import FasterThreads, SpinningThreads
from folio.fast.written_for import is_as_written
from folio.model import kv_cache
from folio.model.gpt import GPT
from folio.model.kv_cache import CacheRow

MOST_TOKENS = 48
"""In one step; of a longer prompt one part after the other is read."""
AT_ONCE = 6
"""Tokens that are multiplied together, at most."""
NOT_SCORED = -1
"""In place of a row of logits."""


def decoder_for(
    model: nn.Module, wanted: bool | None = None, precision: Precision = "float32"
) -> Decoder | None:
    """Make a decoder to generate with, where there can be one; None leaves it to the model.

    Args:
        model: to generate with.
        wanted: False makes none.
        precision: of the weights.
    """
    return Decoder(model, precision) if wanted is not False and applies(model) else None


def applies(model: nn.Module) -> TypeGuard[GPT]:
    """Whether `Decoder` can stand in for a model.

    That takes a GPT in float32 on the CPU of which no layer was changed, and kernels.
    """
    if type(model) is not GPT or not is_known(model) or not is_as_written(kv_cache):
        return False
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in model.parameters()):
        return False
    return jit.available()


class Decoder:
    """Reads tokens as the model does, and gives the same logits up to rounding.

    How many sequences are read together, in which parts and on how many threads does not change a
    bit of them.
    """

    def __init__(
        self, model: GPT, precision: Precision = "float32", n_threads: int | None = None
    ) -> None:
        """Copy the weights: later changes to the model are not seen.

        Args:
            model: in evaluation mode.
            precision: of the matrices, and of what they are multiplied with.
            n_threads: at most; as many as torch has where it is None.
        """
        from folio.fast.kernels import decoder as kernels

        n_threads = n_threads or torch.get_num_threads()
        self.model = model
        self.weights = pack(model, precision)
        self.work = make_work(self.weights, n_threads)
        self._faster = FasterThreads(n_threads)
        self._threads = SpinningThreads(self, n_threads)
        weights, work = self.weights, self.work
        self._run = lambda rank, seen, patience: kernels.step(rank, weights, work, seen, patience)
        self._lock = threading.Lock()

    def read(self, token_ids: Sequence[Tensor], caches: Sequence[CacheRow]) -> Tensor:
        """Read some tokens of each sequence.

        Args:
            token_ids: B tensors of 1 or more token ids.
            caches: B rows of caches, each of which is extended by its tokens.

        Returns:
            (B, V) float32 logits after the last token of each.

        Raises:
            IndexError: a token id that the model does not have.
            ValueError: more positions than the model was built for.
        """
        rows = [ids.tolist() for ids in token_ids]
        self._check(rows, caches)
        pool = caches[0].pool
        with self._lock:
            if all(cache.pool is pool for cache in caches):
                logits = self._read(rows, caches)
            else:
                logits = torch.cat(
                    [self._read([row], [cache]) for row, cache in zip(rows, caches, strict=True)]
                )
        for row, cache in zip(rows, caches):
            cache.length += len(row)
        return logits

    def use_threads(self, n_threads: int) -> None:
        """Take as many from now on, in place of those that are faster."""
        self._faster = FasterThreads(n_threads, least=n_threads)

    def _check(self, rows: list[list[int]], caches: Sequence[CacheRow]) -> None:
        config = self.model.config
        for row, cache in zip(rows, caches, strict=True):
            if cache.length + len(row) > config.context_length:
                raise ValueError(
                    f"{cache.length + len(row)} positions were asked for; the model was built "
                    f"for context_length = {config.context_length}"
                )
            if not row or min(row) < 0 or max(row) >= config.vocab_size:
                raise IndexError(
                    f"token ids must be 0 to {config.vocab_size - 1}, one or more, got {row}"
                )

    def _read(self, rows: list[list[int]], caches: Sequence[CacheRow]) -> Tensor:
        """Read tokens of sequences whose caches share a pool."""
        pool, job = caches[0].pool, self.work.job
        _, n_rows, _, room, _ = pool.keys.shape
        logits = torch.empty(len(rows), in_lanes(self.model.config.vocab_size))
        job[fields.KEYS : fields.N_THREADS] = (
            pool.keys.data_ptr(),
            pool.values.data_ptr(),
            n_rows,
            room,
            logits.data_ptr(),
        )
        tokens: list[tuple[int, int, int, int]] = []
        n_scored = 0
        for row, cache in zip(rows, caches):
            first, number, last = cache.length, cache.row, len(row) - 1
            for t, token_id in enumerate(row):
                if len(tokens) == MOST_TOKENS:
                    self._step(tokens, n_scored)
                    job[fields.LOGITS] += n_scored * logits.shape[1] * logits.itemsize
                    tokens, n_scored = [], 0
                tokens.append((token_id, first + t, number, n_scored if t == last else NOT_SCORED))
                n_scored += t == last
        self._step(tokens, n_scored)
        return logits[:, : self.model.config.vocab_size]

    def _step(self, tokens: list[tuple[int, int, int, int]], n_scored: int) -> None:
        job = self.work.job
        self.work.tokens[: len(tokens)] = tokens
        job[fields.N_TOKENS], job[fields.N_SCORED] = len(tokens), n_scored
        with self._faster.timed(len(tokens)) as n_threads:
            job[fields.N_THREADS] = n_threads
            if n_threads == 1:
                self._run(0, 0, 1)
                return
            started = int(self.work.counters[fields.STARTED * fields.APART])
            with self._threads.awake(self._run, started):
                self._run(0, 0, 1)


def make_work(weights: Weights, n_threads: int) -> Work:
    """Reserve the memory that a step computes in."""
    shape = weights.shape
    n_heads, n_all = shape[fields.N_HEADS], shape[fields.N_HEADS] + 2 * shape[fields.N_KV_HEADS]
    d_model, head = in_lanes(shape[fields.D_MODEL]), in_lanes(shape[fields.HEAD_DIM])
    mixed, wide = in_lanes(n_heads * shape[fields.HEAD_DIM]), in_lanes(shape[fields.D_FF])
    widest = max(d_model, mixed, wide)
    many, each = MOST_TOKENS, n_threads + 1
    return Work(
        x=aligned((each, many, d_model), np.float32),
        words=aligned((each, many, widest), np.uint32),
        scales=aligned((each, many), np.float32),
        byte_sums=aligned((each, many), np.int32),
        sums=aligned((n_threads, AT_ONCE, STRIPS, LANES), np.float32),
        row=aligned((n_threads, widest), np.float32),
        attention=aligned((n_threads, in_lanes(shape[fields.CONTEXT])), np.float32),
        heads=aligned((many * n_all * head,), np.float32),
        mixed=aligned((many * mixed,), np.float32),
        wide=aligned((many * wide,), np.float32),
        change=aligned((many * d_model,), np.float32),
        tokens=aligned((many, 4), np.int64),
        job=aligned((fields.JOB_FIELDS,), np.int64),
        counters=aligned(((fields.OWN_TURN + n_threads) * fields.APART,), np.int64),
    )
