"""Capturing and replaying, with a double of CUDA's graphs (tests/graphs.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from folio.training.accelerated.graph import N_WARMUPS, CudaGraphed
from tests.graphs import Graph, graphs


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    with graphs(monkeypatch) as found:
        yield found


class Sums:
    """Adds squares up, and counts its calls."""

    def __init__(self) -> None:
        self.total, self.n_calls = torch.zeros(3), 0

    def __call__(self, x: Tensor) -> None:
        self.n_calls += 1
        self.total.add_((x * x).sum(0))


def test_a_shape_that_comes_again_is_captured_and_then_replayed(captured: list[Graph]):
    sums = Sums()
    graphed = CudaGraphed(sums, [sums.total])
    xs = torch.randn(5, 4, 3)
    for i, x in enumerate(xs):
        graphed(x)
        torch.testing.assert_close(sums.total, (xs[: i + 1] ** 2).sum((0, 1)))
    # The first; to compare, to warm up, and to capture.
    assert sums.n_calls == 1 + 1 + N_WARMUPS + 1
    assert [graph.n_replays for graph in captured] == [1 + 4]


def test_what_need_not_run_before_is_captured_at_once(captured: list[Graph]):
    sums = Sums()
    graphed, x = CudaGraphed(sums), torch.randn(4, 3)
    for _ in range(4):
        graphed(x)
    torch.testing.assert_close(sums.total, 4 * (x * x).sum(0))
    assert sums.n_calls == 2 and captured[0].n_replays == 3


def test_a_shape_that_comes_once_runs_as_it_is_written(captured: list[Graph]):
    sums = Sums()
    graphed = CudaGraphed(sums, [sums.total])
    for n in (1, 2, 3):
        graphed(torch.ones(n, 3))
    assert sums.n_calls == 3 and not captured and sums.total.tolist() == [6, 6, 6]
    graphed(torch.ones(2, 3))
    assert len(captured) == 1 and sums.total.tolist() == [8, 8, 8]


def test_what_cannot_be_captured_is_told_once_and_runs_as_it_is_written(
    captured: list[Graph], capfd: pytest.CaptureFixture[str]
):
    sums = Sums()

    def waiting(x: Tensor) -> None:
        sums(x * x.max().item() / x.max().item())

    graphed = CudaGraphed(waiting, [sums.total])
    for _ in range(4):
        graphed(torch.ones(2, 3))
    assert sums.total.tolist() == [8, 8, 8] and not captured
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "not captured as a CUDA graph" in said
    assert "not permitted when stream is capturing" in said


def test_a_replay_that_computes_something_else_is_refused(
    captured: list[Graph], capfd: pytest.CaptureFixture[str]
):
    sums = Sums()

    def changing(x: Tensor) -> None:  # a number of the processor is baked into the capture
        sums(x * sums.n_calls)

    graphed = CudaGraphed(changing, [sums.total])
    for _ in range(3):
        graphed(torch.ones(1, 3))
    assert "a replay is off by" in capfd.readouterr().err
    assert not graphed.captured


def test_memory_that_runs_out_is_for_the_caller_and_changes_nothing(captured: list[Graph]):
    sums = Sums()

    def full(x: Tensor) -> None:
        sums(x)
        if sums.n_calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    graphed = CudaGraphed(full, [sums.total])
    graphed(torch.ones(2, 3))
    with pytest.raises(torch.OutOfMemoryError):
        graphed(torch.ones(2, 3))
    assert sums.total.tolist() == [2, 2, 2]


def test_what_cannot_be_compiled_is_captured_as_it_is_written(
    captured: list[Graph], capfd: pytest.CaptureFixture[str]
):
    sums = Sums()

    def broken(x: Tensor) -> None:
        raise RuntimeError("no compiler")

    graphed = CudaGraphed(sums, [sums.total], compiled=broken)
    for _ in range(3):
        graphed(torch.ones(2, 3))
    assert sums.total.tolist() == [6, 6, 6] and len(captured) == 1
    said = capfd.readouterr().err
    assert said == "torch.compile failed, so the step is not compiled (RuntimeError: no compiler)\n"


def test_a_compiled_version_is_captured_and_compared(captured: list[Graph]):
    sums, calls = Sums(), []

    def compiled(x: Tensor) -> None:
        calls.append(len(x))
        sums.total.add_((x * x).sum(0))

    graphed = CudaGraphed(sums, [sums.total], compiled)
    for _ in range(4):
        graphed(torch.ones(2, 3))
    assert sums.n_calls == 2 and calls == [2] * (N_WARMUPS + 1)
    assert sums.total.tolist() == [8, 8, 8]


def test_masks_are_those_that_would_have_been_drawn(captured: list[Graph]):
    totals = []
    for is_graphed in (False, True):
        torch.manual_seed(0)
        total = torch.zeros(50)

        def draw(x: Tensor, total: Tensor = total) -> None:
            total.add_(torch.nn.functional.dropout(x, 0.5).sum(0))

        call = CudaGraphed(draw, [total]) if is_graphed else draw
        for _ in range(4):
            call(torch.ones(3, 50))
        totals.append(total)
    assert torch.equal(*totals)


def test_a_processor_captures_nothing():
    sums = Sums()
    graphed = CudaGraphed(sums, [sums.total])
    for _ in range(4):
        graphed(torch.ones(2, 3))
    assert sums.n_calls == 4
