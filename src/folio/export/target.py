"""The interface of an export format: something that writes a model, and reads it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from folio.export.foreign import Foreign
from folio.export.forms import Tensors
from folio.model.config import ModelConfig
from folio.run.directory import Run
from folio.run.model import Model


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    graph: str
    """Name of the graph in the other program."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about it."""
    tolerance: float = 1e-4
    """Tolerance of logits in float32, if the other program computes slightly differently."""


@dataclass(frozen=True)
class Target:
    """Writes and reads a format; an entry in `targets.TARGETS`."""

    summary: str
    types: tuple[str, ...]
    """Types of weights; the first is the default."""
    write: Callable[[Model, str, Path], Exported]
    """Write a run with weights of a type to a path."""
    read: Callable[[Path], Foreign]
    """Read it back, to be compared with the run."""
    default_name: Callable[[Run, str], str]
    """Name of the file or folder, from run and type; a file has a suffix."""
    is_ours: Callable[[Path], bool] = lambda path: True
    """Whether what is at a path may be replaced, since an earlier export wrote it."""


def has_words(path: Path, words: str) -> bool:
    """Whether there is a text file with these words, by which an export is known."""
    return path.is_file() and words in path.read_text(encoding="utf-8", errors="replace")


def weights_of(opened: Model) -> tuple[ModelConfig, Tensors]:
    """Return config and float32 weights of a run on the CPU; a tied head once."""
    parameters = opened.model.named_parameters()
    tensors = {name: parameter.detach().float().cpu() for name, parameter in parameters}
    return opened.model.config, tensors
