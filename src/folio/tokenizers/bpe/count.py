"""Count the distinct chunks of texts of any length: split and count in one pass, on two threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from folio.device import cores
from folio.jit import kernel
from folio.tokenizers.bpe.chunk_table import chunk_key, find_slot, padded, store_words
from folio.tokenizers.bpe.patterns import check_pattern, safe_pieces
from folio.tokenizers.bpe.split import PATTERN_CODES, next_cut
from folio.tokenizers.bpe.unicode_classes import class_table

BATCH_BYTES = 1 << 20
"""How much text a thread counts at a time."""


class ChunkCounts:
    """The distinct chunks of a text and how often each occurs (64 bits).

    `arena` holds the chunks as zero-padded words of 8 bytes, chunk k from word `starts[k]`,
    `lengths[k]` bytes long.
    """

    def __init__(self, capacity: int = 1 << 17, arena_words: int = 1 << 17):
        self.slots = np.zeros((capacity, 2), np.uint64)
        self.counts = np.zeros(capacity // 2, np.int64)
        self.starts = np.empty(capacity // 2, np.int64)
        self.lengths = np.empty(capacity // 2, np.int64)
        self.arena = np.empty(arena_words, np.uint64)
        self.sizes = np.zeros(2, np.int64)  # chunks, words of the arena

    def __len__(self) -> int:
        """How many distinct chunks there are."""
        return int(self.sizes[0])

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays that kernels work on."""
        return self.slots, self.counts, self.starts, self.lengths, self.arena, self.sizes

    def count(self, texts: list[bytes], pattern: str) -> None:
        """Add the chunks of some texts; no chunk crosses from one text to the next."""
        data, words = padded(b"".join(texts))
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        place = np.zeros(2, np.int64)
        code = PATTERN_CODES[pattern]
        while not count_chunks(data, words, ends, place, class_table(), code, *self.arrays):
            self._grow(len(data))

    def add(self, other: ChunkCounts) -> None:
        """Add the chunks of another part of the text."""
        done = 0
        while done < len(other):
            done = add_chunks(
                other.arena,
                other.starts,
                other.lengths,
                other.counts,
                done,
                len(other),
                *self.arrays,
            )
            if done < len(other):
                self._grow(int(other.sizes[1]))

    @classmethod
    def from_mapping(cls, numbers: Mapping[bytes, int]) -> ChunkCounts:
        """Build a table from known chunks and their counts."""
        source = cls(capacity=2, arena_words=2)
        data = b"".join(chunk + bytes(-len(chunk) % 8) for chunk in numbers)
        source.arena = padded(data)[1]
        source.lengths = np.fromiter(map(len, numbers), np.int64, len(numbers))
        n_words = (source.lengths + 7) // 8
        source.starts = np.cumsum(n_words) - n_words
        source.counts = np.fromiter(numbers.values(), np.int64, len(numbers))
        source.sizes[:] = len(numbers), n_words.sum()
        table = cls(capacity=4 << len(numbers).bit_length(), arena_words=len(source.arena) + 1)
        table.add(source)
        return table

    def as_counter(self) -> Counter[bytes]:
        """The same as a dictionary, for tests and inspection."""
        data = self.arena.tobytes()
        spans = zip(self.starts.tolist(), self.lengths.tolist(), self.counts.tolist(), strict=True)
        chunks = [(data[8 * start : 8 * start + length], n) for start, length, n in spans if n]
        return Counter(dict(chunks[: len(self)]))

    def _grow(self, n_bytes: int) -> None:
        larger = ChunkCounts(4 * len(self.slots), 2 * len(self.arena) + n_bytes // 8 + 1)
        larger.add(self)
        self.__dict__ = larger.__dict__


def count_texts(
    texts: Iterable[str], pattern: str = "gpt2", *, n_threads: int | None = None
) -> ChunkCounts:
    """Count the chunks of some texts; memory holds only what is being counted.

    Give a text larger than memory as its `patterns.safe_pieces`.

    Args:
        texts: no chunk crosses from one to the next.
        pattern: a name in `patterns.PATTERNS`.
        n_threads: by default one per processor, at most two.
    """
    check_pattern(pattern)
    n_threads = n_threads or min(2, cores())
    tables = [ChunkCounts() for _ in range(n_threads)]
    with ThreadPoolExecutor(n_threads) as pool:
        running: list[Future[None] | None] = [None] * n_threads
        for number, batch in enumerate(_batches(texts)):
            thread = number % n_threads
            previous = running[thread]
            if previous is not None:
                previous.result()
            running[thread] = pool.submit(tables[thread].count, batch, pattern)
        for last in running:
            if last is not None:
                last.result()
    largest, *others = sorted(tables, key=len, reverse=True)
    for table in others:
        largest.add(table)
    return largest


def _batches(texts: Iterable[str]) -> Iterator[list[bytes]]:
    """Batches of texts as UTF-8; long texts are cut into safe pieces."""
    batch: list[bytes] = []
    n_bytes = 0
    for text in texts:
        for piece in [text] if len(text) <= BATCH_BYTES else safe_pieces([text], BATCH_BYTES):
            batch.append(piece.encode("utf-8", "surrogatepass"))
            n_bytes += len(batch[-1])
            if n_bytes >= BATCH_BYTES // 2:
                yield batch
                batch, n_bytes = [], 0
    if batch:
        yield batch


@kernel(allocates=False)
def count_chunks(
    data, words, ends, place, classes, pattern, slots, counts, starts, lengths, arena, sizes
):
    """Count the chunks of the texts that end at `ends`; False if the table is full.

    `place`, the next text and the next byte, then says where to resume.
    """
    text, position = place[0], place[1]
    full = False
    while text < len(ends) and not full:
        while position < ends[text]:
            cut = next_cut(data, position, ends[text], classes, pattern)
            length = cut - position
            if not add_chunk(
                words, position, length, 1, slots, counts, starts, lengths, arena, sizes
            ):
                full = True
                break
            position = cut
        if not full:
            text += 1
    place[0], place[1] = text, position
    return not full


@kernel(allocates=False)
def add_chunks(
    words,
    other_starts,
    other_lengths,
    other_counts,
    done,
    n_chunks,
    slots,
    counts,
    starts,
    lengths,
    arena,
    sizes,
):
    """Add chunks of another table from number `done` on; returns the number of the next one."""
    while done < n_chunks:
        start, length, count = other_starts[done] << 3, other_lengths[done], other_counts[done]
        if not add_chunk(words, start, length, count, slots, counts, starts, lengths, arena, sizes):
            break
        done += 1
    return done


@kernel(allocates=False)
def add_chunk(words, start, length, count, slots, counts, starts, lengths, arena, sizes):
    """Add `count` to one chunk; False if there is no room for a new one."""
    key = chunk_key(words, start, length)
    slot = find_slot(slots, key, words, start, length, arena, starts, lengths)
    if slots[slot, 0] != 0:
        counts[np.int64(slots[slot, 1])] += count
        return True
    chunk, n_words = sizes[0], sizes[1]
    end = n_words + ((length + 7) >> 3)
    if chunk == len(counts) or end + 1 > len(arena):  # a load reads one word past the end
        return False
    slots[slot, 0] = key
    slots[slot, 1] = np.uint64(chunk)
    counts[chunk] = count
    starts[chunk] = n_words
    lengths[chunk] = length
    store_words(words, start, length, arena, n_words)
    sizes[0] = chunk + 1
    sizes[1] = end
    return True
