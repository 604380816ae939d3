"""Text to token ids: each distinct chunk is merged once and then remembered.

Short chunks are merged by looking for the best pair again after each merge, which is quadratic
and, up to `SHORT` bytes, the fastest; longer ones with a heap in O(n log n), so that a million
equal letters or text without spaces does no harm. Both take the pair of lowest rank first, the
leftmost of equals, one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from folio.device import cores
from folio.jit import kernel
from folio.tokenizers.bpe.chunk_table import chunk_key, find_slot, padded, store_words
from folio.tokenizers.bpe.count import ChunkCounts
from folio.tokenizers.bpe.patterns import check_pattern
from folio.tokenizers.bpe.rules import Rules
from folio.tokenizers.bpe.split import PATTERN_CODES, next_cut
from folio.tokenizers.bpe.unicode_classes import class_table

SHORT = 48
"""Chunks of more bytes than this are merged with a heap, and not remembered."""

_NO_RULE = np.int32(0x7FFFFFFF)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ZERO, _HALF = np.uint64(0), np.uint64(32)

_DONE, _MEMO_FULL, _CHUNK_TOO_LONG = 0, 1, 2
# Entries of `sizes`: chunks and words in the memo, remembered ids; next text, next byte, ids
# written; the length of a chunk.
_N_CHUNKS, _N_WORDS, _N_IDS, _TEXT, _BYTE, _N_OUT, _CHUNK_BYTES = 0, 1, 2, 3, 4, 5, 6


class _Vocabulary(NamedTuple):
    """`Rules` as hash tables."""

    rules: np.ndarray  # (capacity, 2) uint64, from `rule_key` to rank << 32 | new id
    byte_ids: np.ndarray  # (256,) int32
    slots: np.ndarray  # chunks that are tokens as they stand, see chunk_table
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
    """Chunks seen before, and their ids."""

    slots: np.ndarray  # (capacity, 2) uint64, see chunk_table
    starts: np.ndarray  # (chunks,) int64
    lengths: np.ndarray  # (chunks,) int64
    arena: np.ndarray  # (words,) uint64
    spans: (
        np.ndarray
    )  # (chunks,) int64: where in `ids` those of a chunk begin << 8 | how many there are
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
        """Start again from nothing."""
        self.slots.fill(0)
        self.sizes[:3] = 0


class _Scratch(NamedTuple):
    """Room to merge one chunk in."""

    ids: np.ndarray  # (n,) int32
    ranks: np.ndarray  # (n,) int32: of the pair that begins at a place
    following: np.ndarray  # (n,) int32: the place of the next token
    previous: np.ndarray  # (n,) int32
    heap: np.ndarray  # (3 n,) int64: rank << 32 | place

    @classmethod
    def for_length(cls, n: int) -> _Scratch:
        ids, ranks, following, previous = (np.empty(n, np.int32) for _ in range(4))
        return cls(ids, ranks, following, previous, np.empty(3 * n, np.int64))


class _Thread:
    """What one thread needs for itself."""

    largest_memo = 1 << 20

    def __init__(self) -> None:
        self.memo = _Memo.empty(1 << 12)
        self.scratch = _Scratch.for_length(1 << 10)

    def encode(self, data: bytes, ends: np.ndarray, pattern: int, vocabulary: _Vocabulary):
        """The ids of all texts in one row, and where in it each text ends."""
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
            if outcome == _DONE:
                return out[: self.memo.sizes[_N_OUT]], out_ends
            if outcome == _CHUNK_TOO_LONG:
                self.scratch = _Scratch.for_length(2 * int(self.memo.sizes[_CHUNK_BYTES]))
            elif len(self.memo.starts) < self.largest_memo:
                place = self.memo.sizes[3:].copy()
                self.memo = _Memo.empty(4 * len(self.memo.starts))
                self.memo.sizes[3:] = place
            else:
                self.memo.forget()


class Encoder:
    """Encodes text with a set of rules; remembers chunks from call to call, so keep it.

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
        """The token ids of UTF-8, or of any bytes."""
        return self._run(data, np.array([len(data)], np.int64))[0]

    def encode_batch(self, texts: Iterable[str], n_threads: int | None = None) -> list[np.ndarray]:
        """The token ids of each text; on two threads, or as many as given, when it is much."""
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
        """The token ids of each text, as they come; on two threads, or as many as given, from the
        second text on.
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
        # Taken out while it works, so that no two threads of the caller write to one memo.
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


@kernel(allocates=False)
def fill_rules(pairs, new_ids, slots):
    """Put the rules in a hash table; of two for the same pair the last one stays."""
    for rank in range(len(pairs)):
        key = rule_key(pairs[rank, 0], pairs[rank, 1])
        slot = rule_slot(slots, key)
        slots[slot, 0] = key
        slots[slot, 1] = np.uint64(rank) << _HALF | np.uint64(new_ids[rank])


@kernel(allocates=False)
def rule_key(left, right):
    """A pair of ids as one number, not 0."""
    return (np.uint64(left) + np.uint64(1)) << _HALF | np.uint64(right)


@kernel(allocates=False)
def rule_slot(slots, key):
    """The slot of a rule, or the empty one where it belongs."""
    mask = len(slots) - 1
    slot = np.int64((key * _MULTIPLIER) >> _HALF) & mask
    while slots[slot, 0] != _ZERO and slots[slot, 0] != key:
        slot = (slot + 1) & mask
    return slot


@kernel(allocates=False)
def find_rule(rules, left, right):
    """The rank of a pair and the id that it makes."""
    slot = rule_slot(rules, rule_key(left, right))
    if rules[slot, 0] == _ZERO:
        return _NO_RULE, np.int32(-1)
    return np.int32(rules[slot, 1] >> _HALF), np.int32(rules[slot, 1] & np.uint64(0xFFFFFFFF))


@kernel(allocates=False)
def encode_texts(data, words, ends, classes, pattern, vocabulary, memo, scratch, out, out_ends):
    """Encode the texts that end at `ends`, until all are done or memo or scratch is too small."""
    sizes = memo.sizes
    text, position, n_out = sizes[_TEXT], sizes[_BYTE], sizes[_N_OUT]
    outcome = _DONE
    while text < len(ends) and outcome == _DONE:
        stop = ends[text]
        while position < stop:
            cut = next_cut(data, position, stop, classes, pattern)
            length = cut - position
            if length > len(scratch.ids):
                sizes[_CHUNK_BYTES] = length
                outcome = _CHUNK_TOO_LONG
                break
            is_short = length <= SHORT
            key, slot = _ZERO, 0
            if is_short:
                key = chunk_key(words, position, length)
                slot = find_slot(
                    memo.slots, key, words, position, length, memo.arena, memo.starts, memo.lengths
                )
                if memo.slots[slot, 0] != _ZERO:
                    span = memo.spans[np.int64(memo.slots[slot, 1])]
                    first = span >> 8
                    for k in range(span & 0xFF):
                        out[n_out] = memo.ids[first + k]
                        n_out += 1
                    position = cut
                    continue
                if (
                    sizes[_N_CHUNKS] == len(memo.starts)
                    or sizes[_N_WORDS] + SHORT > len(memo.arena)
                    or sizes[_N_IDS] + SHORT > len(memo.ids)
                ):
                    outcome = _MEMO_FULL
                    break
            n_ids = encode_chunk(data, words, position, length, vocabulary, scratch)
            for k in range(n_ids):
                out[n_out + k] = scratch.ids[k]
            n_out += n_ids
            if is_short:
                remember(memo, slot, key, words, position, length, scratch.ids, n_ids)
            position = cut
        if position == stop:
            out_ends[text] = n_out
            text += 1
    sizes[_TEXT], sizes[_BYTE], sizes[_N_OUT] = text, position, n_out
    return outcome


@kernel(allocates=False)
def remember(memo, slot, key, words, position, length, ids, n_ids):
    """Put a chunk and its ids into the memo."""
    sizes = memo.sizes
    chunk = sizes[_N_CHUNKS]
    memo.slots[slot, 0] = key
    memo.slots[slot, 1] = np.uint64(chunk)
    memo.starts[chunk] = sizes[_N_WORDS]
    memo.lengths[chunk] = length
    store_words(words, position, length, memo.arena, sizes[_N_WORDS])
    memo.spans[chunk] = sizes[_N_IDS] << 8 | n_ids
    for k in range(n_ids):
        memo.ids[sizes[_N_IDS] + k] = ids[k]
    sizes[_N_CHUNKS] += 1
    sizes[_N_WORDS] += (length + 7) >> 3
    sizes[_N_IDS] += n_ids


@kernel(allocates=False)
def encode_chunk(data, words, start, length, vocabulary, scratch):
    """Put the ids of one chunk first in scratch.ids; returns their number."""
    key = chunk_key(words, start, length)
    slot = find_slot(
        vocabulary.slots,
        key,
        words,
        start,
        length,
        vocabulary.arena,
        vocabulary.starts,
        vocabulary.lengths,
    )
    if vocabulary.slots[slot, 0] != _ZERO:
        scratch.ids[0] = vocabulary.ids[np.int64(vocabulary.slots[slot, 1])]
        return 1
    if length > SHORT:
        return merge_long(data, start, length, vocabulary.rules, vocabulary.byte_ids, scratch)
    return merge_short(data, start, length, vocabulary.rules, vocabulary.byte_ids, scratch)


@kernel(allocates=False)
def merge_short(data, start, length, rules, byte_ids, scratch):
    """Merge one chunk; its ids are the first of scratch.ids, their number is returned."""
    ids, ranks = scratch.ids, scratch.ranks
    new_ids = scratch.following
    for k in range(length):
        ids[k] = byte_ids[data[start + k]]
    n = length
    for k in range(n - 1):
        ranks[k], new_ids[k] = find_rule(rules, ids[k], ids[k + 1])
    while n > 1:
        best = 0
        for k in range(1, n - 1):
            if ranks[k] < ranks[best]:
                best = k
        if ranks[best] == _NO_RULE:
            break
        ids[best] = new_ids[best]
        for k in range(best + 1, n - 1):
            ids[k] = ids[k + 1]
            ranks[k], new_ids[k] = ranks[k + 1], new_ids[k + 1]
        n -= 1
        if best > 0:
            ranks[best - 1], new_ids[best - 1] = find_rule(rules, ids[best - 1], ids[best])
        if best + 1 < n:
            ranks[best], new_ids[best] = find_rule(rules, ids[best], ids[best + 1])
    return n


@kernel(allocates=False)
def merge_long(data, start, length, rules, byte_ids, scratch):
    """Like `merge_short`, with a linked list of tokens and a heap of (rank, place)."""
    ids, ranks, following, previous = (
        scratch.ids,
        scratch.ranks,
        scratch.following,
        scratch.previous,
    )
    heap = scratch.heap
    for k in range(length):
        ids[k] = byte_ids[data[start + k]]
        following[k] = k + 1
        previous[k] = k - 1
    ranks[length - 1] = _NO_RULE
    size = 0
    for k in range(length - 1):
        size = rank_pair(k, length, rules, scratch, size)
    while size > 0:
        place = heap[0] & 0xFFFFFFFF
        rank = heap[0] >> 32
        size = pop(heap, size)
        if ranks[place] != rank:
            continue  # one of the two has been merged with another since
        right = np.int64(following[place])
        _, ids[place] = find_rule(rules, ids[place], ids[right])
        ranks[right] = _NO_RULE
        after = np.int64(following[right])
        following[place] = after
        if after < length:
            previous[after] = place
        size = rank_pair(place, length, rules, scratch, size)
        if place > 0:
            size = rank_pair(np.int64(previous[place]), length, rules, scratch, size)
    n = 0
    place = 0
    while place < length:
        ids[n] = ids[place]
        n += 1
        place = np.int64(following[place])
    return n


@kernel(allocates=False)
def rank_pair(place, length, rules, scratch, size):
    """Put the pair that begins at a place into the heap, if it has a rule; returns its new size."""
    right = np.int64(scratch.following[place])
    rank = _NO_RULE
    if right < length:
        rank, _ = find_rule(rules, scratch.ids[place], scratch.ids[right])
    scratch.ranks[place] = rank
    if rank == _NO_RULE:
        return size
    return push(scratch.heap, size, np.int64(rank) << 32 | place)


@kernel(allocates=False)
def push(heap, size, entry):
    """Add an entry to a binary heap, the smallest on top; returns its new size."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent] <= entry:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = entry
    return size + 1


@kernel(allocates=False)
def pop(heap, size):
    """Remove the entry on top; returns the new size."""
    size -= 1
    entry = heap[size]
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = entry
    return size
