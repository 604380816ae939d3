"""Text files in, text out: UTF-8, UTF-16 with a byte-order mark, or what the user names."""

from __future__ import annotations

import codecs
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from folio.corpus.document import Document, make_document
from folio.errors import UserError
from folio.storage import cache_folder, storage_error

TEXT_SUFFIXES = (".txt", ".md")
"""What is taken from a folder. A file that is named outright is read whatever it is called."""

PIECE_BYTES = 1 << 20

# UTF-32's mark begins with UTF-16's, so it stands first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_path(path: Path, encoding: str) -> Iterator[Document]:
    """The documents of a file or a folder, folders in the order of their names.

    Raises:
        UserError: nothing there, no text in the folder, a binary file, or a byte that
            the encoding does not have.
    """
    files = list(_text_files(path)) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"The folder {path} holds no {' or '.join(TEXT_SUFFIXES)} file. "
            f"Name the files that you want, or another folder."
        )
    for file in files:
        yield make_document(str(file), lambda file=file: read_pieces(file, encoding))


def read_stdin(encoding: str) -> Document:
    """Standard input, kept in the cache since it can be read only once."""
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
    return make_document("-", lambda: read_pieces(path, encoding, name="standard input"))


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
                    raise UserError(
                        f"{name} is not {codec}: byte 0x{problem.object[problem.start]:02x} at "
                        f"offset {fed + problem.start}. Name its encoding, as in "
                        f"--corpus.encoding latin-1."
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


def _text_files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):  # does not follow links, so it ends
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(TEXT_SUFFIXES) and not name.startswith("."):
                yield Path(root, name)
