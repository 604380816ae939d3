"""Recognizes files by their first bytes, for messages that name the type and say what to do."""

from __future__ import annotations

import re
from pathlib import Path

HEAD_BYTES = 512
_OFFICE = (
    "an OLE file: old Office (.doc, .xls, .ppt), a mail of Outlook (.msg), or a newer document "
    "with a password"
)
KINDS = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE, "save it anew without a password as docx, xlsx, "
     "pptx or eml, or --corpus.engine tika"),
    (b"PK\x03\x04", "a zip file, or a document made of one", "give it the ending that it has, such "
     "as .zip, .docx, .xlsx or .epub"),
    (b"\x1f\x8b", "compressed by gzip", "end its name in .gz, or unpack it"),
    (b"BZh", "compressed by bzip2", "end its name in .bz2, or unpack it"),
    (b"\xfd7zXZ\0", "compressed by xz", "end its name in .xz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "end its name in .zst, or unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"%PDF-", "a PDF", "end its name in .pdf"),
    (b"PAR1", "a Parquet table", "end its name in .parquet"),
    (b"PARE", "an encrypted Parquet table", "write it without encryption"),
    (b"ARROW1", "an Arrow table", "end its name in .arrow"),
    (b"FEA1", "a Feather table of version 1", "write it anew as version 2, or as Parquet"),
    (b"ORC", "an ORC table", "write it as Parquet"),
    (b"Obj\x01", "an Avro table", "write it as Parquet or JSON lines"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write its text as Parquet or JSON lines"),
    (b"\x93NUMPY", "an array of NumPy", "give text files"),
    (b"SQLite format 3\0", "an SQLite database", "export its text as csv"),
    (b"-----BEGIN PGP MESSAGE", "encrypted with PGP", "decrypt it"),
    (b"Salted__", "encrypted with OpenSSL", "decrypt it"),
    (b"age-encryption.org", "encrypted with age", "decrypt it"),
    (b"\x89PNG", "a picture (PNG)", "text in pictures needs OCR"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "text in pictures needs OCR"),
    (b"GIF8", "a picture (GIF)", "text in pictures needs OCR"),
    (b"II*\0", "a picture (TIFF)", "text in pictures needs OCR"),
    (b"\x7fELF", "a program (ELF)", "give text files"),
    (b"MZ", "a program of Windows", "give text files"),
)  # fmt: skip
"""First bytes, the type of such a file, and what to do."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has, so that a text may begin with MZ."""


def what_is(head: bytes) -> str:
    """The type of a file that begins with these bytes, and what to do; empty if they do not tell.

    >>> what_is(b"PAR1\\x15\\x04")
    'a Parquet table: end its name in .parquet'
    >>> what_is(b"MZ is how some text begins")
    ''
    """
    is_binary = _CONTROL.search(head) is not None
    for magic, kind, advice in KINDS:
        if head.startswith(magic) and (is_binary or not magic.isalnum()):
            return f"{kind}: {advice}"
    if head[257:262] == b"ustar":
        return "a tar archive: end its name in .tar"
    # A SentencePiece model is a protocol buffer: field 1 is its first piece, which contains
    # "<unk>".
    if head[:1] == b"\x0a" and b"<unk>" in head[:16]:
        return "a SentencePiece model, a tokenizer and no text: give text files"
    return ""


def what_is_file(path: Path) -> str:
    """Apply `what_is` to the head of a file."""
    with path.open("rb") as file:
        return what_is(file.read(HEAD_BYTES))
