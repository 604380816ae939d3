"""Files that survive: atomic writes, checksums, locks, and the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from folio.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None

LOCKS = fcntl is not None
"""Whether `locked` keeps anybody out."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` whole, or not at all.

    It is written beside its final name, flushed to the disk and renamed; on an
    error the old file stays and nothing is left behind.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    encoding = None if "b" in mode else "utf-8"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically; numbers as `json_text` has them."""
    text = json_text(value, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def json_text(value: Any, **options: Any) -> str:
    """JSON that every reader takes: a number that is infinite or none is null, which it lacks.

    >>> json_text({"loss": float("nan"), "error": (1.5, float("inf"))})
    '{"loss": null, "error": [1.5, null]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_json(path: Path) -> Any:
    """Read JSON; a damaged file is a UserError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from None


def storage_error(error: OSError, path: Path) -> UserError:
    """What a failed write means for the user; the error itself where it is not theirs."""
    if error.errno == errno.ENOSPC:
        return UserError(f"The disk is full: {path} could not be written. Free some space.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path} cannot be written ({error.strerror}). Choose another folder.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return UserError(f"{path} cannot be written: {error.strerror}. Another file is there.")
    return UserError(f"{path} could not be written: {error.strerror or error}.")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, where the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Hard link, or a copy where the two stand on different file systems."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise storage_error(error, target) from error


def cache_folder() -> Path:
    """Where things that can be made again are kept; `FOLIO_CACHE` moves it."""
    if named := os.environ.get("FOLIO_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "folio"


@contextmanager
def locked(path: Path, owner_of: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The operating system holds the lock, so that it ends with its process: a file
    that a killed process left behind locks nothing.

    Args:
        path: the lock file.
        owner_of: what is locked, for the message.
        wait: until it is free, instead of raising.

    Raises:
        UserError: another process holds it; the message names that process.
    """
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(
                    f"{owner_of} is being written by {holder}. "
                    f"Wait until it ends, or stop that process."
                ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
