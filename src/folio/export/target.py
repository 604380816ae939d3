"""What an export format is: something that writes a model, something that reads it back."""

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
    """Tells what an export wrote, and what its user should know."""

    graph: str
    """As the other program calls it."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""
    tolerance: float = 1e-4
    """How far logits in float32 may be off, where the other program computes a little else."""


@dataclass(frozen=True)
class Target:
    """Writes and reads a format; an entry in `targets.TARGETS`."""

    summary: str
    types: tuple[str, ...]
    """Of weights, the first by default."""
    write: Callable[[Model, str, Path], Exported]
    """Write a run with weights of a type to a path."""
    read: Callable[[Path], Foreign]
    """Read it back, to be compared with the run."""
    default_name: Callable[[Run, str], str]
    """Of the file or folder, by run and type; a file has a suffix."""


def weights_of(opened: Model) -> tuple[ModelConfig, Tensors]:
    """Take config and float32 weights of a run, on the processor; a tied head once."""
    parameters = opened.model.named_parameters()
    tensors = {name: parameter.detach().float().cpu() for name, parameter in parameters}
    return opened.model.config, tensors
