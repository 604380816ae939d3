"""Learns the same merges as `reference.learn_merges`, with work only where a pair changes.

The distinct chunks are concatenated in one row of bytes. Each position knows which pair begins
there, so a merge at a position finds both neighbouring pairs, corrects their counts (weighted by
how often the chunk occurs) and makes two new ones, without any search:

    row      h  u  g  s        merge (u, g) -> ug, at the u:     h  ug    s
    pair at  hu ug gs -                                 h+ug  ug+s  -  -

Each pair keeps a list of the positions where it began; stale entries are skipped when the list is
used. A heap yields the most frequent pair; counts of pairs in it only fall, so a pair that comes up
with a stale count is pushed back with the current one. Pairs below `floor` are counted but have
neither a list nor an entry in the heap: most pairs are rare and never merged. When the heap is
empty the floor is lowered and the lists are rebuilt.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from folio.errors import UserError
from folio.jit import kernel
from folio.tokenizers.bpe.count import ChunkCounts

N_BYTES = 256
NO_PAIR = -1

# Columns of `pairs`: left << 32 | right, which also breaks ties; number of occurrences.
_KEY, _COUNT = 0, 1
# Columns of `cells`: the pair that begins at a position; the width of the token, at its last byte;
# the chunk.
_PAIR, _WIDTH, _CHUNK = 0, 1, 2
# Columns of `lists`: where the positions of a pair begin in `positions`; how many there are.
_START, _LENGTH = 0, 1
# Entries of `sizes`: how much of each array is in use, and how many new pairs the next merge may
# create.
_N_MERGES, _N_PAIRS, _N_POSITIONS, _HEAP_SIZE, _NEEDED = 0, 1, 2, 3, 4

_DONE, _HEAP_EMPTY, _NO_ROOM = 0, 1, 2


class Learned(NamedTuple):
    """The result of training."""

    merges: np.ndarray
    """(n, 2) int32: the ids of each merged pair, in the order learned; merge k makes 256 + k."""

    counts: np.ndarray
    """(n,) int64: how often each pair occurred when it was merged."""


def learn_merges(chunks: ChunkCounts, n_merges: int) -> Learned:
    """Repeatedly merge the most frequent pair; there are fewer merges where no pair is left.

    Args:
        chunks: the distinct chunks of the training text.
        n_merges: how many merges to learn: the vocabulary size without bytes and special tokens.

    Raises:
        UserError: the distinct chunks exceed 2 GiB.
    """
    n_cells = int(chunks.lengths[: len(chunks)].sum())
    if n_cells >= 1 << 31:
        raise UserError(
            f"The distinct words of the text have {n_cells:,} bytes together; {(1 << 31) - 1:,} is "
            f"the most. Learn the vocabulary from a part of it, or take out what is not text."
        )
    work = _Work.for_text(chunks, n_cells, n_merges)
    pair_of_bytes = np.full((N_BYTES, N_BYTES), NO_PAIR, np.int32)
    find_byte_pairs(
        chunks.arena.view(np.uint8), chunks.starts, chunks.lengths, len(chunks), pair_of_bytes, work
    )
    n_pairs_in_text = int(work.pairs[: work.sizes[_N_PAIRS], _COUNT].sum())
    floor = 1 + n_pairs_in_text // (16 * n_merges + 1)
    list_pairs(floor, work)
    while True:
        outcome = merge_pairs(n_merges, floor, work)
        if outcome == _NO_ROOM:
            work = work.grown()
        elif outcome == _HEAP_EMPTY and floor > 1:
            floor = 1 + floor // 8
            list_pairs(floor, work)
        else:
            break
    n_learned = int(work.sizes[_N_MERGES])
    return Learned(work.merges[:n_learned], work.merge_counts[:n_learned])


class _Work(NamedTuple):
    """The arrays that the kernels work on."""

    merges: np.ndarray  # (n_merges, 2) int32
    merge_counts: np.ndarray  # (n_merges,) int64
    token_widths: np.ndarray  # (vocab_size,) int32: bytes of each token
    # (vocab_size,) int32 each: during a merge that makes c, the new pairs (left, c) and (c, right)
    pair_with_left: np.ndarray
    pair_with_right: np.ndarray
    chunk_counts: np.ndarray  # (n_chunks,) int64
    cells: np.ndarray  # (n_cells, 3) int32: one for each position
    pairs: np.ndarray  # (capacity, 2) int64
    lists: np.ndarray  # (capacity, 2) int64
    heap: np.ndarray  # (capacity, 2) int64: count, pair
    positions: np.ndarray  # (capacity,) int32
    found: np.ndarray  # (capacity, 2) int32: during a merge, new pairs and their positions
    sizes: np.ndarray  # (5,) int64

    @classmethod
    def for_text(cls, chunks: ChunkCounts, n_cells: int, n_merges: int) -> _Work:
        vocab_size = N_BYTES + n_merges
        capacity = N_BYTES * N_BYTES + n_cells // 2
        return cls(
            merges=np.empty((n_merges, 2), np.int32),
            merge_counts=np.empty(n_merges, np.int64),
            token_widths=np.ones(vocab_size, np.int32),
            pair_with_left=np.full(vocab_size, NO_PAIR, np.int32),
            pair_with_right=np.full(vocab_size, NO_PAIR, np.int32),
            chunk_counts=chunks.counts,
            cells=np.empty((n_cells, 3), np.int32),
            pairs=np.empty((capacity, 2), np.int64),
            lists=np.empty((capacity, 2), np.int64),
            heap=np.empty((capacity, 2), np.int64),
            positions=np.empty(2 * n_cells, np.int32),
            found=np.empty((n_cells // 4, 2), np.int32),
            sizes=np.zeros(5, np.int64),
        )

    def grown(self) -> _Work:
        """Return a copy with room for the next merge, and for twice what is in use."""
        needed = int(self.sizes[_NEEDED])

        def larger(array: np.ndarray, in_use: int) -> np.ndarray:
            if in_use + needed <= len(array):
                return array
            copy = np.empty((2 * in_use + needed, *array.shape[1:]), array.dtype)
            copy[:in_use] = array[:in_use]
            return copy

        return self._replace(
            pairs=larger(self.pairs, int(self.sizes[_N_PAIRS])),
            lists=larger(self.lists, int(self.sizes[_N_PAIRS])),
            heap=larger(self.heap, int(self.sizes[_HEAP_SIZE])),
            positions=larger(self.positions, int(self.sizes[_N_POSITIONS])),
            found=larger(self.found, 0),
        )


@kernel(allocates=False)
def find_byte_pairs(arena, starts, lengths, n_chunks, pair_of_bytes, work):
    """Concatenate the chunks and count their pairs."""
    cells, pairs, sizes = work.cells, work.pairs, work.sizes
    n_pairs = 0
    cell = 0
    for chunk in range(n_chunks):
        count = work.chunk_counts[chunk]
        start = starts[chunk] << 3
        for offset in range(lengths[chunk]):
            pair = np.int32(NO_PAIR)
            if offset + 1 < lengths[chunk]:
                left, right = np.int64(arena[start + offset]), np.int64(arena[start + offset + 1])
                pair = pair_of_bytes[left, right]
                if pair == NO_PAIR:
                    pair = np.int32(n_pairs)
                    pair_of_bytes[left, right] = pair
                    pairs[pair, _KEY] = left << 32 | right
                    pairs[pair, _COUNT] = 0
                    n_pairs += 1
                pairs[pair, _COUNT] += count
            cells[cell, _PAIR] = pair
            cells[cell, _WIDTH] = 1
            cells[cell, _CHUNK] = chunk
            cell += 1
    sizes[_N_PAIRS] = n_pairs


@kernel(allocates=False)
def list_pairs(floor, work):
    """Rebuild the lists of positions and the heap, for pairs that occur at least `floor` times."""
    cells, pairs, lists, sizes = work.cells, work.pairs, work.lists, work.sizes
    sizes[_HEAP_SIZE] = 0
    for pair in range(sizes[_N_PAIRS]):
        lists[pair, _LENGTH] = 0
    for cell in range(len(cells)):
        if cells[cell, _PAIR] != NO_PAIR:
            lists[cells[cell, _PAIR], _LENGTH] += 1
    n_positions = 0
    for pair in range(sizes[_N_PAIRS]):
        lists[pair, _START] = n_positions
        if pairs[pair, _COUNT] >= floor:
            n_positions += lists[pair, _LENGTH]
            push(work.heap, sizes, pairs, pairs[pair, _COUNT], pair)
        lists[pair, _LENGTH] = 0
    sizes[_N_POSITIONS] = n_positions
    for cell in range(len(cells)):
        pair = cells[cell, _PAIR]
        if pair != NO_PAIR and pairs[pair, _COUNT] >= floor:
            work.positions[lists[pair, _START] + lists[pair, _LENGTH]] = cell
            lists[pair, _LENGTH] += 1


@kernel(allocates=False)
def merge_pairs(n_merges, floor, work):
    """Merge until all merges are learned, no pair occurs `floor` times, or an array is full."""
    pairs, heap, sizes = work.pairs, work.heap, work.sizes
    while sizes[_N_MERGES] < n_merges:
        if sizes[_HEAP_SIZE] == 0:
            return _HEAP_EMPTY
        pair = heap[0, _PAIR_IN_HEAP]
        count = pairs[pair, _COUNT]
        if count < floor:
            pop(heap, sizes, pairs)
        elif count < heap[0, _COUNT_IN_HEAP]:
            heap[0, _COUNT_IN_HEAP] = count
            sift_down(heap, sizes[_HEAP_SIZE], pairs)
        else:
            needed = 2 * work.lists[pair, _LENGTH]
            if (
                sizes[_N_PAIRS] + needed > len(pairs)
                or sizes[_HEAP_SIZE] + needed > len(heap)
                or sizes[_N_POSITIONS] + needed > len(work.positions)
                or needed > len(work.found)
            ):
                sizes[_NEEDED] = needed
                return _NO_ROOM
            pop(heap, sizes, pairs)
            merge_pair(pair, count, floor, work)
    return _DONE


@kernel(allocates=False)
def merge_pair(pair, count, floor, work):
    """Give a pair a new id wherever it occurs."""
    cells, pairs, lists, sizes = work.cells, work.pairs, work.lists, work.sizes
    new_id = N_BYTES + sizes[_N_MERGES]
    left_id, right_id = pairs[pair, _KEY] >> 32, pairs[pair, _KEY] & 0xFFFFFFFF
    work.merges[sizes[_N_MERGES], 0] = left_id
    work.merges[sizes[_N_MERGES], 1] = right_id
    work.merge_counts[sizes[_N_MERGES]] = count
    sizes[_N_MERGES] += 1
    left_width = work.token_widths[left_id]
    width = left_width + work.token_widths[right_id]
    work.token_widths[new_id] = width

    first_new = sizes[_N_PAIRS]
    n_found = 0
    list_start = lists[pair, _START]
    for k in range(list_start, list_start + lists[pair, _LENGTH]):
        left = np.int64(work.positions[k])
        if cells[left, _PAIR] != pair:
            continue
        right = left + left_width
        weight = work.chunk_counts[cells[left, _CHUNK]]

        if left > 0:
            before = left - cells[left - 1, _WIDTH]
            old = cells[before, _PAIR]
            if old != NO_PAIR:
                pairs[old, _COUNT] -= weight
                other = pairs[old, _KEY] >> 32
                new = new_pair(work.pair_with_left, other, other << 32 | new_id, work)
                pairs[new, _COUNT] += weight
                cells[before, _PAIR] = new
                work.found[n_found, 0], work.found[n_found, 1] = new, before
                n_found += 1

        old = cells[right, _PAIR]
        new = np.int32(NO_PAIR)
        if old != NO_PAIR:
            pairs[old, _COUNT] -= weight
            other = pairs[old, _KEY] & 0xFFFFFFFF
            new = new_pair(work.pair_with_right, other, new_id << 32 | other, work)
            pairs[new, _COUNT] += weight
            work.found[n_found, 0], work.found[n_found, 1] = new, left
            n_found += 1
        cells[right, _PAIR] = NO_PAIR
        cells[left, _PAIR] = new
        cells[left + width - 1, _WIDTH] = width

    pairs[pair, _COUNT] = 0  # it no longer occurs
    list_found(first_new, n_found, new_id, floor, work)


@kernel(allocates=False)
def new_pair(pair_with, other, key, work):
    """The pair of the new token and `other`, created on first use."""
    pair = pair_with[other]
    if pair == NO_PAIR:
        pair = np.int32(work.sizes[_N_PAIRS])
        pair_with[other] = pair
        work.pairs[pair, _KEY] = key
        work.pairs[pair, _COUNT] = 0
        work.lists[pair, _LENGTH] = 0
        work.sizes[_N_PAIRS] += 1
    work.lists[pair, _LENGTH] += 1
    return pair


@kernel(allocates=False)
def list_found(first_new, n_found, new_id, floor, work):
    """Give the new pairs lists and entries in the heap, if they are frequent enough."""
    pairs, lists, sizes = work.pairs, work.lists, work.sizes
    for pair in range(first_new, sizes[_N_PAIRS]):
        left_id, right_id = pairs[pair, _KEY] >> 32, pairs[pair, _KEY] & 0xFFFFFFFF
        if right_id == new_id:
            work.pair_with_left[left_id] = NO_PAIR
        else:
            work.pair_with_right[right_id] = NO_PAIR
        lists[pair, _START] = sizes[_N_POSITIONS]
        if pairs[pair, _COUNT] >= floor:
            sizes[_N_POSITIONS] += lists[pair, _LENGTH]
            push(work.heap, sizes, pairs, pairs[pair, _COUNT], pair)
        lists[pair, _LENGTH] = 0
    for k in range(n_found):
        pair = work.found[k, 0]
        if pairs[pair, _COUNT] >= floor:
            work.positions[lists[pair, _START] + lists[pair, _LENGTH]] = work.found[k, 1]
            lists[pair, _LENGTH] += 1


# The heap: a binary tree in an array, the most frequent pair on top, ties by the smaller key.
_COUNT_IN_HEAP, _PAIR_IN_HEAP = 0, 1


@kernel(allocates=False)
def goes_first(count, pair, other_count, other_pair, pairs):
    """Whether a pair is merged before another one."""
    return count > other_count or (
        count == other_count and pairs[pair, _KEY] < pairs[other_pair, _KEY]
    )


@kernel(allocates=False)
def push(heap, sizes, pairs, count, pair):
    """Add a pair to the heap."""
    place = sizes[_HEAP_SIZE]
    sizes[_HEAP_SIZE] += 1
    while place > 0:
        parent = (place - 1) >> 1
        if not goes_first(count, pair, heap[parent, 0], heap[parent, 1], pairs):
            break
        heap[place, 0], heap[place, 1] = heap[parent, 0], heap[parent, 1]
        place = parent
    heap[place, 0], heap[place, 1] = count, pair


@kernel(allocates=False)
def pop(heap, sizes, pairs):
    """Remove the most frequent pair."""
    last = sizes[_HEAP_SIZE] - 1
    sizes[_HEAP_SIZE] = last
    heap[0, 0], heap[0, 1] = heap[last, 0], heap[last, 1]
    sift_down(heap, last, pairs)


@kernel(allocates=False)
def sift_down(heap, size, pairs):
    """Move the top entry down to its position."""
    count, pair = heap[0, 0], heap[0, 1]
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and goes_first(
            heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1], pairs
        ):
            child += 1
        if not goes_first(heap[child, 0], heap[child, 1], count, pair, pairs):
            break
        heap[place, 0], heap[place, 1] = heap[child, 0], heap[child, 1]
        place = child
    heap[place, 0], heap[place, 1] = count, pair
