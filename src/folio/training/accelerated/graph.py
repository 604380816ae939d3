"""A function whose kernels are recorded as a CUDA graph, and replayed by one call.

A step of a small model consists of hundreds of kernels, each of which takes Python longer to start
than the GPU to compute. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs says what
may be recorded: no waiting, no numbers of the processor that change, and tensors that never move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from folio.accelerator import ran_out_of_memory, random_states, set_random_states
from folio.console import say

WARM_UPS = 3
"""Calls on a side stream before a recording, as torch advises: libraries allocate and choose."""

TOLERANCE = 0.05
"""Largest difference of what a recording leaves from what the function does, relative to its
length: in bfloat16, compiled kernels, and atomic additions in another order, stay below 0.03."""


class Graphed:
    """A function of tensors that returns nothing, and leaves its results in tensors of its own.

    The first call of a shape runs it; the second records it, and from then on it is replayed.
    Whatever fails while it is recorded is told once, and the function runs as it is written.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        changes: Sequence[Tensor] = (),
        compiled: Callable[..., Any] | None = None,
    ) -> None:
        """Record nothing yet.

        Args:
            function: reads its arguments, and tensors that never move.
            changes: what it changes, if it must run before it is recorded, as what autograd calls
                must; it is put back, and what a replay makes of it is compared.
            compiled: a faster version, to be recorded in its place.
        """
        self.function, self.changes, self.faster = function, changes, compiled or function
        self.is_compiled, self.is_usable = compiled is not None, True
        self.seen: set[tuple[torch.Size, ...]] = set()
        self.recorded: dict[tuple[torch.Size, ...], Callable[..., None]] = {}

    def __call__(self, *given: Tensor) -> None:
        """Run the function, or a recording of it."""
        shapes = tuple(x.shape for x in given)
        if shapes not in self.recorded:
            if shapes not in self.seen or not self.is_usable or not can_record(given[0].device):
                self.seen.add(shapes)
                self.function(*given)
                return
            self._try_to_record(shapes, given)
        self.recorded.get(shapes, self.function)(*given)

    def forget(self) -> None:
        """Free what recordings hold: the memory of a whole step."""
        self.recorded.clear()

    def _try_to_record(self, shapes: tuple[torch.Size, ...], given: Sequence[Tensor]) -> None:
        random = random_states(given[0].device)
        before = [x.to("cpu", copy=True) for x in self.changes]  # the device may be full

        def put_back() -> None:
            set_random_states(random, given[0].device)
            for x, old in zip(self.changes, before):
                x.copy_(old)

        try:
            self.recorded[shapes] = self._record([x.clone() for x in given], put_back)
        except Exception as error:
            put_back()
            if ran_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
            if self.is_compiled:
                self.faster, self.is_compiled = self.function, False
                say(f"torch.compile failed, so the step is not compiled ({reason})")
                self._try_to_record(shapes, given)
            else:
                self.is_usable = False
                say(f"the step is not recorded as a CUDA graph, and slower for it ({reason})")

    def _record(self, own: list[Tensor], put_back: Callable[[], None]) -> Callable[..., None]:
        """Record the function with arguments of its own, which never move."""
        if self.changes:
            self.function(*own)
            expected = [x.to("cpu", copy=True) for x in self.changes]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    self.faster(*own)
            torch.cuda.current_stream().wait_stream(side)
            put_back()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.faster(*own)

        def replay(*given: Tensor) -> None:
            for x, new in zip(own, given):
                x.copy_(new)
            graph.replay()

        if self.changes:
            put_back()
            replay(*own)
            require_near([x.cpu() for x in self.changes], expected)
            put_back()
        return replay


def can_record(device: torch.device) -> bool:
    """Whether a device has graphs."""
    return device.type == "cuda"


def require_near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare what a recording left with what the function left.

    Raises:
        ArithmeticError: they differ by more than TOLERANCE.
    """
    for x, y in zip(found, expected):
        off, length = (x - y).norm().item(), y.norm().item()
        if not off <= TOLERANCE * length:
            raise ArithmeticError(f"a replay is off by {off:.3g} of {length:.3g}")
