"""Members of zip and tar archives, and compressed files -> files in the cache, named by content.

A member's own name is never used on the disk, so that it cannot point anywhere. What could do
harm is refused by name: absolute paths and `..`, links, devices, encrypted members, bombs.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from folio.corpus.formats.magic import what_is_file
from folio.corpus.limits import ARCHIVE_MEMBERS, Expansion
from folio.errors import UserError
from folio.storage import cache_folder, storage_error

READ_BYTES = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
    NotImplementedError, ValueError, UnicodeDecodeError, RuntimeError,
)  # fmt: skip


class Member(NamedTuple):
    """A member of an archive: a copy of it, or why there is none."""

    name: str
    path: Path | None
    n_bytes: int
    """Unpacked."""
    refused: str = ""


def members(
    archive: Path, wanted: Callable[[str, int], bool], expansion: Expansion
) -> Iterator[Member]:
    """Unpack the files of an archive one after the other.

    Args:
        archive: a zip or tar file.
        wanted: asked for each name and its bytes; what is not wanted is not unpacked.
        expansion: of the file that it is in, which a nest of archives shares.

    Raises:
        UserError: no archive, damaged, or a bomb; members before it have been given.
    """
    unpack = _zip_members if _is_zip(archive) else _tar_members
    try:
        yield from unpack(archive, wanted, expansion)
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(_damaged(archive, error)) from None


def unpacked(path: Path, expansion: Expansion) -> Path:
    """A copy of a compressed file, unpacked; nothing of it is held.

    Raises:
        UserError: damaged, not compressed, or a bomb.
    """
    try:
        with _decompressed(path) as stream:
            return _keep(stream, expansion)
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    kind = what_is_file(path)
    return (
        f"it is {kind}" if kind and "archive" in kind else f"it is damaged, or no archive ({error})"
    )


def _is_zip(archive: Path) -> bool:
    """Whether an archive is a zip, and not a tar that only ends with one.

    What `zipfile` looks for stands at the end of a zip, and so at the end of any file that ends
    with one, such as a tar whose last member is a book.
    """
    with archive.open("rb") as file:
        if file.read(4) in (b"PK\3\4", b"PK\5\6"):
            return True
    with suppress(*_DAMAGED), _decompressed(archive) as stream:
        block = stream.read(tarfile.BLOCKSIZE)
        if any(block):  # and the sum of its bytes is the one that it names
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            return False
    return zipfile.is_zipfile(archive)


def _zip_members(
    archive: Path, wanted: Callable[[str, int], bool], expansion: Expansion
) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        infos = file.infolist()
        if len(infos) > ARCHIVE_MEMBERS:
            raise UserError(f"it has {len(infos):,} members, more than {ARCHIVE_MEMBERS:,}")
        for info in sorted(infos, key=lambda info: info.filename):
            name = info.filename
            if name.endswith("/") or _hidden(name):
                continue
            mode = info.external_attr >> 16
            if refused := _misplaced(name):
                yield Member(name, None, info.file_size, refused)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield Member(name, None, info.file_size, "it is a link or a device")
            elif not wanted(name, info.file_size):
                continue
            elif info.flag_bits & 1:
                yield Member(name, None, info.file_size, "it is encrypted")
            else:
                try:
                    with file.open(info) as member:
                        alone = Expansion(info.compress_size)
                        yield _kept(name, _keep(member, expansion, alone))
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                    yield Member(name, None, info.file_size, f"it is damaged ({error})")


def _tar_members(
    archive: Path, wanted: Callable[[str, int], bool], expansion: Expansion
) -> Iterator[Member]:
    with _decompressed(archive) as stream:
        counted: Any = _Counted(stream, expansion)
        with tarfile.open(fileobj=counted, mode="r|") as file:
            for number, info in enumerate(file):
                if number >= ARCHIVE_MEMBERS:
                    raise UserError(f"it has more than {ARCHIVE_MEMBERS:,} members")
                if info.isdir() or _hidden(info.name):
                    continue
                if refused := _misplaced(info.name):
                    yield Member(info.name, None, info.size, refused)
                elif not info.isreg():
                    yield Member(info.name, None, 0, "it is a link or a device")
                elif wanted(info.name, info.size):
                    member = file.extractfile(info)
                    assert member is not None
                    yield _kept(info.name, _keep(member))


def _kept(name: str, path: Path) -> Member:
    return Member(name, path, path.stat().st_size)


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(archive)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.open(archive)
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lzma.open(archive)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _open_zstd(archive)
    return archive.open("rb")


def _open_zstd(archive: Path) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            "reading zst needs the package zstandard: pip install 'foliolm[documents]'"
        ) from None
    unpacker = zstandard.ZstdDecompressor()
    return unpacker.stream_reader(archive.open("rb"), read_across_frames=True)  # type: ignore[return-value]


class _Counted:
    """A stream that stops giving when it has given far too much."""

    def __init__(self, stream: IO[bytes], expansion: Expansion) -> None:
        self.stream, self.expansion = stream, expansion

    def read(self, n: int = -1) -> bytes:
        block = self.stream.read(n)
        self.expansion.add(len(block))
        return block


def _keep(member: IO[bytes], *expansions: Expansion) -> Path:
    """Copy a member into the cache, under the sha256 of its content."""
    folder = cache_folder() / "members"
    digest = hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        with file:
            while block := member.read(READ_BYTES):
                for expansion in expansions:
                    expansion.add(len(block))
                digest.update(block)
                file.write(block)
        path = folder / digest.hexdigest()
        os.replace(file.name, path)
        return path
    except OSError as error:
        Path(file.name).unlink(missing_ok=True)
        if error.errno:  # the disk, not the archive
            raise storage_error(error, folder) from error
        raise
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _misplaced(name: str) -> str:
    """Why a name may not be that of a member; empty where it may."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts:
        return "it has no name"
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return "its path leads out of the archive"
    return ""


def _hidden(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "..", "")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
