"""Reads text files: UTF-8, UTF-16 with a byte-order mark, or an encoding that the user names."""

from __future__ import annotations

import codecs
import hashlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from folio.corpus.document import Document, make_document
from folio.corpus.encodings import (
    SHIFT,
    Encoding,
    WrongEncodingError,
    advice,
    choose_encoding,
    codec_of,
)
from folio.corpus.formats.passage import Notes
from folio.errors import UserError
from folio.storage import cache_folder, storage_error

PIECE_BYTES = 1 << 18


class NulError(UserError):
    """Raised by a NUL where text was expected."""


class ShiftError(UserError):
    """Raised by a shift sequence of an encoding that otherwise looks like ASCII."""


def read_text_file(path: Path, name: str, encoding: str, notes: Notes) -> Document:
    """Read a plain text file; `notes` records what was replaced or guessed.

    With `auto`, a file without a byte-order mark that is not UTF-8 has its encoding guessed.

    Raises:
        UserError: a binary file, or bytes that are invalid in the named encoding.
    """
    try:
        return make_document(name, lambda: read_pieces(path, encoding, name))
    except (WrongEncodingError, NulError, ShiftError) as error:
        wrong = error if isinstance(error, WrongEncodingError) else None
        chosen = choose_encoding(path, encoding, wrong, notes, name)
    return make_document(name, lambda: read_pieces(path, chosen, name))


@contextmanager
def open_lines(path: Path, encoding: str, notes: Notes) -> Iterator[Iterator[str]]:
    """The lines of such a file, with their line ends unchanged."""
    try:
        deque(read_pieces(path, encoding, "it"), maxlen=0)
        with path.open("rb") as file:
            chosen = codec_of(file.read(4), encoding)
    except (WrongEncodingError, NulError, ShiftError) as error:
        wrong = error if isinstance(error, WrongEncodingError) else None
        chosen = choose_encoding(path, encoding, wrong, notes, "it")
    # Without an explicit byte order, such a codec drops the mark.
    marked = "utf-8-sig" if chosen.codec == "utf-8" else chosen.codec[:-3]
    codec = marked if chosen.skip else chosen.codec
    with path.open(encoding=codec, errors=chosen.errors, newline="") as lines:
        yield map(chosen.mended, lines) if chosen.lenient else iter(lines)


def keep_stdin() -> Path:
    """Keep standard input in the cache, since it can be read only once."""
    folder = cache_folder() / "stdin"
    digest = hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            while block := sys.stdin.buffer.read(PIECE_BYTES):
                digest.update(block)
                file.write(block)
        path = folder / digest.hexdigest()
        shutil.move(file.name, path)
    except OSError as error:
        raise storage_error(error, folder) from error
    return path


def read_pieces(
    path: Path, encoding: str | Encoding = "auto", name: str | None = None
) -> Iterator[str]:
    """Decode a file piece by piece; line ends stay as they are.

    Args:
        path: the file.
        encoding: a codec that Python knows; `auto` means UTF-8 or what a byte-order mark says; or
            an `Encoding` that was chosen before.
        name: the file's name in messages; its path by default.
    """
    name = name or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
            chosen = codec_of(head, encoding) if isinstance(encoding, str) else encoding
            file.seek(chosen.skip)
            decoder = codecs.getincrementaldecoder(chosen.codec)(chosen.errors)
            may_shift = encoding == "auto" and not chosen.skip  # a mark says that it does not
            end = ""
            while True:
                fed = file.tell() - len(decoder.getstate()[0])
                block = file.read(PIECE_BYTES)
                try:
                    piece, problem = decoder.decode(block, final=not block), None
                except UnicodeDecodeError as error:
                    piece, problem = "", error
                if chosen.lenient:
                    piece = chosen.mended(piece)
                elif "\0" in piece or (problem and b"\0" in block):
                    raise NulError(
                        f"{name} is a binary file, or text in another encoding than "
                        f"{chosen.codec}: it has a NUL in its first {fed + len(block)} bytes. "
                        f"Give text files."
                    )
                # Looking for one character is ten times as fast as looking for two.
                if may_shift and (end == SHIFT[0] or SHIFT[0] in piece) and SHIFT in end + piece:
                    raise ShiftError(f"{name} is in ISO 2022.")
                end = piece[-1:] or end
                if problem:
                    raise _wrong(name, chosen.codec, problem, fed, block)
                if piece:
                    yield piece
                if not block:
                    return
    except FileNotFoundError:
        raise UserError(f"There is no file {name}.") from None
    except IsADirectoryError:
        raise UserError(f"{name} must be a text file, got a folder.") from None
    except PermissionError:
        raise UserError(f"{name} cannot be read: permission denied.") from None


def _wrong(
    name: str, codec: str, problem: UnicodeDecodeError, fed: int, block: bytes
) -> WrongEncodingError:
    offset = fed + problem.start
    beyond = sum(1 for value in block if value > 0x7F) / max(len(block), 1)
    return WrongEncodingError(
        f"{name} is not {codec}: byte 0x{problem.object[problem.start]:02x} at offset {offset}. "
        f"{advice(beyond)}.",
        offset,
    )
