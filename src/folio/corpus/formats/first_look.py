"""Recognizes files that their names do not tell apart: texts between marks, chats, mailboxes."""

from __future__ import annotations

import codecs
from pathlib import Path

from folio.corpus.formats.known import MARKED, WHATSAPP, Format
from folio.corpus.formats.plain import MARKS
from folio.corpus.formats.whatsapp import begins_as_chat

BLOCK_BYTES = 1 << 20


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


def begins_as_mailbox(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a mailbox, which Thunderbird and Apple Mail
    name as the user calls it: `Inbox`, `Letters.2019`.
    """
    line, _, rest = head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").partition(b"\n")
    if not line.startswith(b"From "):
        return False
    from folio.corpus.formats.mail import ENVELOPE, FIELD  # here: few files need what it imports

    return ENVELOPE.match(line) is not None and FIELD.match(rest) is not None
