"""The distinct chunks of a text, numbered: an open-addressing hash table over bytes, for kernels.

Everything is read in words of 8 bytes. A chunk of up to 7 bytes is its own key (the bytes, and
the length on top), so most look-ups compare one number and touch nothing else; a longer one has a
hash with the top bit set as its key, and its bytes are compared. Assumption: little-endian, as
every machine that numba runs on.
"""

from __future__ import annotations

import numpy as np

from folio.jit import kernel

_FULL_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)
_HASHED = np.uint64(1 << 63)
_MULTIPLIER = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 / golden ratio: spreads neighbouring keys (Knuth, TAOCP 3, 6.4)
_ZERO, _THREE, _SEVEN = np.uint64(0), np.uint64(3), np.uint64(7)
_HALF, _WORD_BITS, _LENGTH_SHIFT = np.uint64(32), np.uint64(64), np.uint64(56)


def padded(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes as uint8 and as uint64 words, zero-padded so that no load leaves them."""
    room = data + bytes(16 - len(data) % 8)
    return np.frombuffer(room, np.uint8)[: len(data)], np.frombuffer(room, np.uint64)


@kernel(allocates=False)
def load_word(words, position):
    """The 8 bytes that begin at a byte position, aligned or not."""
    place = np.uint64(position)
    shift = (place & _SEVEN) << _THREE
    low = words[np.int64(place >> _THREE)] >> shift
    if shift == _ZERO:
        return low
    return low | words[np.int64(place >> _THREE) + 1] << (_WORD_BITS - shift)


@kernel(allocates=False)
def first_bytes(word, n_bytes):
    """The word with all but its first 0 to 8 bytes set to zero."""
    if n_bytes >= 8:
        return word
    return word & ~(_FULL_WORD << (np.uint64(n_bytes) << _THREE))


@kernel(allocates=False)
def chunk_key(words, start, length):
    """A key that is unique for short chunks and nearly unique for long ones; never 0."""
    if length < 8:
        return first_bytes(load_word(words, start), length) | np.uint64(length) << _LENGTH_SHIFT
    key = np.uint64(length)
    for offset in range(0, length, 8):
        word = first_bytes(load_word(words, start + offset), length - offset)
        key = (key ^ word) * _MULTIPLIER
        key ^= key >> _HALF
    return key | _HASHED


@kernel(allocates=False)
def find_slot(slots, key, words, start, length, arena, starts, lengths):
    """The slot of the chunk, or the empty slot where it belongs.

    Args:
        slots: (capacity, 2) uint64, capacity a power of two: a key (0: empty) and the number of a
            chunk. key: `chunk_key` of the chunk. words, start, length: the chunk itself, a byte
            position and a length in bytes. arena, starts, lengths: words of the chunks in the
            table; where chunk k begins, in words; its length in bytes.
    """
    mask = len(slots) - 1
    slot = np.int64((key * _MULTIPLIER) >> _HALF) & mask
    while slots[slot, 0] != _ZERO:
        if slots[slot, 0] == key:
            chunk = np.int64(slots[slot, 1])
            if length < 8 or (
                lengths[chunk] == length and same_words(words, start, length, arena, starts[chunk])
            ):
                return slot
        slot = (slot + 1) & mask
    return slot


@kernel(allocates=False)
def same_words(words, start, length, arena, arena_start):
    """Whether the bytes at a byte position equal those at a position in the arena."""
    for offset in range(0, length, 8):
        word = first_bytes(load_word(words, start + offset), length - offset)
        if word != arena[arena_start + (offset >> 3)]:
            return False
    return True


@kernel(allocates=False)
def store_words(words, start, length, arena, arena_start):
    """Copy the bytes at a byte position to the arena, the last word padded with zeros."""
    for offset in range(0, length, 8):
        arena[arena_start + (offset >> 3)] = first_bytes(
            load_word(words, start + offset), length - offset
        )
