"""Mail: what the sender wrote, without signatures and quotes; mbox and single messages."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from email import policy
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, BinaryIO

from folio.corpus.encodings import decode
from folio.corpus.formats.mail_text import enriched, quoted_in_a_page, unwrapped, written
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

MESSAGE_BYTES = 64 << 20
"""A longer message is left out, and counted."""
MOST_PARTS = 100
"""A message with more nested messages or parts is left out, because parsers take very long for
parts within parts."""
LINE_BYTES = 1 << 20
"""How much of a line is read at once."""
ENVELOPE = re.compile(
    rb"From .*?\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +"
    rb"(?:[A-Z][a-z]{2} +\d{1,2}|\d{1,2} +[A-Z][a-z]{2}) +"
    rb"(?:\d{4} +)?\d{1,2}:\d{2}(?::\d{2})?(?: +(?:[A-Z]{1,5}|[+-]\d{4}|\d{4}))*"
    rb"(?: remote from \S+)?\s*$"
)
"""The line before a message, with sender and date."""
FIELD = re.compile(
    rb"(?:from|to|cc|subject|date|received|return-path|delivered-to|message-id|mime-version|sender|"
    rb"reply-to|in-reply-to|content-[a-z-]+|status|x-[\w-]+|dkim-signature|envelope-to)\s*:",
    re.IGNORECASE,
)
_LENGTH = re.compile(rb"Content-Length:\s*(\d{1,12})\s*$", re.IGNORECASE)
_ESCAPED = re.compile(rb">+From ")
_ESCAPED_LINES = re.compile(rb"^>(>*From )", re.MULTILINE)
"""Lines that a program escaped, so that no message seems to begin there: they have one ">" too
many."""
_DELETED = re.compile(
    rb"(?:[^\r\n]+\r?\n)*?(?:X-Mozilla-Status: *[0-9a-f]{3}[89a-f]\b|X-Status: *[AFT]*D[AFT]*\s)",
    re.IGNORECASE,
)
"""The head of a message that was deleted and that its program has not removed yet."""
_TEXTS = ("text/plain", "text/html", "text/markdown", "text/enriched")
_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted")
_BOUNDARY = re.compile(rb"^--([^\s\"]{1,200})[ \t]*\r?\n(?=content-[a-z-]+:)", re.I | re.MULTILINE)
"""The line that separates two parts."""
_PART = re.compile(rb"boundary=|message/rfc822", re.IGNORECASE)


class TooDeepError(UserError):
    """Raised by parts that are nested too deeply."""


def read_mbox(path: Path, settings: dict[str, Any], notes: Notes) -> Iterator[Passage]:
    """Read one document per message of a mailbox; memory holds one message at a time."""
    n = 0
    for n, data in enumerate(_messages(path, notes), 1):
        if _DELETED.match(data):
            notes.dropped["messages that were deleted"] += len(data)
            continue
        try:
            text = _message_text(data, settings["mail_headers"], notes)
        except TooDeepError:
            notes.dropped["messages that are nested too deeply"] += len(data)
            notes.warnings.append(f"message {n} is nested too deeply and left out")
            continue
        if text:
            yield Passage(text, f"message {n}", document=True)
    if not n:
        raise UserError(
            "it is not a mailbox: no line with 'From ', a sender and a date begins a message"
        )


def read_eml(data: bytes, notes: Notes, mail_headers: tuple[str, ...] = ()) -> Iterator[Passage]:
    """Read a single message."""
    if b"\0" in data[:4]:  # saved as UTF-16
        data = decode(data, None, notes).encode("utf-8", "replace")
    data = data.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    yield Passage(_message_text(data, mail_headers, notes))


def read_saved_page(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read a web page as browsers save it: a mail with the page and its pictures."""
    from folio.corpus.formats.html import html_text

    message = _parsed(data)
    for part in message.walk():
        _drop_head(part, notes)
        for beside in (part.preamble, part.epilogue):
            notes.drop("what stands beside the parts", beside)
        if part.get_content_type() == "text/html":
            yield Passage(html_text(_content(part, notes), notes, with_title=True))
        elif not part.is_multipart():
            notes.dropped["attachments"] += _packed_bytes(part)


def _messages(path: Path, notes: Notes) -> Iterator[bytes]:
    """The messages of a mailbox, without the line that separates each from the one before."""
    lines: list[bytes] = []
    n_bytes, begun, in_head, empty = 0, False, False, True
    with path.open("rb") as file:
        file.seek(len(codecs.BOM_UTF8) if file.peek(3).startswith(codecs.BOM_UTF8) else 0)
        while line := file.readline(LINE_BYTES):
            if _is_envelope(line, empty or not begun, file):
                if begun:
                    yield from _kept(lines, n_bytes, notes)
                lines, n_bytes, begun, in_head = [], 0, True, True
                notes.dropped["mail headers"] += len(line)
            elif begun:
                n_bytes += len(line)
                if n_bytes <= MESSAGE_BYTES:
                    lines.append(line[1:] if line[:1] == b">" and _ESCAPED.match(line) else line)
            elif line.strip():
                notes.dropped["what stands before the first message"] += len(line)
            empty = not line.strip()
            if in_head and empty:
                in_head = False
                body = _body(lines, file)
                n_bytes += len(body)
                lines.append(_ESCAPED_LINES.sub(rb"\1", body))
    if begun:
        yield from _kept(lines, n_bytes, notes)


def _is_envelope(line: bytes, after_empty: bool, file: BinaryIO) -> bool:
    """Whether a line separates two messages, or is a sentence that begins with "From ".

    With sender and date it separates them wherever it is, as in Dovecot; for Python's mailbox any
    such line does. Without a date it does so only after an empty line and before a header field.
    """
    if not line.startswith(b"From "):
        return False
    if ENVELOPE.match(line[:1000]):
        return True
    if not after_empty:
        return False
    at = file.tell()
    following = file.readline(1000)
    file.seek(at)
    return FIELD.match(following) is not None


def _body(head: list[bytes], file: BinaryIO) -> bytes:
    """The body of a message that declares its length, if that is right; else nothing.

    It is right if the next message begins there, or the file ends; such bodies may contain lines
    that look like the beginning of a message.
    """
    length = next((match for line in head if (match := _LENGTH.match(line))), None)
    n_bytes = int(length[1]) if length else 0
    begin = file.tell()
    if 0 < n_bytes <= min(MESSAGE_BYTES, os.fstat(file.fileno()).st_size - begin):
        file.seek(begin + n_bytes)
        line = file.read(1000).lstrip(b"\r\n").partition(b"\n")[0]
        file.seek(begin)
        if ENVELOPE.match(line) or not line:
            return file.read(n_bytes)
    return b""


def _kept(lines: list[bytes], n_bytes: int, notes: Notes) -> Iterator[bytes]:
    if n_bytes > MESSAGE_BYTES:
        notes.dropped["messages that are too long"] += n_bytes
        notes.warnings.append(f"a message of {n_bytes >> 20} MB is left out")
    else:
        yield b"".join(lines)


def _message_text(data: bytes, headers: tuple[str, ...], notes: Notes) -> str:
    if len(_PART.findall(data)) > MOST_PARTS:
        raise TooDeepError("its parts are nested too deeply")
    message = _parsed(data)
    wanted = {name.lower() for name in headers}
    head = ""
    for name, value in message.raw_items():
        if name.lower() in wanted:
            head += f"{name}: {_header(name, value)}\n"
        else:
            notes.drop("mail headers", str(value))
    body = _said(message, notes)
    return f"{head}\n{body}".lstrip("\n") if body or head else ""


def _parsed(data: bytes) -> Message:
    # policy.default would parse each field again on each access.
    return BytesParser(policy=policy.compat32).parsebytes(data)


def _said(part: Message, notes: Notes) -> str:
    """The text of a part and its subparts; of alternatives, the plainest."""
    kind = part.get_content_type()  # parsed again on each call
    for beside in (part.preamble, part.epilogue):
        notes.drop("what stands beside the parts", beside)
    if part.is_multipart():
        inside: list[Any] = [p for p in part.get_payload() if isinstance(p, Message)]
        if kind == "multipart/alternative":
            inside = [_plainest(inside, notes)] if inside else []
        for child in inside:
            _drop_head(child, notes)
        return "\n".join(filter(None, (_said(child, notes) for child in inside)))
    if kind.startswith("multipart/") and (found := _unannounced(part, kind)) is not None:
        return _said(found, notes)
    if not _is_text(part, kind):
        reason = "encrypted text" if kind in _ENCRYPTED else "attachments"
        notes.dropped[reason] += _packed_bytes(part)
        return ""
    text = _content(part, notes)
    if kind == "text/html":
        text = _page_text(text, notes)
    elif kind == "text/enriched":
        text = enriched(text, notes)
    elif "flowed" in _raw(part, "content-type").lower():
        text = unwrapped(text, str(part.get_param("delsp", "")).lower() == "yes")
    return written(text, notes)


def _raw(part: Message, name: str) -> str:
    """A header field as it is written."""
    return next((str(value) for key, value in part.raw_items() if key.lower() == name), "")


def _unannounced(part: Message, kind: str) -> Message | None:
    """A multipart whose actual boundary differs from the one in its header, parsed by the actual
    one.
    """
    body = _payload(part)
    boundary = _BOUNDARY.search(body)
    if boundary is None:
        return None
    head = f'Content-Type: {kind}; boundary="'.encode("ascii", "replace")
    found = _parsed(head + boundary[1] + b'"\n\n' + body)
    return found if found.is_multipart() else None


def _plainest(alternatives: list[Message], notes: Notes) -> Message:
    """Choose one of several alternative parts; the others are counted."""

    def is_plain(part: Message) -> bool:
        return any(
            (kind := p.get_content_type()) == "text/plain"
            and _is_text(p, kind)
            and _payload(p).strip()
            for p in part.walk()
        )

    def is_page(part: Message) -> bool:
        return any(p.get_content_type() == "text/html" for p in part.walk())

    chosen = next(filter(is_plain, alternatives), None)
    chosen = chosen or next(filter(is_page, alternatives), alternatives[-1])
    for part in alternatives:
        for p in part.walk() if part is not chosen else ():
            _drop_head(p, notes)
            if _is_text(p, p.get_content_type()):
                notes.drop("the same message in another form", _content(p, Notes()))
            elif not p.is_multipart():
                notes.dropped["attachments"] += _packed_bytes(p)
    return chosen


def _drop_head(part: Message, notes: Notes) -> None:
    for _, value in part.raw_items():
        notes.drop("mail headers", str(value))


def _is_text(part: Message, kind: str) -> bool:
    is_text = kind in _TEXTS or kind.startswith("multipart/")
    # A multipart without the announced parts is text.
    if not is_text or part.is_multipart():
        return False
    return not _raw(part, "content-disposition").strip().lower().startswith("attachment")


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _packed_bytes(part: Message) -> int:
    """Size of a part as it lies in the message, in bytes."""
    try:
        packed = part.get_payload()
    except (TypeError, ValueError):  # `email` decodes 8-bit text, and knows no such character set
        packed = _payload(part)
    return len(packed) if isinstance(packed, str | bytes) else 0


def _content(part: Message, notes: Notes) -> str:
    named = None
    with suppress(ValueError):  # a name with a NUL
        named = part.get_content_charset()
    return decode(_payload(part), named, notes)


def _page_text(page: str, notes: Notes) -> str:
    try:
        from folio.corpus.formats.html import html_text

        return html_text(page, notes, quoted_in_a_page)
    except ImportError:
        notes.warnings.append("mail in HTML needs: pip install 'foliolm[documents]'")
        notes.drop("HTML without its reader", page)
        return ""


def _header(name: str, value: str) -> str:
    """A header field as it is displayed."""
    try:
        return str(policy.default.header_fetch_parse(name, value))
    except (ValueError, IndexError, AttributeError):  # a malformed header
        return ""
