"""The operations of a step, written down once and played again.

A step of a small model spends a fifth of its time on what comes between the operations:
modules that call each other, autograd that builds a graph and walks it, memory that is asked
for. But the operations are the same in each step. A tape keeps them, with tensors in place that
they read and write; to play it is one call for each. These are the same operations on the
same numbers in the same order, so they give the same bytes.

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

from folio.device import return_freed_memory
from folio.fast import calls
from folio.training.tape_memory import Call, Home, Pieces, gathered, lay_out, put

MOST_BYTES = 160_000_000
"""Of a tape's memory. Where a step takes more, what comes between its operations is little."""
NOT_REPEATABLE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Operations whose outcome a program can look at, to go another way the next time."""
UNWRITTEN = ("aten::empty", "aten::new_empty")
"""Operations that only hand out memory, which a tape has already."""
OF_NEW_MEMORY = {"dtype", "layout", "device", "pin_memory", "memory_format"}
"""Arguments of an operation that its form for given memory does without."""


class Recording(NamedTuple):
    """A tape with its two ends."""

    given: tuple[Tensor, ...]
    tape: Tape
    found: Tensor


class Taped:
    """A function of tensors on a processor that does the same to each of one shape.

    It may change tensors of its own, and draw from generators, but must not depend on numbers
    outside of tensors that change between calls.
    """

    def __init__(self, function: Callable[..., Tensor], most_bytes: int = MOST_BYTES) -> None:
        self.function, self.most_bytes = function, most_bytes
        self.recordings: dict[tuple[torch.Size, ...], Recording] = {}
        self._row = torch.empty(0, dtype=torch.uint8)

    def __call__(self, *given: Tensor) -> Tensor:
        """As the function; what it returns is overwritten by the next call."""
        shapes = tuple(x.shape for x in given)
        recording = self.recordings.get(shapes)
        if recording is None and given[0].device.type == "cpu":
            given = tuple(x.clone() for x in given)
            with Tape() as tape:
                found = self.function(*given)
            self.recordings[shapes] = Recording(given, tape, tape.settle(found, self._take_row))
            return found
        if recording is None or not recording.tape.complete:
            return self.function(*given)
        for place, x in zip(recording.given, given):
            place.copy_(x)
        recording.tape.play()
        return recording.found

    def _take_row(self, n_bytes: int) -> Tensor | None:
        """Memory for a tape, if so much is allowed; one plays at a time, so all share it."""
        if n_bytes > self.most_bytes:
            return None
        if n_bytes > len(self._row):
            self.forget()
            return_freed_memory()  # of the step that was written down
            self._row = torch.empty(n_bytes, dtype=torch.uint8)
        return self._row

    def forget(self) -> None:
        """Give back the memory of all tapes."""
        self.recordings.clear()
        self._row = torch.empty(0, dtype=torch.uint8)


class Tape(TorchDispatchMode):
    """Writes down what is computed while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.complete = True
        """Whether it can be played."""
        self._calls: list[Call] = []
        self._pieces = Pieces()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would load its compiler, for a second and 80 MB."""
        return False

    def play(self) -> None:
        """All again, into the same tensors."""
        with torch.no_grad():
            for function, args, named in self._calls:
                function(*args, **named)

    def settle(self, found: Tensor, take_row: Callable[[int], Tensor | None]) -> Tensor:
        """Once it is written, give its tensors memory.

        Args:
            found: the outcome of what was written.
            take_row: number of bytes -> as many or more, or None, which makes it incomplete.

        Returns:
            Where the outcome will be once it is played.
        """
        if not self.complete:
            return found
        place = self._pieces.place(found)
        calls, homes = gathered(self._calls, self._pieces)
        lives = self._pieces.lives(calls, place)
        inside = {piece: life for piece, life in lives.items() if piece not in homes}
        offsets, n_bytes = lay_out(list(inside.values()))
        if (row := take_row(n_bytes)) is None:
            self._give_up()
            return found
        homes |= {piece: Home(row, offset) for piece, offset in zip(inside, offsets)}
        self._calls, found = put((calls, place), homes)
        return found

    def __enter__(self) -> Tape:
        self._token = calls.listener.set(self._write)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        calls.listener.reset(self._token)

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute, and write down what takes no part of autograd."""
        named = kwargs or {}
        found = function(*args, **named)
        if self.complete:
            self._note(function, args, named, found)
        return found

    def _note(self, function: OpOverload, args: Any, named: dict[str, Any], found: Any) -> None:
        if any(tag in function.tags for tag in NOT_REPEATABLE):
            self._give_up()
        elif function._schema.is_mutable:
            self._write(function, args, named)
        elif new := _new_tensors(found, (args, named)):
            for x in new:
                self._pieces.add(x)
            if not function.name().startswith(UNWRITTEN):
                self._write(*_into(function, args, named, new))

    def _write(
        self, function: Callable[..., Any], args: Any, named: dict[str, Any] | None = None
    ) -> None:
        if self.complete:
            places = tree_map(self._pieces.place, (args, named or {}))
            self._calls.append(Call(function, *places))

    def _give_up(self) -> None:
        self.complete = False
        self._calls.clear()


def _new_tensors(found: Any, given: Any) -> list[Tensor]:
    """Those in memory of their own; the others are views, which stay as they are."""
    known = {x.untyped_storage().data_ptr() for x in tree_leaves(given) if isinstance(x, Tensor)}
    tensors = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
    return [x for x in tensors if x.untyped_storage().data_ptr() not in known]


def _into(
    function: OpOverload, args: Any, named: dict[str, Any], places: list[Tensor]
) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
    """The operation in its form that writes into given tensors."""
    if function.name() in ("aten::clone", "aten::_to_copy"):
        return torch.ops.aten.copy_.default, (places[0], args[0]), {}
    needed = _inputs(function)
    for overload in function.overloadpacket.overloads():
        form = getattr(function.overloadpacket, overload)
        outs = [argument.name for argument in form._schema.arguments if argument.is_out]
        if len(outs) == len(places) and _inputs(form) == needed:
            takes = {argument.name for argument in form._schema.arguments}
            kept = {name: value for name, value in named.items() if name in takes}
            return form, args, {**kept, **dict(zip(outs, places))}
    return _copy_into, (places, function, args, named), {}


def _inputs(function: OpOverload) -> set[tuple[str, str]]:
    """Names and types."""
    return {
        (argument.name, str(argument.type))
        for argument in function._schema.arguments
        if not argument.is_out and argument.name not in OF_NEW_MEMORY
    }


def _copy_into(places: list[Tensor], function: OpOverload, args: Any, named: Any) -> None:
    for place, x in zip(places, tree_leaves(function(*args, **named))):
        place.copy_(x)
