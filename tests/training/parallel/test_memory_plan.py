"""The arena that the tensors of a captured step share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef

from folio.fast import functions
from folio.training.parallel.capture import CapturedStep
from folio.training.parallel.memory_plan import (
    LINE_BYTES,
    Allocation,
    Buffers,
    BufferView,
    Call,
    LiveRange,
    allocate,
    plan_memory,
)

RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 300)))


@given(RANGES)
def test_what_is_needed_at_the_same_time_lies_apart(drawn: list[tuple[int, int, int]]):
    ranges = sorted(LiveRange(first, first + more, n) for first, more, n in drawn)
    offsets, length = plan_memory(ranges)
    assert all(offset % LINE_BYTES == 0 for offset in offsets)
    assert length == max((o + live.n_bytes for o, live in zip(offsets, ranges)), default=0)
    for i, (a, live) in enumerate(zip(offsets, ranges)):
        for b, other in zip(offsets[:i], ranges):
            if other.last >= live.first:  # the other was first
                assert a + live.n_bytes <= b or b + other.n_bytes <= a


def test_what_is_not_needed_any_more_makes_room():
    ranges = [LiveRange(i, i + 1, 100) for i in range(50)]
    assert plan_memory(ranges)[1] == 128 + 100
    small_between = [
        LiveRange(0, 9, 64),
        LiveRange(0, 1, 640),
        LiveRange(0, 9, 64),
        LiveRange(2, 9, 640),
    ]
    assert plan_memory(small_between) == ([0, 64, 704, 64], 768)


def test_views_of_a_buffer_are_found_for_tensors_views_and_arrays_and_nothing_else():
    buffers = Buffers()
    x, other = torch.arange(12, dtype=torch.int32), torch.arange(12)
    buffers.add(torch.ones(7))
    buffers.add(x)
    view = x.view(3, 4)[1:, ::2]
    assert buffers.view_of(x) == BufferView(1, 0, torch.int32, (12,), (1,))
    assert buffers.view_of(view) == BufferView(1, 16, torch.int32, (2, 2), (4, 2))
    assert buffers.view_of(view.numpy()) == BufferView(1, 16, np.dtype("int32"), (2, 2), (16, 8))
    assert buffers.view_of(other) is other
    assert buffers.view_of("x") == "x"
    assert buffers.view_of(torch.empty(0)).numel() == 0


def test_memory_that_was_given_back_is_not_found_though_others_take_it():
    buffers = Buffers()
    kept = []
    for _ in range(100):
        x = torch.empty(1000)
        buffers.add(x)
        address = x.data_ptr()
        del x
        y = torch.empty(1000)
        if y.data_ptr() == address:
            break
        kept.append(y)
    assert y.data_ptr() == address
    assert buffers.view_of(y) is y
    buffers.add(y)
    assert buffers.view_of(y).buffer == len(kept) + 1


def test_tensors_and_arrays_are_allocated_in_the_arena():
    buffers = Buffers()
    x = torch.zeros(6, dtype=torch.int16)
    buffers.add(x)
    views = [buffers.view_of(y) for y in (x, x.view(2, 3)[1], x.numpy()[1:])]
    arena = torch.zeros(100, dtype=torch.uint8)
    calls = [Call(print, (views, 5), {"sep": views[1]})]
    ((_, ((whole, part, array), five), named),) = allocate(calls, {0: Allocation(arena[10:], 54)})
    whole.copy_(torch.arange(1, 7))
    assert arena.view(torch.int16)[32:38].tolist() == [1, 2, 3, 4, 5, 6]
    assert part.tolist() == [4, 5, 6] == named["sep"].tolist()
    assert array.tolist() == [2, 3, 4, 5, 6]
    assert five == 5


def test_a_chain_of_operations_takes_the_memory_of_two():
    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            x = x + 1
        return x

    captured = CapturedStep(function)
    for start in (0.0, 7.0):
        assert (captured(torch.full((1000,), start)) == start + 50).all()
    assert 8000 <= len(captured._arena) < 8000 + 2 * LINE_BYTES


def test_while_a_step_is_captured_its_memory_is_given_back():
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        memory = StorageWeakRef(y.untyped_storage())
        z = y * 2
        del y
        assert memory.expired()
        return z

    assert CapturedStep(function)(torch.ones(3)).tolist() == [4, 4, 4]


def test_what_a_function_keeps_stays_as_it_was():
    kept: list[torch.Tensor] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        kept.append(x + 1)
        return (x + 2) * (x + 3)

    captured = CapturedStep(function)
    for value in (0.0, 1.0, 2.0):
        assert captured(torch.full((3,), value))[0] == (value + 2) * (value + 3)
    assert [x.tolist() for x in kept] == [[1, 1, 1]]


def test_all_graphs_of_a_function_share_one_arena():
    calls: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return (x + 1) * 2

    captured = CapturedStep(function)
    for n in (10, 1000, 10, 1000, 10):
        assert (captured(torch.full((n,), float(n))) == 2 * n + 2).all()
    assert calls == [10, 1000, 10], "those in a shorter arena are captured once more"
    captured.reset()
    assert len(captured._arena) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_concatenated_is_made_where_it_ends_up(dtype: torch.dtype):
    pytest.importorskip("numba")
    arena, outside = torch.zeros(30, dtype=dtype), torch.full((2,), 9, dtype=dtype)

    def parts_of(x: torch.Tensor) -> list[torch.Tensor]:
        alone, twice, wide = x + 1, x + 2, (x + 3).repeat(2)
        parts = [alone, twice, wide[:3], outside, twice, functions.Add.apply(x, alone)]
        return [*parts, x.view(1, 4).repeat(2, 1).t()]

    def function(x: torch.Tensor) -> torch.Tensor:
        parts = parts_of(x)
        total = parts[0].sum()
        torch.cat([part.flatten() for part in parts], out=arena[1:30])
        return total

    captured = CapturedStep(function)
    for value in (1.0, 2.0, 3.0):
        x = torch.tensor([value, 0, 1, 2], dtype=dtype)
        assert captured(x) == value + 7
        expected = torch.cat([part.flatten() for part in parts_of(x)])
        assert torch.equal(arena[1:], expected) and arena[0] == 0
        arena.zero_()
    (graph,) = captured.graphs.values()
    copied = [c.args[0] for c in graph.capture._calls if c.function is torch.ops.aten.copy_.default]
    assert [len(place) for place in copied if place.dim() == 1] == [3, 2, 4]
