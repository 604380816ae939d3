"""Capture and replay: the operations of a step, recorded once and run again without Python.

A step of a small model spends a fifth of its time between operations: in calls of modules, in
building and walking autograd's graph, in allocations. But the operations are the same in each step.
A captured step keeps them with the tensors that they read and write; a replay is one call for each.
These are the same operations on the same numbers in the same order, so they give the same bytes.

CUDA graphs do the same on accelerators:
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from folio.fast import calls
from folio.training.parallel.memory_plan import (
    Allocation,
    Buffers,
    Call,
    allocate,
    plan_memory,
    without_concatenation,
)
from folio.workers import trim_memory

MAX_BYTES = 160_000_000
"""Largest memory of a captured step. In a larger one the time between operations matters little."""
NOT_REPEATABLE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Operations whose result a program can look at, to take another path next time."""
NOT_RECORDED = ("aten::empty", "aten::new_empty")
"""Operations that only allocate memory, which a captured step already has."""
OF_NEW_MEMORY = {"dtype", "layout", "device", "pin_memory", "memory_format"}
"""Arguments that an operation does not take in its out= form."""


class Graph(NamedTuple):
    """What was captured for inputs of certain shapes."""

    inputs: tuple[Tensor, ...]
    """The tensors from which the operations read their inputs."""
    capture: Capture
    output: Tensor


class CapturedStep:
    """A function of tensors on the CPU, captured at its first call for each shape.

    It may change its own tensors and draw from generators, but must not depend on Python numbers
    that change between calls.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        max_bytes: int = MAX_BYTES,
        has_listeners: Callable[[], bool] = lambda: False,
    ) -> None:
        """Capture nothing yet.

        Args:
            function: inputs -> output, all tensors.
            max_bytes: largest memory of a capture; 0 runs the function each time.
            has_listeners: called each time; if True, the function itself runs, since a replay calls
                no hooks.
        """
        self.function, self.max_bytes, self.has_listeners = function, max_bytes, has_listeners
        self.graphs: dict[tuple[torch.Size, ...], Graph] = {}
        self._arena = torch.empty(0, dtype=torch.uint8)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute the function; the next call overwrites the output."""
        if self.has_listeners():
            return self.function(*inputs)
        shapes = tuple(x.shape for x in inputs)
        graph = self.graphs.get(shapes)
        if graph is None:
            inputs = tuple(x.clone() for x in inputs)
            with Capture() as capture:
                output = self.function(*inputs)
            self.graphs[shapes] = Graph(inputs, capture, capture.finish(output, self._make_arena))
            return output
        if not graph.capture.can_replay:
            return self.function(*inputs)
        for kept, x in zip(graph.inputs, inputs):
            kept.copy_(x)
        graph.capture.replay()
        return graph.output

    def gave_up(self, n_rows: int) -> bool:
        """Whether inputs of so many rows were too large to capture."""
        of = [graph for shapes, graph in self.graphs.items() if shapes[0][:1] == (n_rows,)]
        return bool(of) and not any(graph.capture.can_replay for graph in of)

    def _make_arena(self, n_bytes: int) -> Tensor | None:
        """Return memory for a graph, if that much is allowed; all graphs share it, since one
        replays at a time.
        """
        if n_bytes > self.max_bytes:
            return None
        if n_bytes > len(self._arena):
            self.reset()
            trim_memory()  # memory of the captured step
            self._arena = torch.empty(n_bytes, dtype=torch.uint8)
        return self._arena

    def reset(self) -> None:
        """Forget all graphs, and release their memory."""
        self.graphs.clear()
        self._arena = torch.empty(0, dtype=torch.uint8)


class Capture(TorchDispatchMode):
    """Records the operations that run within this context."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.can_replay = True
        self._calls: list[Call] = []
        self._buffers = Buffers()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: otherwise torch would load its compiler, which takes a second and 80 MB."""
        return False

    def replay(self) -> None:
        """Run all calls again, on the same tensors."""
        with torch.no_grad():
            for function, args, named in self._calls:
                function(*args, **named)

    def finish(self, output: Tensor, make_arena: Callable[[int], Tensor | None]) -> Tensor:
        """Assign memory to all tensors, once everything is recorded.

        Args:
            output: the output of what was recorded.
            make_arena: number of bytes -> as many or more, or None if there must be no replay.

        Returns:
            Where the output will be after a replay.
        """
        if not self.can_replay:
            return output
        view = self._buffers.view_of(output)
        calls, allocations = without_concatenation(self._calls, self._buffers)
        ranges = self._buffers.live_ranges(calls, view)
        inside = {buffer: live for buffer, live in ranges.items() if buffer not in allocations}
        offsets, n_bytes = plan_memory(list(inside.values()))
        if (arena := make_arena(n_bytes)) is None:
            self._give_up()
            return output
        allocations |= {b: Allocation(arena, offset) for b, offset in zip(inside, offsets)}
        self._calls, output = allocate((calls, view), allocations)
        return output

    def __enter__(self) -> Capture:
        self._token = calls.listener.set(self._record)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # pyright: ignore[reportUnknownMemberType]
        calls.listener.reset(self._token)

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and record it below autograd."""
        named: dict[str, Any] = kwargs or {}
        found = function(*args, **named)
        if self.can_replay:
            self._take_in(function, args, named, found)
        return found

    def _take_in(self, function: OpOverload, args: Any, named: dict[str, Any], found: Any) -> None:
        if any(tag in function.tags for tag in NOT_REPEATABLE):
            self._give_up()
        elif _schema(function).is_mutable:
            self._record(function, args, named)
        elif new := _new_tensors(found, (args, named)):
            for x in new:
                self._buffers.add(x)
            if not function.name().startswith(NOT_RECORDED):
                self._record(*_out_form(function, args, named, new))

    def _record(
        self, function: Callable[..., Any], args: Any, named: dict[str, Any] | None = None
    ) -> None:
        if self.can_replay:
            views = tree_map(self._buffers.view_of, (args, named or {}))
            self._calls.append(Call(function, *views))

    def _give_up(self) -> None:
        self.can_replay = False
        self._calls.clear()


def _new_tensors(found: Any, given: Any) -> list[Tensor]:
    """Return the tensors with memory of their own; the others are views, which stay as they are."""
    known = {x.untyped_storage().data_ptr() for x in tree_leaves(given) if isinstance(x, Tensor)}
    tensors = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
    return [x for x in tensors if x.untyped_storage().data_ptr() not in known]


def _out_form(
    function: OpOverload, args: Any, named: dict[str, Any], outs: list[Tensor]
) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
    """Return the operation in its out= form, which writes to given tensors."""
    if function.name() in ("aten::clone", "aten::_to_copy"):
        return torch.ops.aten.copy_.default, (outs[0], args[0]), {}
    needed = _inputs(function)
    for overload in function.overloadpacket.overloads():
        form = getattr(function.overloadpacket, overload)
        names = [argument.name for argument in _schema(form).arguments if argument.is_out]
        if len(names) == len(outs) and _inputs(form) == needed:
            takes = {argument.name for argument in _schema(form).arguments}
            kept = {name: value for name, value in named.items() if name in takes}
            return form, args, {**kept, **dict(zip(names, outs))}
    return _copy_into, (outs, function, args, named), {}


def _inputs(function: OpOverload) -> set[tuple[str, str]]:
    """Return names and types of an operation's arguments."""
    return {
        (argument.name, str(argument.type))
        for argument in _schema(function).arguments
        if not argument.is_out and argument.name not in OF_NEW_MEMORY
    }


def _schema(function: OpOverload) -> torch.FunctionSchema:
    return vars(function)["_schema"]


def _copy_into(outs: list[Tensor], function: OpOverload, args: Any, named: Any) -> None:
    for out, x in zip(outs, tree_leaves(function(*args, **named))):
        out.copy_(x)
