"""Text files in, text out: UTF-8, UTF-16 with a byte-order mark, or what the user names."""

from __future__ import annotations

import codecs
import hashlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from folio.corpus.document import Document, make_document
from folio.errors import UserError
from folio.storage import cache_folder, storage_error

PIECE_BYTES = 1 << 18
GUESS_BYTES = 1 << 16
"""Of a file, to guess its encoding from; as much again around the first byte that is no UTF-8."""

# UTF-32's mark begins with UTF-16's, so it stands first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class WrongEncodingError(UserError):
    """Bytes that an encoding does not have."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        """Of the first such byte in the file."""


def read_text_file(path: Path, name: str, encoding: str) -> tuple[Document, list[str]]:
    """A file that is text as it lies there, and warnings.

    Where `auto` finds neither a byte-order mark nor UTF-8, the encoding is guessed.

    Raises:
        UserError: a binary file, or a byte that the named encoding does not have.
    """
    try:
        return make_document(name, lambda: read_pieces(path, encoding, name)), []
    except WrongEncodingError as error:
        guess = _guess_file(path, encoding, error)
    document = make_document(name, lambda: read_pieces(path, guess, name))
    return document, [_guessed(guess)]


def open_text(path: Path, encoding: str, warn: Callable[[str], None]) -> TextIO:
    """The same as a file that is read line by line, its line ends as they are."""
    try:
        deque(read_pieces(path, encoding, "it"), maxlen=0)
    except WrongEncodingError as error:
        encoding = _guess_file(path, encoding, error)
        warn(_guessed(encoding))
    with path.open("rb") as file:
        codec, skip = _codec(file.read(4), encoding)
    # Without its byte order, such a codec takes the mark away.
    marked = "utf-8-sig" if codec == "utf-8" else codec[:-3]
    return path.open(encoding=marked if skip else codec, newline="")


def _guess_file(path: Path, encoding: str, error: WrongEncodingError) -> str:
    """The encoding of a file that is no UTF-8; the error where that is not to be guessed."""
    with path.open("rb") as file:
        sample = file.read(GUESS_BYTES)
        file.seek(max(error.offset - GUESS_BYTES // 2, 0))
        sample += file.read(GUESS_BYTES)
    guess = _guess(sample) if encoding == "auto" else None
    if guess is None:
        raise error
    return guess


def decode(data: bytes, named: str | None, warn: Callable[[str], None]) -> str:
    """Text of bytes: by their byte-order mark, as UTF-8, as what they name, or by a guess.

    Args:
        data: the bytes.
        named: the encoding that they claim to have, if any.
        warn: takes a line where it was a guess.
    """
    mark, codec = next((m for m in BYTE_ORDER_MARKS.items() if data.startswith(m[0])), (b"", ""))
    if codec:
        return data[len(mark) :].decode(codec, errors="replace")
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    if named:
        with suppress(LookupError):
            return data.decode(named, errors="replace")
    guess = _guess(data[: 1 << 20]) or "latin-1"
    warn(_guessed(guess))
    return data.decode(guess, errors="replace")


def _guess(sample: bytes) -> str | None:
    """The encoding that makes most sense of some bytes; None where none does."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    if b"\0" in sample:
        return None
    best = from_bytes(sample).best()
    if best is None:
        return None
    with suppress(UnicodeDecodeError):  # the usual one, where it reads the same
        if sample.decode("cp1252") == str(best):
            return "cp1252"
    return best.encoding


def _guessed(codec: str) -> str:
    return f"no UTF-8; read as {codec}, which is a guess (--corpus.encoding names another)"


def read_stdin(encoding: str) -> tuple[Document, list[str]]:
    """Standard input, kept in the cache since it can be read only once, and warnings."""
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
    document, warnings = read_text_file(path, "standard input", encoding)
    return replace(document, source="-"), warnings


def read_pieces(path: Path, encoding: str = "auto", name: str | None = None) -> Iterator[str]:
    """Decode a file piece by piece; line ends stay as they are.

    Args:
        path: the file.
        encoding: a codec that Python knows; `auto` is UTF-8, or what a byte-order mark says.
        name: what messages call the file; its path by default.
    """
    name = name or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
            codec, skip = _codec(head, encoding)
            file.seek(skip)
            decoder = codecs.getincrementaldecoder(codec)()
            while True:
                fed = file.tell() - len(decoder.getstate()[0])
                block = file.read(PIECE_BYTES)
                try:
                    piece, problem = decoder.decode(block, final=not block), None
                except UnicodeDecodeError as error:
                    piece, problem = "", error
                if "\0" in piece or (problem and b"\0" in block):
                    raise UserError(
                        f"{name} is a binary file, or text in another encoding than {codec}: it "
                        f"has a NUL in its first {fed + len(block)} bytes. Give text files, or "
                        f"--corpus.encoding utf-16-le."
                    )
                if problem:
                    raise WrongEncodingError(
                        f"{name} is not {codec}: byte 0x{problem.object[problem.start]:02x} at "
                        f"offset {fed + problem.start}. Name its encoding, as in "
                        f"--corpus.encoding latin-1.",
                        fed + problem.start,
                    )
                if piece:
                    yield piece
                if not block:
                    return
    except FileNotFoundError:
        raise UserError(f"There is no file {name}.") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder; a text file was expected.") from None
    except PermissionError:
        raise UserError(f"{name} cannot be read: permission denied.") from None


def _codec(head: bytes, encoding: str) -> tuple[str, int]:
    """The codec of a file that begins with `head`, and the length of its byte-order mark."""
    marked = ((mark, codec) for mark, codec in BYTE_ORDER_MARKS.items() if head.startswith(mark))
    mark, codec = next(marked, (b"", "utf-8"))
    if encoding == "auto":
        return codec, len(mark)
    try:
        named = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(
            f"corpus.encoding is '{encoding}', which Python does not know. "
            f"Give a name such as utf-8, utf-16, latin-1 or cp1252."
        ) from None
    # "utf-16" leaves the byte order to the mark; the codecs with an order would read the mark
    # as a character.
    takes_mark = mark and codec.startswith(named)
    return (codec, len(mark)) if takes_mark else (named, 0)
