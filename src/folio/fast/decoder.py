"""Sequences on the CPU, by a compiled step that reads the weights as fast as memory gives them.

torch multiplies a matrix by a few rows at a fraction of the memory's speed, and each of its calls
costs more than the arithmetic in it. One compiled call for a whole step does neither, whether it
reads a prompt, one more token of one sequence, or of many.

Shapes:  B sequences · V vocabulary · L layers · K heads of keys and values
         S positions in the cache · D head dimension
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.fast.arrays import Array, ModelArrays
from folio.fast.kernels import weights as fields
from folio.fast.kernels.weights import ABSENT, Weights, Work
from folio.fast.machine_code import Step, step_of
from folio.fast.packing import LANES, STRIPS, Precision, aligned, in_lanes, pack
from folio.fast.threads import FasterThreads, Follow, SpinningThreads
from folio.model.config import ModelConfig

MOST_TOKENS = 48
"""Most tokens in one step; a longer prompt is read in several."""
AT_ONCE = 6
"""Tokens that are multiplied together, at most."""
NOT_SCORED = -1
"""Stands in place of a row of logits."""


class Pool:
    """Keys and values of B sequences, (L, B, K, positions, D), in room reserved once."""

    def __init__(self, config: ModelConfig, n: int) -> None:
        """Memory is taken as they fill."""
        shape = (config.n_layers, n, config.key_value_heads, config.context_length)
        self.keys = aligned((*shape, config.head_width), np.float32)
        self.values = aligned((*shape, config.head_width), np.float32)


class Cache:
    """The cache of one sequence in a pool."""

    def __init__(self, pool: Pool, row: int) -> None:
        self.pool, self.row = pool, row
        self.length = 0
        """Number of positions in the cache."""


class Decoder:
    """Reads tokens as the model does, and gives the same logits up to rounding; a
    `generation.reader.Reader`.

    How many sequences are read together, in which parts and on how many threads does not change a
    bit of them.
    """

    def __init__(self, model: ModelArrays, precision: Precision, n_threads: int) -> None:
        """Copy the weights: later changes are not seen.

        Args:
            model: what is read.
            precision: of the matrices, and of what they are multiplied with.
            n_threads: at most.
        """
        self.config = model.config
        self.context_length = model.config.context_length
        self.weights = pack(model, precision)
        self.work = make_work(self.weights, n_threads)
        self._faster = FasterThreads(n_threads)
        self._threads = SpinningThreads(self, n_threads)
        self._run = _bound(step_of(precision), (*self.weights, *self.work))
        self._lock = threading.Lock()

    def caches(self, n: int) -> list[Cache]:
        pool = Pool(self.config, n)
        return [Cache(pool, row) for row in range(n)]

    def read(self, token_ids: Sequence[Sequence[int]], caches: Sequence[Cache]) -> Array:
        """Read some tokens of each sequence.

        Args:
            token_ids: of B sequences, 1 or more of each.
            caches: B caches, each of which is extended by its tokens.

        Returns:
            (B, V) float32 logits after the last token of each.

        Raises:
            IndexError: a token id that the model does not have.
            ValueError: more positions than the model was built for.
        """
        self._check(token_ids, caches)
        pool = caches[0].pool
        with self._lock:
            if all(cache.pool is pool for cache in caches):
                logits = self._read(token_ids, caches)
            else:
                each = zip(token_ids, caches, strict=True)
                logits = np.concatenate([self._read([ids], [cache]) for ids, cache in each])
        for ids, cache in zip(token_ids, caches):
            cache.length += len(ids)
        return logits

    def forget(self, cache: Cache, n: int) -> bool:
        """Forget the oldest tokens as `generation/sliding.py` does; the others keep their relative
        positions.
        """
        shape, n_kept = self.weights.shape, cache.length - n
        if shape[fields.POSITIONS] != ABSENT:
            return False
        for held in (cache.pool.keys, cache.pool.values):
            held[:, cache.row, :, :n_kept] = held[:, cache.row, :, n : cache.length]
        if n_kept and shape[fields.COSINES] != ABSENT:  # else there is no such rotation
            keys = cache.pool.keys[:, cache.row, :, :n_kept]
            cosines, sines = (self._turn(place, n) for place in (fields.COSINES, fields.SINES))
            keys[:] = keys * cosines - np.roll(keys, keys.shape[-1] // 2, axis=-1) * sines
        cache.length = n_kept
        return True

    def _turn(self, table: int, n: int) -> Array:
        """(D,) of the rotation by n positions."""
        head_dim = int(self.weights.shape[fields.HEAD_DIM])
        place = int(self.weights.shape[table]) + n * head_dim
        return self.weights.floats[place : place + head_dim]

    def use_threads(self, n_threads: int) -> None:
        """Use this number of threads from now on, instead of choosing the fastest."""
        self._faster = FasterThreads(n_threads, least=n_threads)

    def _check(self, token_ids: Sequence[Sequence[int]], caches: Sequence[Cache]) -> None:
        for ids, cache in zip(token_ids, caches, strict=True):
            if cache.length + len(ids) > self.context_length:
                raise ValueError(
                    f"{cache.length + len(ids)} positions were asked for; the model was built "
                    f"for context_length = {self.context_length}"
                )
            if not ids or min(ids) < 0 or max(ids) >= self.config.vocab_size:
                raise IndexError(
                    f"token ids must be 0 to {self.config.vocab_size - 1}, one or more, got {ids}"
                )

    def _read(self, token_ids: Sequence[Sequence[int]], caches: Sequence[Cache]) -> Array:
        """Read tokens of sequences whose caches share a pool."""
        pool, job = caches[0].pool, self.work.job
        _, n_rows, _, room, _ = pool.keys.shape
        logits = np.empty((len(token_ids), in_lanes(self.config.vocab_size)), np.float32)
        job[fields.KEYS : fields.N_THREADS] = (
            address_of(pool.keys),
            address_of(pool.values),
            n_rows,
            room,
            address_of(logits),
        )
        tokens: list[tuple[int, int, int, int]] = []
        n_scored = 0
        for ids, cache in zip(token_ids, caches):
            first, number, last = cache.length, cache.row, len(ids) - 1
            for t, token_id in enumerate(ids):
                if len(tokens) == MOST_TOKENS:
                    self._step(tokens, n_scored)
                    job[fields.LOGITS] += n_scored * logits.shape[1] * logits.itemsize
                    tokens, n_scored = [], 0
                tokens.append((token_id, first + t, number, n_scored if t == last else NOT_SCORED))
                n_scored += t == last
        self._step(tokens, n_scored)
        return logits[:, : self.config.vocab_size]

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


def _bound(step: Step, arrays: Sequence[NDArray[Any]]) -> Follow:
    """A step that knows the arrays of `Weights` and `Work`, and keeps them; the table is that of
    `kernels/entry.py`.
    """
    table = np.zeros((len(arrays), fields.PLACE_NUMBERS), np.int64)
    for row, array in zip(table, arrays):
        row[: 1 + array.ndim] = address_of(array), *array.shape
    address = address_of(table)

    def follow(rank: int, seen: int, patience: int) -> int:
        assert len(arrays) == len(table), "they live as long as this"
        return step(rank, address, seen, patience)

    return follow


def address_of(array: NDArray[Any]) -> int:
    """Address of an array's memory."""
    return array.__array_interface__["data"][0]


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
