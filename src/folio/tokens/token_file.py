"""Token ids in a file that is mapped into memory, not read into it.

The header is 64 bytes, little-endian:

    0   8  b"FOLIOTOK"
    8   4  version of this format
    12  4  bytes of one token id: 1, 2 or 4
    16  8  number of tokens
    24  32 sha256 of the tokenizer that made them
    56  8  zero
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from folio.errors import UserError
from folio.storage import atomic_write
from folio.tokenizers.base import TokenIds

MAGIC = b"FOLIOTOK"
VERSION = 1
HEADER = struct.Struct("<8sIIQ32s8x")


def write_token_file(
    path: Path, chunks: Iterable[TokenIds], dtype: np.dtype, fingerprint: str
) -> int:
    """Write token ids as they come; the file appears complete or not at all.

    Args:
        path: the file.
        chunks: (n,) arrays of token ids, in order.
        dtype: the unsigned type to store.
        fingerprint: hexadecimal sha256 of the tokenizer.

    Returns:
        The number of tokens.
    """
    count = 0
    with atomic_write(path, "wb") as file:
        file.write(bytes(HEADER.size))
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=dtype.newbyteorder("<")).data)
            count += len(chunk)
        file.seek(0)
        file.write(header(dtype, count, fingerprint))
    return count


def header(dtype: np.dtype, count: int, fingerprint: str) -> bytes:
    """What a file of `count` token ids begins with; arguments as in `write_token_file`."""
    return HEADER.pack(MAGIC, VERSION, dtype.itemsize, count, bytes.fromhex(fingerprint))


def open_token_file(path: Path, fingerprint: str | None = None) -> TokenIds:
    """Map the token ids of a file into memory: (n,) unsigned integers, read-only.

    Raises:
        UserError: no such file, damaged, or made by a tokenizer other than `fingerprint`.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
    except FileNotFoundError:
        raise UserError(f"There is no token file {path}. Train again to make it.") from None
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise UserError(f"{path} is not a token file. Delete it and train again.")
    _, version, width, count, made_by = HEADER.unpack(head)
    if version != VERSION or width not in (1, 2, 4):
        raise UserError(f"{path} is a token file of another version ({version}), not {VERSION}.")
    if path.stat().st_size != HEADER.size + count * width:
        raise UserError(
            f"{path} is damaged: its header promises {count} tokens of {width} bytes, but it "
            f"has {path.stat().st_size - HEADER.size} bytes of them. Delete it and train again."
        )
    if fingerprint is not None and made_by.hex() != fingerprint:
        raise UserError(
            f"{path} was made by another tokenizer ({made_by.hex()[:12]}, not "
            f"{fingerprint[:12]}). Delete it and train again."
        )
    dtype = np.dtype(f"<u{width}")
    if not count:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=HEADER.size, shape=(count,))


def let_go(tokens: TokenIds) -> None:
    """Release the pages of a mapped file that were read: they count as memory of this process until
    another one needs it, and are read again on demand.
    """
    mapped = getattr(tokens, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
