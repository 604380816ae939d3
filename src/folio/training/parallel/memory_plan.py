"""Plans the memory of a captured step: tensors that are never live together share memory.

During capture, memory is allocated and freed as always; what is recorded is the buffer of each
tensor, and thus from which call to which a buffer is live. Afterwards all buffers are placed in one
arena, each in the first gap that is free for as long, so that the arena is hardly longer than what
is live at once. Compilers do the same: Pisarchyk and Lee 2020, https://arxiv.org/abs/2001.03288.
Tensors that are finally concatenated are written where the result will be.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map

LINE_BYTES = 64
"""Size of a cache line; buffers are aligned to it."""


class Call(NamedTuple):
    """An operation or a kernel, with its tensors and arrays as they are, or as the `BufferView` of
    each.
    """

    function: Callable[..., Any]
    args: Any
    named: dict[str, Any]


@dataclass(frozen=True)
class BufferView:
    """The position of a tensor or an array in a buffer, and its layout."""

    buffer: int
    offset: int
    """Bytes from the beginning of the buffer."""
    dtype: Any
    """The dtype, torch's or numpy's."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Strides, in numbers for torch and in bytes for numpy."""


class LiveRange(NamedTuple):
    """The calls between which a buffer is needed."""

    first: int
    last: int
    n_bytes: int


class Allocation(NamedTuple):
    """The memory assigned to a buffer."""

    arena: Tensor
    """The tensor it is part of, which is contiguous."""
    offset: int
    """Start of the buffer in bytes."""


class Buffers:
    """The buffers that were allocated during a capture."""

    def __init__(self) -> None:
        self.n_bytes: list[int] = []
        """Size of each buffer."""
        self._starts: list[int] = []  # addresses of buffers that may be in use, ascending
        self._known: list[tuple[int, StorageWeakRef]] = []  # the buffer at each of them

    def add(self, x: Tensor) -> None:
        """Record the memory of a new tensor as a buffer."""
        storage = x.untyped_storage()
        start, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        # Whatever was at this address is no longer in use.
        first = bisect_right(self._starts, start)
        if first and self._end(first - 1) > start:
            first -= 1
        last = first
        while last < len(self._starts) and self._starts[last] < end:
            last += 1
        self._starts[first:last] = [start]
        self._known[first:last] = [(len(self.n_bytes), StorageWeakRef(storage))]
        self.n_bytes.append(storage.nbytes())

    def view_of(self, x: Any) -> Any:
        """Return the `BufferView` of a tensor or array in one of the buffers; anything else
        unchanged.
        """
        if isinstance(x, Tensor):
            return self._view_at(x.data_ptr(), x, x.stride())
        if isinstance(x, np.ndarray):
            array = cast("NDArray[Any]", x)
            return self._view_at(array.ctypes.data, array, array.strides)
        return x

    def _view_at(
        self, address: int, x: Tensor | NDArray[Any], strides: tuple[int, ...]
    ) -> BufferView | Tensor | NDArray[Any]:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._end(at) or self._known[at][1].expired():
            return x
        buffer = self._known[at][0]
        return BufferView(buffer, address - self._starts[at], x.dtype, tuple(x.shape), strides)

    def live_ranges(self, calls: Sequence[Call], output: Any) -> dict[int, LiveRange]:
        """Return the live ranges of the buffers in use, ordered by first call; the output's ends
        last.
        """
        ranges: dict[int, LiveRange] = {}
        for number, arguments in enumerate([*(call[1:] for call in calls), output]):
            for view in tree_leaves(arguments):
                if isinstance(view, BufferView):
                    first = ranges[view.buffer].first if view.buffer in ranges else number
                    ranges[view.buffer] = LiveRange(first, number, self.n_bytes[view.buffer])
        return ranges

    def _end(self, at: int) -> int:
        return self._starts[at] + self.n_bytes[self._known[at][0]]


def plan_memory(ranges: Sequence[LiveRange]) -> tuple[list[int], int]:
    """Give each buffer an offset in one arena.

    Args:
        ranges: in the order of their first calls.

    Returns:
        The offsets, and the length of the arena, in bytes.
    """
    offsets: list[int] = []
    length = 0
    held: list[tuple[int, int, int]] = []  # begin, end and last call of live buffers, by begin
    for live in ranges:
        held = [other for other in held if other[2] >= live.first]
        begin = 0
        for other_begin, other_end, _ in held:
            if begin + live.n_bytes <= other_begin:
                break
            begin = max(begin, -(-other_end // LINE_BYTES) * LINE_BYTES)
        offsets.append(begin)
        held = sorted([*held, (begin, begin + live.n_bytes, live.last)])
        length = max(length, begin + live.n_bytes)
    return offsets, length


def without_concatenation(
    calls: Sequence[Call], buffers: Buffers
) -> tuple[Sequence[Call], dict[int, Allocation]]:
    """Write tensors to where the last call would concatenate them, if it does that.

    Returns:
        The calls, where copies of what must be copied replace the last one, and the allocations of
        the buffers that need no copy.
    """
    if not calls or calls[-1].function is not torch.ops.aten.cat.out:
        return calls, {}
    parts, out = calls[-1].args[0], calls[-1].named["out"]
    if isinstance(out, BufferView) or out.stride() != (1,):
        return calls, {}
    copies: list[Call] = []
    allocations: dict[int, Allocation] = {}
    end = 0
    for part in parts:
        length = math.prod(part.shape)
        slot = out[end : end + length]
        if (
            isinstance(part, BufferView)
            and part.buffer not in allocations
            and (part.dtype, part.strides) == (out.dtype, (1,))
            and slot.nbytes == buffers.n_bytes[part.buffer]
        ):
            allocations[part.buffer] = Allocation(out, end * out.itemsize)
        else:
            copies.append(Call(torch.ops.aten.copy_.default, (slot, part), {}))
        end += length
    return [*calls[:-1], *copies], allocations


def allocate(x: Any, allocations: dict[int, Allocation]) -> Any:
    """Replace all `BufferView`s in a tree by tensors and arrays."""

    def allocate_one(x: Any) -> Any:
        if not isinstance(x, BufferView):
            return x
        arena, offset = allocations[x.buffer]
        offset += x.offset
        if isinstance(x.dtype, torch.dtype):
            empty = torch.empty(0, dtype=x.dtype)
            first = int(arena.storage_offset()) * arena.itemsize + offset
            storage = arena.untyped_storage()
            return empty.set_(storage, first // x.dtype.itemsize, x.shape, x.strides)
        return np.ndarray(x.shape, x.dtype, arena.view(torch.uint8).numpy(), offset, x.strides)

    return tree_map(allocate_one, x)
