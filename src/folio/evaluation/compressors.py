"""Compresses a text that follows another, as a baseline: compressors learn while they read.

The size of a text is that of both compressed minus that of the first compressed, in bits. A model's
*exact* loss does not learn from the test text, so the two numbers have different names.
"""

from __future__ import annotations

import importlib.util
import lzma
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from folio.tokens.text import Bytes

PPMD_ORDER = 6
PPMD_ORDER_LONG = 16
PPMD_ORDERS = PPMD_ORDER, PPMD_ORDER_LONG
"""The longer one is better for sources and documentation that repeat themselves, and for pieces
that do not help each other."""
PPMD_MEMORY = 1 << 30
"""In bytes, at most."""
PPMD_READS = 128 << 20
"""In bytes; of the first text only the end is read, until the table of contexts is full."""
XZ_READS = 16 << 20
"""In bytes; xz looks back 64 MB at most, and needs a second for two of them."""
CHUNK = 1 << 20


def xz_bits(before: Bytes, text: Bytes, goes_on: Callable[[], bool] = lambda: True) -> int:
    """Compressed size in bits of a text after another, by xz at its slowest setting.

    Args:
        before: the first text, of which the last XZ_READS bytes are read.
        text: what is compressed.
        goes_on: called once per megabyte; after False the result is meaningless.
    """
    before = before[-XZ_READS:]
    both = len(before) + len(text)
    # A window of the text's size finds all matches, and takes less memory than the usual 64 MB.
    window = min(max(1 << (both - 1).bit_length(), 1 << 16), 1 << 26)
    preset = 9 | lzma.PRESET_EXTREME

    def size(*texts: Bytes) -> int:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": window}]
        encoder = lzma.LZMACompressor(filters=filters)
        return sum(len(encoder.compress(chunk)) for chunk in _chunks(texts, goes_on)) + len(
            encoder.flush()
        )

    return 8 * (size(before, text) - size(before))


def ppmd_bits(
    before: Bytes,
    text: Bytes,
    goes_on: Callable[[], bool] = lambda: True,
    order: int = PPMD_ORDER,
) -> int:
    """Compressed size in bits of a text after another, by PPMd (variant H, as in 7-Zip), to a byte
    or two.

    Args:
        before: the first text, of which the last PPMD_READS bytes are read.
        text: what is compressed.
        goes_on: as in `xz_bits`.
        order: longest context in bytes.
    """
    import pyppmd

    encoder = _ppmd_after(before, goes_on, order)
    # Output comes as soon as it is known, so the first text need not be compressed alone; what is
    # still buffered is as much as an empty text leaves.
    ends = len(pyppmd.Ppmd7Encoder(order, 1 << 16).flush())
    sizes = [len(encoder.encode(chunk)) for chunk in _chunks((text,), goes_on)]
    return 8 * (sum(sizes) + len(encoder.flush()) - ends)


def ppmd_bits_apart(
    before: Bytes,
    pieces: Sequence[tuple[Bytes, Bytes]],
    goes_on: Callable[[], bool] = lambda: True,
    order: int = PPMD_ORDER_LONG,
) -> int:
    """Compressed size in bits of pieces of a text, of which none helps with another: each is read
    by a copy of a PPMd that has read the first text, in a process forked for it.

    Args:
        before: as in `ppmd_bits`.
        pieces: of each, what stands before it, which is known and not counted, and what is counted.
        goes_on: as in `xz_bits`.
        order: as in `ppmd_bits`.
    """
    encoder = _ppmd_after(before, goes_on, order)

    def size(*texts: Bytes) -> int:  # in a fork, in which other threads have ended
        sizes = [len(encoder.encode(chunk)) for chunk in _chunks(texts, lambda: True)]
        return sum(sizes) + len(encoder.flush())

    def added(known: Bytes, text: Bytes) -> int:
        return _in_a_fork(lambda: size(known, text)) - _in_a_fork(lambda: size(known))

    return 8 * sum(added(known, text) for known, text in pieces if goes_on())


def _ppmd_after(before: Bytes, goes_on: Callable[[], bool], order: int) -> Any:
    """A PPMd that has read the end of a text."""
    import pyppmd

    encoder = pyppmd.Ppmd7Encoder(order, PPMD_MEMORY)
    for chunk in _chunks((before[-PPMD_READS:],), goes_on):
        encoder.encode(chunk)
    return encoder


def _in_a_fork(work: Callable[[], int]) -> int:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: theirs.send(work()))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def has_ppmd() -> bool:
    """Whether the extra `baselines` is installed."""
    return importlib.util.find_spec("pyppmd") is not None


def _chunks(texts: tuple[Bytes, ...], goes_on: Callable[[], bool]) -> Iterator[bytes]:
    for text in texts:
        for first in range(0, len(text), CHUNK):
            if goes_on():
                yield np.asarray(text[first : first + CHUNK]).tobytes()
