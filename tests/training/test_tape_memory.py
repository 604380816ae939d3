"""The row of memory that the tensors of a tape share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef

from folio.fast import functions
from folio.training.tape import Taped
from folio.training.tape_memory import LINE_BYTES, Call, Home, Life, Pieces, Place, lay_out, put

LIVES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 300)))


@given(LIVES)
def test_what_is_needed_at_the_same_time_lies_apart(drawn: list[tuple[int, int, int]]):
    lives = sorted(Life(first, first + more, n) for first, more, n in drawn)
    offsets, length = lay_out(lives)
    assert all(offset % LINE_BYTES == 0 for offset in offsets)
    assert length == max((o + life.n_bytes for o, life in zip(offsets, lives)), default=0)
    for i, (a, life) in enumerate(zip(offsets, lives)):
        for b, other in zip(offsets[:i], lives):
            if other.last >= life.first:  # the other was first
                assert a + life.n_bytes <= b or b + other.n_bytes <= a


def test_what_is_not_needed_any_more_makes_room():
    lives = [Life(i, i + 1, 100) for i in range(50)]
    assert lay_out(lives)[1] == 128 + 100
    small_between = [Life(0, 9, 64), Life(0, 1, 640), Life(0, 9, 64), Life(2, 9, 640)]
    assert lay_out(small_between) == ([0, 64, 704, 64], 768)


def test_a_place_is_found_by_tensors_views_and_arrays_and_nothing_else():
    pieces = Pieces()
    x, other = torch.arange(12, dtype=torch.int32), torch.arange(12)
    pieces.add(torch.ones(7))
    pieces.add(x)
    view = x.view(3, 4)[1:, ::2]
    assert pieces.place(x) == Place(1, 0, torch.int32, (12,), (1,))
    assert pieces.place(view) == Place(1, 16, torch.int32, (2, 2), (4, 2))
    assert pieces.place(view.numpy()) == Place(1, 16, np.dtype("int32"), (2, 2), (16, 8))
    assert pieces.place(other) is other
    assert pieces.place("x") == "x"
    assert pieces.place(torch.empty(0)).numel() == 0


def test_memory_that_was_given_back_is_not_found_though_others_take_it():
    pieces = Pieces()
    kept = []
    for _ in range(100):
        x = torch.empty(1000)
        pieces.add(x)
        address = x.data_ptr()
        del x
        y = torch.empty(1000)
        if y.data_ptr() == address:
            break
        kept.append(y)
    assert y.data_ptr() == address
    assert pieces.place(y) is y
    pieces.add(y)
    assert pieces.place(y).piece == len(kept) + 1


def test_tensors_and_arrays_are_put_into_the_row():
    pieces = Pieces()
    x = torch.zeros(6, dtype=torch.int16)
    pieces.add(x)
    places = [pieces.place(y) for y in (x, x.view(2, 3)[1], x.numpy()[1:])]
    row = torch.zeros(100, dtype=torch.uint8)
    calls = [Call(print, (places, 5), {"sep": places[1]})]
    ((_, ((whole, part, array), five), named),) = put(calls, {0: Home(row[10:], 54)})
    whole.copy_(torch.arange(1, 7))
    assert row.view(torch.int16)[32:38].tolist() == [1, 2, 3, 4, 5, 6]
    assert part.tolist() == [4, 5, 6] == named["sep"].tolist()
    assert array.tolist() == [2, 3, 4, 5, 6]
    assert five == 5


def test_a_chain_of_operations_takes_the_memory_of_two():
    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            x = x + 1
        return x

    taped = Taped(function)
    for start in (0.0, 7.0):
        assert (taped(torch.full((1000,), start)) == start + 50).all()
    assert 8000 <= len(taped._row) < 8000 + 2 * LINE_BYTES


def test_while_a_step_is_written_down_its_memory_is_given_back():
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        memory = StorageWeakRef(y.untyped_storage())
        z = y * 2
        del y
        assert memory.expired()
        return z

    assert Taped(function)(torch.ones(3)).tolist() == [4, 4, 4]


def test_what_a_function_keeps_stays_as_it_was():
    kept: list[torch.Tensor] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        kept.append(x + 1)
        return (x + 2) * (x + 3)

    taped = Taped(function)
    for value in (0.0, 1.0, 2.0):
        assert taped(torch.full((3,), value))[0] == (value + 2) * (value + 3)
    assert [x.tolist() for x in kept] == [[1, 1, 1]]


def test_all_tapes_of_a_function_share_one_row():
    calls: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return (x + 1) * 2

    taped = Taped(function)
    for n in (10, 1000, 10, 1000, 10):
        assert (taped(torch.full((n,), float(n))) == 2 * n + 2).all()
    assert calls == [10, 1000, 10], "those in a shorter row are written down once more"
    taped.forget()
    assert len(taped._row) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_put_side_by_side_is_made_there(dtype: torch.dtype):
    pytest.importorskip("numba")
    row, outside = torch.zeros(30, dtype=dtype), torch.full((2,), 9, dtype=dtype)

    def parts_of(x: torch.Tensor) -> list[torch.Tensor]:
        alone, twice, wide = x + 1, x + 2, (x + 3).repeat(2)
        parts = [alone, twice, wide[:3], outside, twice, functions.Add.apply(x, alone)]
        return [*parts, x.view(1, 4).repeat(2, 1).t()]

    def function(x: torch.Tensor) -> torch.Tensor:
        parts = parts_of(x)
        total = parts[0].sum()
        torch.cat([part.flatten() for part in parts], out=row[1:30])
        return total

    taped = Taped(function)
    for value in (1.0, 2.0, 3.0):
        x = torch.tensor([value, 0, 1, 2], dtype=dtype)
        assert taped(x) == value + 7
        expected = torch.cat([part.flatten() for part in parts_of(x)])
        assert torch.equal(row[1:], expected) and row[0] == 0
        row.zero_()
    (recording,) = taped.recordings.values()
    copied = [
        c.args[0] for c in recording.tape._calls if c.function is torch.ops.aten.copy_.default
    ]
    assert [len(place) for place in copied if place.dim() == 1] == [3, 2, 4]
