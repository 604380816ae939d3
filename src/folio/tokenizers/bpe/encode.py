"""Text -> token ids: each distinct chunk is merged once and then remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from folio.device import cores
from folio.tokenizers.bpe.chunk_table import padded
from folio.tokenizers.bpe.count import ChunkCounts
from folio.tokenizers.bpe.encode_kernels import (
    CHUNK_BYTES,
    CHUNK_TOO_LONG,
    DONE,
    N_OUT,
    SHORT,
    encode_texts,
    fill_rules,
)
from folio.tokenizers.bpe.patterns import check_pattern
from folio.tokenizers.bpe.rules import Rules
from folio.tokenizers.bpe.split import PATTERN_CODES
from folio.tokenizers.bpe.unicode_classes import class_table


class _Vocabulary(NamedTuple):
    """`Rules` as hash tables for kernels."""

    rules: np.ndarray  # (capacity, 2) uint64, from `rule_key` to rank << 32 | new id
    byte_ids: np.ndarray  # (256,) int32
    slots: np.ndarray  # chunks that are tokens as they are, see chunk_table
    starts: np.ndarray
    lengths: np.ndarray
    arena: np.ndarray
    ids: np.ndarray  # (chunks,) int64

    @classmethod
    def of(cls, rules: Rules) -> _Vocabulary:
        slots = np.zeros((1 << max(4, (2 * len(rules.pairs)).bit_length()), 2), np.uint64)
        fill_rules(rules.pairs, rules.new_ids, slots)
        whole = ChunkCounts.from_mapping(rules.whole_chunks)
        return cls(
            slots,
            rules.byte_ids,
            whole.slots,
            whole.starts,
            whole.lengths,
            whole.arena,
            whole.counts,
        )


class _Memo(NamedTuple):
    """Chunks encoded before, and their ids."""

    slots: np.ndarray  # (capacity, 2) uint64, see chunk_table
    starts: np.ndarray  # (chunks,) int64
    lengths: np.ndarray  # (chunks,) int64
    arena: np.ndarray  # (words,) uint64
    spans: np.ndarray  # (chunks,) int64: position in `ids` << 8 | number of ids of each chunk
    ids: np.ndarray  # (capacity,) int32
    sizes: np.ndarray  # (7,) int64

    @classmethod
    def empty(cls, n_chunks: int) -> _Memo:
        return cls(
            slots=np.zeros((4 * n_chunks, 2), np.uint64),
            starts=np.empty(n_chunks, np.int64),
            lengths=np.empty(n_chunks, np.int64),
            arena=np.empty(2 * n_chunks + SHORT, np.uint64),
            spans=np.empty(n_chunks, np.int64),
            ids=np.empty(8 * n_chunks + SHORT, np.int32),
            sizes=np.zeros(7, np.int64),
        )

    def forget(self) -> None:
        """Empty the memo."""
        self.slots.fill(0)
        self.sizes[:3] = 0


class _Scratch(NamedTuple):
    """Memory in which one chunk is merged."""

    ids: np.ndarray  # (n,) int32
    ranks: np.ndarray  # (n,) int32: rank of the pair that begins at a position
    following: np.ndarray  # (n,) int32: position of the next token
    previous: np.ndarray  # (n,) int32
    heap: np.ndarray  # (3 n,) int64: rank << 32 | position

    @classmethod
    def for_length(cls, n: int) -> _Scratch:
        ids, ranks, following, previous = (np.empty(n, np.int32) for _ in range(4))
        return cls(ids, ranks, following, previous, np.empty(3 * n, np.int64))


class _Thread:
    """The memo and the scratch memory of one thread."""

    largest_memo = 1 << 20

    def __init__(self) -> None:
        self.memo = _Memo.empty(1 << 12)
        self.scratch = _Scratch.for_length(1 << 10)

    def encode(self, data: bytes, ends: np.ndarray, pattern: int, vocabulary: _Vocabulary):
        """The ids of all texts in one array, and where each text ends in it."""
        text, words = padded(data)
        out = np.empty(len(text), np.int32)
        out_ends = np.empty(len(ends), np.int64)
        self.memo.sizes[3:] = 0
        while True:
            outcome = encode_texts(
                text,
                words,
                ends,
                class_table(),
                pattern,
                vocabulary,
                self.memo,
                self.scratch,
                out,
                out_ends,
            )
            if outcome == DONE:
                return out[: self.memo.sizes[N_OUT]], out_ends
            if outcome == CHUNK_TOO_LONG:
                self.scratch = _Scratch.for_length(2 * int(self.memo.sizes[CHUNK_BYTES]))
            elif len(self.memo.starts) < self.largest_memo:
                place = self.memo.sizes[3:].copy()
                self.memo = _Memo.empty(4 * len(self.memo.starts))
                self.memo.sizes[3:] = place
            else:
                self.memo.forget()


class Encoder:
    """Encodes text with a set of rules; keep it, since it remembers chunks from call to call.

    >>> encoder = Encoder(Rules.from_merges([(117, 103), (104, 256)]))
    >>> encoder.encode("hugs, mugs").tolist()
    [257, 115, 44, 32, 109, 256, 115]
    >>> [ids.tolist() for ids in encoder.encode_batch(["hug", "", "bug"])]
    [[257], [], [98, 256]]
    """

    def __init__(self, rules: Rules, pattern: str = "gpt2") -> None:
        self._pattern = PATTERN_CODES[check_pattern(pattern)]
        self._vocabulary = _Vocabulary.of(rules)
        self._idle = [_Thread()]

    def encode(self, text: str) -> np.ndarray:
        """The token ids of one text, int32, on one thread."""
        return self.encode_bytes(text.encode("utf-8", "surrogatepass"))

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """The token ids of bytes, which need not be valid UTF-8."""
        return self._run(data, np.array([len(data)], np.int64))[0]

    def encode_batch(self, texts: Iterable[str], n_threads: int | None = None) -> list[np.ndarray]:
        """The token ids of each text; long input uses two threads, or `n_threads`."""
        pieces = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        data = b"".join(pieces)
        if n_threads is None:
            n_threads = min(2, cores()) if len(data) > 1 << 18 else 1
        if n_threads == 1:
            return _by_text(*self._run(data, ends))
        edges = np.searchsorted(ends, np.linspace(0, len(data), n_threads + 1)[1:-1])
        shares = []
        stop = 0
        for texts_of in np.split(ends, edges):
            start, stop = stop, int(texts_of[-1]) if len(texts_of) else stop
            shares.append((data[start:stop], texts_of - start))
        with ThreadPoolExecutor(n_threads) as pool:
            parts = pool.map(lambda share: self._run(*share), shares)
            return [ids for part in parts for ids in _by_text(*part)]

    def encode_stream(
        self, texts: Iterable[str], n_threads: int | None = None
    ) -> Iterator[np.ndarray]:
        """The token ids of each text as they come; from the second text on with two threads, or
        `n_threads`.
        """
        n_threads = n_threads or min(2, cores())
        texts = iter(texts)
        begin = list(islice(texts, 2))
        if len(begin) < 2 or n_threads == 1:
            yield from map(self.encode, chain(begin, texts))
            return
        running: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(n_threads) as pool:
            for text in chain(begin, texts):
                if len(running) == n_threads:
                    yield running.popleft().result()
                running.append(pool.submit(self.encode, text))
            while running:
                yield running.popleft().result()

    def _run(self, data: bytes, ends: np.ndarray):
        # Removed from the pool while it works, so that no two threads of the caller write to one
        # memo.
        try:
            thread = self._idle.pop()
        except IndexError:
            thread = _Thread()
        try:
            return thread.encode(data, ends, self._pattern, self._vocabulary)
        finally:
            self._idle.append(thread)


def _by_text(ids: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    edges = ends.tolist()
    return [ids[start:stop] for start, stop in zip([0, *edges], edges, strict=False)]
