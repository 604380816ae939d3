"""Recognizes files that their names do not tell apart: texts between marks, chats, mailboxes."""

from __future__ import annotations

import codecs
from pathlib import Path, PurePath

from folio.corpus.formats.known import MARKED, WHATSAPP, Format
from folio.corpus.formats.plain import MARKS
from folio.corpus.formats.whatsapp import begins_as_chat

BLOCK_BYTES = 1 << 20
LINE_BYTES = 1000
"""How much of the first line of a file without a suffix is looked at."""


def first_look(path: Path) -> Format | None:
    """The format of a text file; None for plain text.

    A mark may occur anywhere, so the whole file is searched once.
    """
    marks = [mark.encode("ascii") for mark in MARKS]
    try:
        with path.open("rb") as file:
            first = block = file.read(BLOCK_BYTES)
            while block:
                if any(mark in block for mark in marks):
                    return MARKED
                end = block[1 - max(map(len, marks)) :]  # a mark may be cut in two
                block = file.read(BLOCK_BYTES)
                block = end + block if block else b""
    except OSError:  # reported when the file is read
        return None
    return WHATSAPP if begins_as_chat(first) else None


def is_mailbox(name: str, path: Path) -> bool:
    """Whether a file is a mailbox as Thunderbird and Apple Mail name it, without a suffix.

    Args:
        name: what the file is called, without the suffix of its compression.
        path: where its bytes are.
    """
    if PurePath(name).suffix:
        return False
    from folio.corpus.formats.mail import ENVELOPE  # here, since few files need what it imports

    try:
        with path.open("rb") as file:
            head = file.read(LINE_BYTES).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    except OSError:  # reported when the file is read
        return False
    return ENVELOPE.match(head.partition(b"\n")[0]) is not None
