"""The kernels of `encode`: look up a chunk among those seen before, or merge it.

Short chunks are merged by searching for the best pair again after each merge, which is quadratic
but fastest up to `SHORT` bytes; longer ones with a heap in O(n log n), so that a million equal
letters or text without spaces does no harm. Both merge the pair of lowest rank, the leftmost of
equals, one at a time.
"""

from __future__ import annotations

import numpy as np

from folio.jit import kernel
from folio.tokenizers.bpe.chunk_table import chunk_key, find_slot, store_words
from folio.tokenizers.bpe.split import next_cut

SHORT = 48
"""In bytes; a longer chunk is merged with a heap, and not remembered."""

_NO_RULE = np.int32(0x7FFFFFFF)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ZERO, _HALF = np.uint64(0), np.uint64(32)

DONE, MEMO_FULL, CHUNK_TOO_LONG = 0, 1, 2
# Entries of `sizes`: chunks and words in the memo, remembered ids; next text, next byte, ids
# written; the length of a chunk.
N_CHUNKS, N_WORDS, N_IDS, TEXT, BYTE, N_OUT, CHUNK_BYTES = 0, 1, 2, 3, 4, 5, 6


@kernel(allocates=False)
def fill_rules(pairs, new_ids, slots):
    """Put the rules into a hash table; of two for the same pair the last one wins."""
    for rank in range(len(pairs)):
        key = rule_key(pairs[rank, 0], pairs[rank, 1])
        slot = rule_slot(slots, key)
        slots[slot, 0] = key
        slots[slot, 1] = np.uint64(rank) << _HALF | np.uint64(new_ids[rank])


@kernel(allocates=False)
def rule_key(left, right):
    """A pair of ids as one nonzero number."""
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
    """The rank of a pair and the id that it is merged into."""
    slot = rule_slot(rules, rule_key(left, right))
    if rules[slot, 0] == _ZERO:
        return _NO_RULE, np.int32(-1)
    return np.int32(rules[slot, 1] >> _HALF), np.int32(rules[slot, 1] & np.uint64(0xFFFFFFFF))


@kernel(allocates=False)
def encode_texts(data, words, ends, classes, pattern, vocabulary, memo, scratch, out, out_ends):
    """Encode the texts that end at `ends`, until all are done or memo or scratch is too small."""
    sizes = memo.sizes
    text, position, n_out = sizes[TEXT], sizes[BYTE], sizes[N_OUT]
    outcome = DONE
    while text < len(ends) and outcome == DONE:
        stop = ends[text]
        while position < stop:
            cut = next_cut(data, position, stop, classes, pattern)
            length = cut - position
            if length > len(scratch.ids):
                sizes[CHUNK_BYTES] = length
                outcome = CHUNK_TOO_LONG
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
                    sizes[N_CHUNKS] == len(memo.starts)
                    or sizes[N_WORDS] + SHORT > len(memo.arena)
                    or sizes[N_IDS] + SHORT > len(memo.ids)
                ):
                    outcome = MEMO_FULL
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
    sizes[TEXT], sizes[BYTE], sizes[N_OUT] = text, position, n_out
    return outcome


@kernel(allocates=False)
def remember(memo, slot, key, words, position, length, ids, n_ids):
    """Put a chunk and its ids into the memo."""
    sizes = memo.sizes
    chunk = sizes[N_CHUNKS]
    memo.slots[slot, 0] = key
    memo.slots[slot, 1] = np.uint64(chunk)
    memo.starts[chunk] = sizes[N_WORDS]
    memo.lengths[chunk] = length
    store_words(words, position, length, memo.arena, sizes[N_WORDS])
    memo.spans[chunk] = sizes[N_IDS] << 8 | n_ids
    for k in range(n_ids):
        memo.ids[sizes[N_IDS] + k] = ids[k]
    sizes[N_CHUNKS] += 1
    sizes[N_WORDS] += (length + 7) >> 3
    sizes[N_IDS] += n_ids


@kernel(allocates=False)
def encode_chunk(data, words, start, length, vocabulary, scratch):
    """Write the ids of one chunk to the start of scratch.ids; returns their number."""
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
def put_bytes(data, start, length, byte_ids, ids):
    """Write the ids of those bytes that the vocabulary has; returns their number."""
    n = 0
    for k in range(length):
        token_id = byte_ids[data[start + k]]
        if token_id >= 0:
            ids[n] = token_id
            n += 1
    return n


@kernel(allocates=False)
def merge_short(data, start, length, rules, byte_ids, scratch):
    """Merge one chunk, and write its ids to the start of scratch.ids; returns their number."""
    ids, ranks = scratch.ids, scratch.ranks
    new_ids = scratch.following
    n = put_bytes(data, start, length, byte_ids, ids)
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
    """Like `merge_short`, with a linked list of tokens and a heap of (rank, position)."""
    ids, ranks, following, previous = (
        scratch.ids,
        scratch.ranks,
        scratch.following,
        scratch.previous,
    )
    heap = scratch.heap
    length = put_bytes(data, start, length, byte_ids, ids)
    for k in range(length):
        following[k] = k + 1
        previous[k] = k - 1
    if length > 0:
        ranks[length - 1] = _NO_RULE
    size = 0
    for k in range(length - 1):
        size = rank_pair(k, length, rules, scratch, size)
    while size > 0:
        place = heap[0] & 0xFFFFFFFF
        rank = heap[0] >> 32
        size = pop(heap, size)
        if ranks[place] != rank:
            continue  # stale: one of the two has been merged meanwhile
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
    """Push the pair that begins at a position onto the heap, if it has a rule; returns its new
    size.
    """
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
    """Push an entry onto a binary min-heap; returns its new size."""
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
    """Remove the smallest entry; returns the new size."""
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
