"""Members of zip and tar archives, and compressed files -> files in the cache, named by content.

A member's own name is never used on disk, so it cannot point outside the cache. Anything harmful is
refused with its name: absolute paths and `..`, links, devices, encrypted members, bombs.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PureWindowsPath
from typing import IO, Any, NamedTuple

from folio.corpus.formats.magic import what_is_file
from folio.corpus.formats.package import DAMAGED
from folio.corpus.limits import ARCHIVE_MEMBERS, DICTIONARY_BYTES, Expansion
from folio.errors import UserError
from folio.storage import cache_folder, storage_error

READ_BYTES = 1 << 20
HEAD_BYTES = 1000
"""How much of a file is looked at to see whether it is wanted."""
_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)
_DAMAGED = (*DAMAGED, tarfile.TarError, RuntimeError)


@contextmanager
def unpacked_into(folder: Path) -> Iterator[None]:
    """Unpack into another folder than the cache while the block runs."""
    before = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(before)


class Member(NamedTuple):
    """A member of an archive: its copy in the cache, or the reason why there is none."""

    name: str
    path: Path | None
    n_bytes: int
    """Size in bytes after unpacking."""
    refused: str = ""


Wanted = Callable[[str, int, bytes], bool]
"""Whether to unpack a member, given its name, its size in bytes, and how it begins."""


def members(archive: Path, wanted: Wanted, expansion: Expansion) -> Iterator[Member]:
    """Unpack the files of an archive one after the other.

    Args:
        archive: a zip or tar file.
        wanted: members that it rejects are not unpacked.
        expansion: counts the bytes unpacked so far; nested archives share it.

    Raises:
        UserError: not an archive, damaged, or a bomb; earlier members have already been yielded.
    """
    try:
        unpack = _zip_members if _is_zip(archive) else _tar_members
        yield from unpack(archive, wanted, expansion)
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(_damaged(archive, error)) from None


def unpacked(path: Path, expansion: Expansion) -> Path:
    """Decompress a file into the cache without holding it in memory.

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
    if isinstance(error, OSError) and error.errno:
        return f"it cannot be read: {error.strerror}"
    kind = what_is_file(path)
    return (
        f"it is {kind}"
        if kind and "archive" in kind
        else f"it is damaged, or not an archive ({error})"
    )


def _is_zip(archive: Path) -> bool:
    """Whether an archive is a zip, and not a tar that only ends with one.

    `zipfile` looks at the end of a file, so it also accepts any file that ends with a zip, such as
    a tar whose last member is an EPUB.
    """
    with archive.open("rb") as file:
        if file.read(4) in (b"PK\3\4", b"PK\5\6"):
            return True
    with suppress(*_DAMAGED), _decompressed(archive) as stream:
        block = stream.read(tarfile.BLOCKSIZE)
        if any(block):  # its checksum is right
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            return False
    return zipfile.is_zipfile(archive)


def _zip_members(archive: Path, wanted: Wanted, expansion: Expansion) -> Iterator[Member]:
    member: Any  # a ZipExtFile
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
            elif info.flag_bits & 1:
                if wanted(name, info.file_size, b""):
                    yield Member(name, None, info.file_size, "it is encrypted")
            else:
                taken = False
                try:
                    with file.open(info) as member:
                        if taken := wanted(name, info.file_size, member.peek(HEAD_BYTES)):
                            alone = Expansion(info.compress_size)
                            yield _kept(name, _keep(member, expansion, alone))
                except UserError:  # a bomb, or the disk
                    raise
                except _DAMAGED as error:
                    if taken or wanted(name, info.file_size, b""):
                        yield Member(name, None, info.file_size, f"it is damaged ({error})")


def _tar_members(archive: Path, wanted: Wanted, expansion: Expansion) -> Iterator[Member]:
    n_strays = 0

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.TarError:
                nonlocal n_strays
                n_strays += len(buf) if any(buf) else 0
                raise

    with _decompressed(archive) as stream:
        counted: Any = _Counted(stream, expansion)
        # Another tar may follow the zeros at the end of one, and whole members a damaged header.
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=Header, ignore_zeros=True) as file:
            number = -1
            for number, info in enumerate(file):
                if number >= ARCHIVE_MEMBERS:
                    raise UserError(f"it has more than {ARCHIVE_MEMBERS:,} members")
                if info.isdir() or _hidden(info.name):
                    continue
                if refused := _misplaced(info.name):
                    yield Member(info.name, None, info.size, refused)
                elif not info.isreg():
                    yield Member(info.name, None, 0, "it is a link or a device")
                else:
                    member: Any = file.extractfile(info)
                    if wanted(info.name, info.size, member.peek(HEAD_BYTES)):
                        yield _kept(info.name, _keep(member))
    if n_strays and number < 0:
        raise tarfile.ReadError("no header of a member")
    if n_strays:
        why = "a header is damaged, or something else than a tar follows"
        yield Member("bytes of no member", None, n_strays, why)


def _kept(name: str, path: Path) -> Member:
    return Member(name, path, path.stat().st_size)


def head_of(path: Path) -> bytes:
    """How a file begins once it is decompressed; empty if it cannot be read."""
    with suppress(*_DAMAGED, UserError), _decompressed(path) as stream:
        return stream.read(HEAD_BYTES)
    return b""


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(archive)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.open(archive)
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return io.BufferedReader(_Xz(archive.open("rb")))
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
    with archive.open("rb") as file:
        if not _is_whole_zstd(file, zstandard):
            raise EOFError("it is cut off")
    unpacker = zstandard.ZstdDecompressor(max_window_size=DICTIONARY_BYTES >> 1)
    stream = unpacker.stream_reader(archive.open("rb"), read_across_frames=True)
    return io.BufferedReader(_Zstd(stream, zstandard.ZstdError))


def _is_whole_zstd(file: IO[bytes], zstandard: Any) -> bool:
    """Whether the last frame is complete, which zstandard's streams do not check.

    Frames and blocks as in RFC 8878, section 3.1.
    """
    n_bytes = os.fstat(file.fileno()).st_size
    while (at := file.tell()) < n_bytes:
        head = file.read(18)
        if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:  # a skippable frame
            file.seek(at + 8 + int.from_bytes(head[4:8], "little"))
            continue
        try:
            frame = zstandard.get_frame_parameters(head)
            file.seek(at + zstandard.frame_header_size(head))
        except zstandard.ZstdError:
            return False
        is_last = False
        while not is_last:
            header = file.read(3)
            if len(header) < 3:
                return False
            value = int.from_bytes(header, "little")
            is_last, is_repeated = bool(value & 1), value >> 1 & 3 == 1
            file.seek(1 if is_repeated else value >> 3, os.SEEK_CUR)
        file.seek(4 if frame.has_checksum else 0, os.SEEK_CUR)
    return file.tell() == n_bytes


class _Xz(io.RawIOBase):
    """Reads xz as `lzma.open` does, but refuses the dictionaries of gigabytes that a few bytes can
    request.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.decoder = lzma.LZMADecompressor(memlimit=DICTIONARY_BYTES)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        block = b""
        while not block:
            packed = b""
            if self.decoder.eof:  # another stream may follow, after zeros
                packed = self.decoder.unused_data
                while not packed.strip(b"\0"):
                    packed = self.file.read(READ_BYTES)
                    if not packed:
                        return 0
                packed = packed.lstrip(b"\0")
                self.decoder = lzma.LZMADecompressor(memlimit=DICTIONARY_BYTES)
            elif self.decoder.needs_input:
                packed = self.file.read(READ_BYTES)
                if not packed:
                    raise EOFError("it is cut off")
            try:
                block = self.decoder.decompress(packed, len(buffer))
            except lzma.LZMAError as error:
                if "Memory" not in str(error):
                    raise
                raise _too_much_memory() from None
        buffer[: len(block)] = block
        return len(block)


class _Zstd(io.RawIOBase):
    """Reads zstandard, whose own error says only that a file is damaged."""

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self.stream, self.error = stream, error

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        try:
            block = self.stream.read(len(buffer))
        except self.error as error:
            if "memory" in str(error):
                raise _too_much_memory() from None
            raise ValueError(str(error)) from None
        buffer[: len(block)] = block
        return len(block)


def _too_much_memory() -> UserError:
    return UserError(
        f"unpacking it takes more than {DICTIONARY_BYTES >> 20} MB of memory; "
        f"pack it anew with a smaller window, as xz -9 and zstd -19 have"
    )


class _Counted:
    """Stops a stream that has expanded suspiciously far."""

    def __init__(self, stream: IO[bytes], expansion: Expansion) -> None:
        self.stream, self.expansion = stream, expansion

    def read(self, n: int = -1) -> bytes:
        block = self.stream.read(n)
        self.expansion.add(len(block))
        return block


def _keep(member: IO[bytes], *expansions: Expansion) -> Path:
    """Copy a member into the cache, named by the sha256 of its content."""
    folder = _FOLDER.get() or cache_folder() / "members"
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
    """Why a member's name is refused; empty if it is fine."""
    path = PureWindowsPath(name)  # which has both kinds of separators, and drives
    if not path.parts:
        return "it has no name"
    if path.anchor or ".." in path.parts:
        return "its path leads out of the archive"
    return ""


def _hidden(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "..", "")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
