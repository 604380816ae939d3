"""Checkpoints that are whole or do not exist.

A checkpoint is a folder. Its files are written beside the final name and flushed to the
disk; the manifest, with the size and sha256 of each, comes last; then the folder is
renamed. Whatever interrupts this leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from folio.errors import UserError
from folio.records import DamagedError
from folio.run.formats import require_readable, stamped
from folio.storage import (
    file_mode,
    read_json,
    rename,
    sha256_of,
    storage_errno,
    storage_error,
    sync_folder,
    write_json,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MANIFEST = "manifest.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
CONFIG, STATE = "config.json", "state.json"
FILES = (MODEL, OPTIMIZER, CONFIG, STATE)
TO_READ = (MODEL, CONFIG, STATE)
"""The files that whoever only reads with the model needs."""
OWN_CODE, LATER_STATE = "own_code", "later_state"
"""Entries of the manifest that are not files. A later state holds in place of STATE: one file is
replaced at once, a file and its hash are not."""

RENAMED = (
    (r"^(blocks\.\d+\.\w+)\.sublayer\.", r"\1."),
    (r"^(blocks\.\d+\.\w+)\.entry_norm\.", r"\1_norm."),
    (r"^(blocks\.\d+\.\w+)\.((?:exit|sum)_norm)\.", r"\1_\2."),
)
"""Until 2026-11-28 each layer of a block was wrapped in a module with its norms."""

Tensors = dict[str, "Tensor"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose files agreed with its manifest when it was opened."""

    path: Path
    step: int
    config: dict[str, Any]
    """Fields of the model's config."""
    state: dict[str, Any]
    """The state of the training loop; see folio.training.state."""
    own_code: dict[str, dict[str, str]] | None = None
    """Code in the model that is not Folio's own; see folio.run.own_code. None if it was not
    recorded."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights file, from when the checkpoint was opened."""
        return read_json(self.path / MANIFEST, dict)[MODEL]["sha256"]

    def model_tensors(self) -> Tensors:
        """Weights by current parameter name, on the CPU."""
        return _renamed(_load(self.path / MODEL))

    def model_arrays(self) -> dict[str, NDArray[Any]]:
        """The same without torch."""
        from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

        with _reading(self.path / MODEL):
            return _renamed(load_file(self.path / MODEL))

    def optimizer_tensors(self) -> Tensors:
        """Optimizer state by name, on the CPU."""
        return _load(self.path / OPTIMIZER)


def new_name(name: str) -> str:
    """The current name of a parameter, given its name in an older checkpoint.

    >>> new_name("blocks.0.attention.sublayer.out_proj.weight")
    'blocks.0.attention.out_proj.weight'
    """
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def checkpoint_name(step: int) -> str:
    """The name of a checkpoint's folder; names of up to 99,999,999 steps sort like them.

    >>> checkpoint_name(500)
    'step-00000500'
    """
    return f"step-{step:08d}"


def save_checkpoint(
    folder: Path,
    step: int,
    config: dict[str, Any],
    state: dict[str, Any],
    model: Tensors,
    optimizer: Tensors,
    own_code: dict[str, dict[str, str]] | None = None,
) -> Path:
    """Write a checkpoint into `folder`, or nothing.

    Returns:
        Its path. An existing valid checkpoint of the same step keeps its weights, and gets the
        state, which may know of an evaluation that came after it.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are intact.
    """
    final = folder / checkpoint_name(step)
    if final.exists():
        try:
            open_checkpoint(final)
        except UserError:
            shutil.rmtree(final)
        else:
            manifest = read_json(final / MANIFEST, dict)
            write_json(final / MANIFEST, {**manifest, LATER_STATE: state})
            return final
    partial = folder / f".{final.name}.partial"
    try:
        for left in folder.glob(".step-*.partial"):  # by a killed process
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir(exist_ok=True)  # in a run, which may have been removed meanwhile
        partial.mkdir()
        _save(partial / MODEL, model)
        _save(partial / OPTIMIZER, optimizer)
        write_json(partial / CONFIG, config)
        write_json(partial / STATE, state)
        manifest = {
            name: {"bytes": (partial / name).stat().st_size, "sha256": sha256_of(partial / name)}
            for name in FILES
        }
        write_json(partial / MANIFEST, stamped("checkpoint", manifest | {OWN_CODE: own_code}))
        rename(partial, final)
        sync_folder(folder)
    except Exception as error:  # also from a library: never leave half a checkpoint
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) or storage_errno(error) is not None:
            raise storage_error(error, final) from error
        raise
    return final


def open_checkpoint(path: Path, files: Sequence[str] = FILES) -> Checkpoint:
    """Check files of a checkpoint against its manifest: FILES, or TO_READ.

    Raises:
        UserError: there is none, or a file is missing, truncated or altered.
    """
    if not path.is_dir():
        raise UserError(f"There is no checkpoint {path}.")
    try:
        return _open(path, files)
    except OSError as error:  # a training may delete old ones at any moment
        raise UserError(f"Checkpoint {path} cannot be read: {error.strerror}.") from error


def _open(path: Path, files: Sequence[str]) -> Checkpoint:
    if not (path / MANIFEST).exists():
        raise DamagedError(path, f"it must have a {MANIFEST}")
    manifest: dict[str, Any] = read_json(path / MANIFEST, dict)
    require_readable("checkpoint", manifest, path)
    for name in files:
        file, entry = path / name, manifest.get(name)
        if entry is None or not file.exists():
            raise DamagedError(path, f"it must have a {name}")
        if file.stat().st_size != entry["bytes"]:
            raise DamagedError(
                path, f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
            )
        if sha256_of(file) != entry["sha256"]:
            raise DamagedError(path, f"the sha256 of {name} does not agree")
    config = read_json(path / CONFIG, dict)
    state = manifest.get(LATER_STATE) or read_json(path / STATE, dict)
    return Checkpoint(path, step_of(path), config, state, manifest.get(OWN_CODE))


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first; not verified."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name))
    return sorted(found, key=step_of)


def newest_checkpoint(
    folder: Path, skipped: type[UserError] = UserError, files: Sequence[str] = FILES
) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and what is wrong with each newer one.

    Args:
        folder: the checkpoints.
        skipped: errors for which an older one is tried. Whoever goes on from there, and removes
            what came later, skips a DamagedError alone: what a newer Folio wrote, or another user
            may read, is not lost.
        files: as in `open_checkpoint`.
    """
    complaints: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return open_checkpoint(path, files), complaints
        except skipped as error:
            complaints.append(str(error))
    return None, complaints


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def _save(path: Path, tensors: Tensors) -> None:
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(file_mode())
    with path.open("rb+") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())


def _load(path: Path) -> Tensors:
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    with _reading(path):
        return load_file(path)


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Raises OSError where it is gone, or what was written is no longer there."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, f"{path} cannot be read: {error}") from error


def _renamed(named: dict[str, Value]) -> dict[str, Value]:
    return {new_name(name): value for name, value in named.items()}
