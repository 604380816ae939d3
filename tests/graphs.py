"""A double of CUDA's graphs on the processor: what is called while it captures is called again.

As on a GPU, capturing changes no tensor, and reading a number, which would wait, is an error. The
tensors that operations make while it captures are those into which a replay writes.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from folio.training.accelerated import graph as graph_module

WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")


class Graph(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []
        """Tensors that were written to, with what they held."""
        self.own: set[int] = set()
        """Addresses of the tensors that were made while capturing."""
        self.n_replays = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        for argument, given in zip(func._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = [x for x in tree_leaves(given) if isinstance(x, Tensor)]
                strange = [x for x in written if x.untyped_storage().data_ptr() not in self.own]
                self.before += [(x, x.clone()) for x in strange]
        found = func(*args, **kwargs)
        if not _is_view_or_in_place(func):
            self.own |= {x.untyped_storage().data_ptr() for x in tree_leaves(found)}
        self.calls.append((func, args, kwargs, found))
        return found

    def put_back(self) -> None:
        """Undo what capturing did."""
        for x, old in reversed(self.before):
            x.copy_(old)

    @torch.no_grad()
    def replay(self) -> None:
        """Call all of it again."""
        self.n_replays += 1
        for func, args, kwargs, found in self.calls:
            new = func(*args, **kwargs)
            if not _is_view_or_in_place(func):
                for x, y in zip(tree_leaves(found), tree_leaves(new)):
                    x.copy_(y)


def _is_view_or_in_place(func: Any) -> bool:
    returns = func._schema.returns
    return not returns or any(r.alias_info is not None for r in returns)


class Stream:
    """Stands for torch.cuda.Stream."""

    def wait_stream(self, other: Any) -> None: ...


@contextmanager
def graphs(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Graph]]:
    """Have the processor capture graphs; yields those that were captured."""
    captured: list[Graph] = []

    @contextmanager
    def capture(graph: Graph) -> Generator[None]:
        try:
            with graph:
                yield
        finally:
            with torch.no_grad():
                graph.put_back()
        captured.append(graph)

    monkeypatch.setattr(graph_module, "can_capture", lambda device: True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    yield captured
