"""Files that survive a crash: atomic writes, checksums, locks, and the cache."""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from folio.console import say
from folio.errors import UserError
from folio.records import DamagedError, Record, read_text

if TYPE_CHECKING:  # a command says its first word without loading numpy
    from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None

QUOTA = getattr(errno, "EDQUOT", 0)
"""The error of an exceeded quota, which Windows lacks."""

TOLD = [
    errno.ENOSPC,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EIO,
    *([QUOTA] if QUOTA else []),
]
"""Errors of a disk that libraries report only in words."""

READ_SECONDS = 5.0
"""How long other programs may read what is to be renamed; Windows alone minds."""

_ASKING = threading.Lock()

LOCKS = fcntl is not None
"""Whether `locked` locks anything on this system."""


class StorageError(UserError):
    """A disk that did not take what was written to it."""


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` complete, or not at all.

    It is written beside its final name, flushed to disk and renamed; on an error the old file is
    unchanged and nothing is left behind. An OSError of the block that names another file is passed
    on as it is.

    Raises:
        UserError: the folder cannot be written, the disk is full, or what is there is no file: the
            rename would put one in the place of a folder, a pipe or /dev/null.
    """
    encoding = None if "b" in mode else "utf-8"
    temporary = None
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} must be a file, and is a folder, a device or a pipe.")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(file_mode())
        rename(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise storage_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Give a file or a folder its final name, in the place of a file that has it.

    On Windows, nothing is renamed that another program reads, such as a virus scanner, so it is
    tried for some seconds. (Folio was never tried on Windows.)
    """
    until = time.monotonic() + READ_SECONDS
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > until:
                raise
            time.sleep(0.05)


def local(name: str) -> Path:
    """The path that a user means: `~` is a home, unless a file is called so."""
    path = Path(name)
    return path if os.path.lexists(path) else Path(os.path.expanduser(name))  # noqa: PTH111 (raises)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; numbers as in `json_text`."""
    text = json_text(value, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def json_text(value: Any, **options: Any) -> str:
    """JSON that every reader accepts: infinity and NaN, which it lacks, become null.

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


def read_json(path: Path, kind: type = object) -> Any:
    """Read JSON, each table in it a `Record`.

    Args:
        path: the file.
        kind: dict, or list for one of tables, where it must be that.

    Raises:
        UserError: it cannot be read, or is damaged; the message names it.
    """
    try:
        text = read_text(path)
        if not text.strip("\0 \n"):  # a crash can leave a file of zeros
            raise DamagedError(path, "it is empty")
        value = json.loads(text, object_hook=lambda table: Record(table, path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, str(error)) from None
    if not isinstance(value, kind):
        raise DamagedError(path, f"it must hold a {'table' if kind is dict else 'list of tables'}")
    if kind is list and not all(isinstance(item, dict) for item in value):
        raise DamagedError(path, "it must hold a list of tables")
    return value


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, as safetensors, atomically."""
    import numpy as np
    from safetensors.numpy import save

    with atomic_write(path, "wb") as file:
        file.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote.

    Raises:
        UserError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedError(path, str(error)) from None


def storage_error(error: Exception, path: Path) -> StorageError:
    """Turn a failed write into an error for the user.

    Args:
        error: an OSError, or a library's error that quotes one.
        path: what was written.
    """
    number = storage_errno(error)
    said = os.strerror(number) if number else str(error)
    if number == errno.ENOSPC:
        return StorageError(f"The disk is full: {path} could not be written. Free some space.")
    if number == QUOTA:
        return StorageError(
            f"Your share of the disk is full: {path} could not be written. Free some space."
        )
    if number == errno.EFBIG:
        return StorageError(
            f"{path} would be larger than files may be here ({said}). Raise `ulimit -f`, or "
            f"choose another disk."
        )
    if number == errno.EIO:
        return StorageError(
            f"The disk failed while {path} was written ({said}). Choose another one."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{path} cannot be written ({said}). Choose another folder.")
    if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return StorageError(f"{path} cannot be written: {said}. Another file is there.")
    return StorageError(f"{path} could not be written: {said}.")


def _concerns(error: OSError, path: Path) -> bool:
    """Whether the system refused the file that is written or a folder of it, not another file."""
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
    ours = path, *path.parents
    is_ours = not named or any(n in ours or n.name.startswith(f".{path.name}.") for n in named)
    return error.errno is not None and is_ours  # unlike gzip.BadGzipFile of what is read


def storage_errno(error: Exception) -> int | None:
    """The errno of an error; libraries in Rust and C++ give it only in words.

    >>> storage_errno(RuntimeError("I/O error: No space left on device (os error 28)"))
    28
    >>> storage_errno(RuntimeError("a shape does not fit"))
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno
    words = str(error)
    if found := re.search(r"os error (\d+)", words):
        number = int(found[1])
        # Windows has numbers of its own, which Python turns into those of C.
        return OSError(0, words, None, number).errno if os.name == "nt" else number
    told = (number for number in TOLD if os.strerror(number).lower() in words.lower())
    return next(told, None)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, if the system supports it."""
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
    """Hard-link a file, or copy it to another file system; of a link, what it leads to."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        if not _concerns(error, target):
            raise
        raise storage_error(error, target) from error


def cache_folder() -> Path:
    """The folder for everything that can be made again; `FOLIO_CACHE` overrides it.

    If it is not writable, a temporary folder with links to its content replaces it until this
    process ends.

    Raises:
        UserError: no folder can be written.
    """
    named = os.environ.get("FOLIO_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    if named:
        return _writable(Path(named))
    if base:
        return _writable(Path(base) / "folio")
    try:
        return _writable(Path.home() / ".cache" / "folio")
    except RuntimeError:  # a user without a name or a home, as in a container
        return _writable(None)


@cache
def _writable(folder: Path | None) -> Path:
    """The folder if it is writable, or a temporary one instead."""
    reason = "there is no home folder for it"
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            if storage_errno(error) in (errno.ENOSPC, QUOTA):  # reading may be all that is needed
                return folder
            reason = f"{folder} cannot be written: {error.strerror}"
    try:
        temporary = Path(tempfile.mkdtemp(prefix="folio-"))
    except OSError as error:
        raise UserError(
            f"There is no folder for the cache ({reason}). Name one: FOLIO_CACHE=FOLDER."
        ) from error
    if folder is not None:
        _link_all(folder, temporary)
    atexit.register(_remove, temporary, os.getpid())
    os.environ["FOLIO_CACHE"] = str(temporary)  # for the processes that this one starts
    say(
        f"warning: the cache is temporary, since {reason}. FOLIO_CACHE names a folder that is "
        f"kept, and saves time."
    )
    return temporary


def _link_all(source: Path, target: Path) -> None:
    """Link every file of `source` into `target`; a file that is rewritten replaces its link."""
    for folder, _, files in os.walk(source):
        for file in files:
            link = target / Path(folder, file).relative_to(source)
            with suppress(OSError):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(folder, file).resolve())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not in a process forked from it
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, owner_of: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The operating system holds the lock, so that it ends with its process: a file left by a killed
    process locks nothing.

    Args:
        path: the lock file.
        owner_of: what is locked, for the message.
        wait: wait until it is free, instead of raising.

    Raises:
        UserError: another process holds it; the message names that process.
    """
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                raise UserError(
                    f"{owner_of} is being written by {holder}. "
                    f"Wait until it ends, or stop that process."
                ) from None
            except OSError as error:  # NFS and Lustre without locks, some FUSE file systems
                _warn_of_no_locks(error.strerror or str(error))
            if not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
                raise UserError(f"{owner_of} was given up by another command just now. Try again.")
        with suppress(OSError):  # a full disk; the name is only for a message
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def visible(folder: Path) -> set[str]:
    """Names of the entries of a folder, except hidden ones, as desktops and Git leave behind."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@contextmanager
def new_folder(
    folder: Path, lock: Path, kind: str, is_made: Callable[[], bool], wait: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder in which something is made; a new folder is removed if nothing was.

    Args:
        folder, lock: the folder, and a file in it.
        kind: what is made, for messages.
        is_made: whether it is there; asked at the end.
        wait: as `locked`, with its errors.
    """
    new = [path for path in (folder, folder.parent) if not path.exists()]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    with locked(lock, f"The {kind} {folder}", wait):
        try:
            yield
        finally:
            if folder in new and not is_made():
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # others may have made something beside it
                    for above in new[1:]:
                        above.rmdir()


def holder_of(path: Path) -> str | None:
    """Who holds a lock file; None where nobody does, or where files cannot be locked."""
    if fcntl is None or not path.exists():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().decode(errors="replace").strip() or "another process"
        except OSError:
            return None
    return None


@cache
def _warn_of_no_locks(reason: str) -> None:
    say(
        f"warning: files cannot be locked here ({reason}), so take care that no two commands write "
        f"one run. FOLIO_RUNS names another disk."
    )


def file_mode() -> int:
    """The permissions of a new file by the user's umask; temporary files have others."""
    with _ASKING:  # of two threads, one would put back what the other had set
        mask = os.umask(0)
        os.umask(mask)
    return 0o666 & ~mask
