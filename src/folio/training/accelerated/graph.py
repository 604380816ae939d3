"""A function whose kernels are captured as a CUDA graph, and replayed by one call.

A step of a small model consists of hundreds of kernels, each of which takes Python longer to start
than the GPU to compute. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs says what
may be captured: no waiting, no numbers of the processor that change, and tensors that never move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from folio.accelerator import ran_out_of_memory, random_states, set_random_states
from folio.console import say
from folio.training.gradients import total_norm

N_WARMUPS = 3
"""Calls on a side stream before a capture, as torch advises: libraries allocate and choose."""

TOLERANCE = 0.05
"""Largest difference of what a capture leaves from what the function does, relative to its
norm: in bfloat16, compiled kernels, and atomic additions in another order, stay below 0.03."""


class CudaGraphed:
    """A function of tensors that returns nothing, and leaves its results in tensors of its own.

    The first call of a shape runs it; the second captures it, and from then on it is replayed.
    Whatever fails while it is captured is told once, and the function runs as it is written; so it
    does while somebody listens, since a replay calls no hooks.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        changes: Sequence[Tensor] = (),
        compiled: Callable[..., Any] | None = None,
        has_listeners: Callable[[], bool] = lambda: False,
    ) -> None:
        """Capture nothing yet.

        Args:
            function: reads its arguments, and tensors that never move.
            changes: what it adds to, if it must run before it is captured, as what autograd calls
                must; that is put back, and what a replay adds is compared.
            compiled: a faster version, to be captured in its place.
            has_listeners: called each time; if True, the function itself runs.
        """
        self.function, self.changes, self.faster = function, changes, compiled or function
        self.has_listeners = has_listeners
        self.is_compiled, self.is_usable = compiled is not None, True
        self.seen: set[tuple[torch.Size, ...]] = set()
        self.captured: dict[tuple[torch.Size, ...], Callable[..., None]] = {}

    def __call__(self, *given: Tensor) -> None:
        """Run the function, or a capture of it."""
        if self.has_listeners():
            self.function(*given)
            return
        shapes = tuple(x.shape for x in given)
        if shapes not in self.captured:
            if shapes not in self.seen or not self.is_usable or not can_capture(given[0].device):
                self.seen.add(shapes)
                self.function(*given)
                return
            self._try_to_capture(shapes, given)
        self.captured.get(shapes, self.function)(*given)

    def reset(self) -> None:
        """Free what captures hold: the memory of a whole step."""
        self.captured.clear()

    def compare(self, *given: Tensor) -> None:
        """Compare what a capture leaves with what the function leaves, if there is one; what they
        change is put back.

        Raises:
            ArithmeticError: they differ by more than TOLERANCE.
        """
        shapes = tuple(x.shape for x in given)
        if shapes in self.captured and not self.has_listeners():
            self._compare(self.captured[shapes], given)

    def _compare(self, call: Callable[..., None], given: Sequence[Tensor]) -> None:
        put_back, found = self._keep(given[0].device), list[list[Tensor]]()
        for each in (self.function, call):
            for x in self.changes:
                x.zero_()
            each(*given)
            found.append([x.to("cpu", copy=True) for x in self.changes])
            put_back()
        for x, y in zip(*found):
            off, norm = (float(total_norm([z])) for z in (x - y, x))
            if not off <= TOLERANCE * norm:
                raise ArithmeticError(f"a replay is off by {off:.3g} of {norm:.3g}")

    def _keep(self, device: torch.device) -> Callable[[], None]:
        """Keep what the function changes, and the random state; returns what puts both back."""
        random = random_states(device)
        before = [x.to("cpu", copy=True) for x in self.changes]  # the device may be full

        def put_back() -> None:
            set_random_states(random, device)
            for x, old in zip(self.changes, before):
                x.copy_(old)

        return put_back

    def _try_to_capture(self, shapes: tuple[torch.Size, ...], given: Sequence[Tensor]) -> None:
        put_back = self._keep(given[0].device)
        try:
            self.captured[shapes] = self._capture([x.clone() for x in given], put_back)
        except Exception as error:
            put_back()
            if ran_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
            if self.is_compiled:
                self.faster, self.is_compiled = self.function, False
                say(f"torch.compile failed, so the step is not compiled ({reason})")
                self._try_to_capture(shapes, given)
            else:
                self.is_usable = False
                say(f"the step is not captured as a CUDA graph, and slower for it ({reason})")

    def _capture(self, own: list[Tensor], put_back: Callable[[], None]) -> Callable[..., None]:
        """Capture the function with arguments of its own, which never move."""
        if self.changes:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(N_WARMUPS):
                    self.faster(*own)
            torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.faster(*own)

        def replay(*given: Tensor) -> None:
            for x, new in zip(own, given):
                x.copy_(new)
            graph.replay()

        if self.changes:
            put_back()
            self._compare(replay, own)
        return replay


def can_capture(device: torch.device) -> bool:
    """Whether a device has graphs."""
    return device.type == "cuda"
