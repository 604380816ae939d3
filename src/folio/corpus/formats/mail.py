"""Mail: what somebody wrote, without signatures and what it quotes; mbox and single messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

MESSAGE_BYTES = 64 << 20
"""A longer message is left out, and counted."""
MOST_PARTS = 100
"""A message that holds more messages, or lists of parts, is read by nobody; parsers take very long
for parts in parts."""
_PART = re.compile(rb"boundary=|message/rfc822", re.IGNORECASE)
_QUOTED = re.compile(r"^\s*>")
_ATTRIBUTION = re.compile(
    r"^(On\b.{4,200}\bwrote|Am\b.{4,200}\bschrieb\b.{0,80}|Le\b.{4,200}\ba écrit\s?|"
    r"El\b.{4,200}\bescribió|Il\b.{4,200}\bha scritto)\s?:$",
    re.DOTALL,
)
_ORIGINAL = re.compile(
    r"^-{2,}\s*(Original Message|Ursprüngliche Nachricht|Message d'origine)", re.I
)


class TooDeepError(UserError):
    """Parts in parts, without end."""


def read_mbox(path: Path, settings: dict[str, Any], notes: Notes) -> Iterator[Passage]:
    """A document for each message of a mailbox, of which one is held at a time."""
    n = 0
    for n, data in enumerate(_messages(path, notes), 1):
        try:
            text = _message_text(data, settings["mail_headers"], notes)
        except TooDeepError:
            notes.dropped["messages that are nested too deeply"] += len(data)
            notes.warnings.append(f"message {n} is nested too deeply and left out")
            continue
        if text:
            yield Passage(text, f"message {n}", document=True)
    if not n:
        raise UserError("it is no mailbox: no line begins with 'From '")


def read_eml(data: bytes, notes: Notes, mail_headers: tuple[str, ...] = ()) -> Iterator[Passage]:
    """One message."""
    yield Passage(_message_text(data, mail_headers, notes))


def _messages(path: Path, notes: Notes) -> Iterator[bytes]:
    lines: list[bytes] = []
    n_bytes, begun, empty = 0, False, True
    with path.open("rb") as file:
        for line in file:
            if (empty or not begun) and line.startswith(b"From "):
                if begun:
                    yield from _kept(lines, n_bytes, notes)
                lines, n_bytes, begun = [], 0, True
                notes.dropped["mail headers"] += len(line)
            elif begun:
                n_bytes += len(line)
                if n_bytes <= MESSAGE_BYTES:
                    lines.append(line[1:] if line.startswith(b">From ") else line)
            elif line.strip():
                notes.dropped["what stands before the first message"] += len(line)
            empty = not line.strip()
    if begun:
        yield from _kept(lines, n_bytes, notes)


def _kept(lines: list[bytes], n_bytes: int, notes: Notes) -> Iterator[bytes]:
    if n_bytes > MESSAGE_BYTES:
        notes.dropped["messages that are too long"] += n_bytes
        notes.warnings.append(f"a message of {n_bytes >> 20} MB is left out")
    else:
        yield b"".join(lines)


def _message_text(data: bytes, headers: tuple[str, ...], notes: Notes) -> str:
    if len(_PART.findall(data)) > MOST_PARTS:
        raise TooDeepError("its parts are nested too deeply")
    message = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(message, EmailMessage)
    wanted = {name.lower() for name in headers}
    head = ""
    for name, value in message.raw_items():
        if name.lower() in wanted:
            head += f"{name}: {_header(message, name)}\n"
        else:
            notes.drop("mail headers", str(value))
    parts = []
    for part in message.walk():
        if part is not message:
            for _, value in part.raw_items():
                notes.drop("mail headers", str(value))
        for beside in (part.preamble, part.epilogue):
            notes.drop("what stands beside the parts", beside)
        if part.is_multipart():
            continue
        is_text = part.get_content_type() in ("text/plain", "text/html")
        if not is_text or part.get_content_disposition() == "attachment":
            raw = part.get_payload()
            notes.dropped["attachments"] += len(raw) if isinstance(raw, str) else 0
        else:
            parts.append((part.get_content_type(), _content(part, notes)))
    plain = [text for kind, text in parts if kind == "text/plain" and text.strip()]
    pages = [text for kind, text in parts if kind == "text/html"]
    if plain:
        for page in pages:
            notes.drop("the same message as HTML", page)
    else:
        plain = [_page_text(page, notes) for page in pages]
    body = written("\n".join(plain), notes)
    return f"{head}\n{body}".lstrip("\n") if body or head else ""


def written(body: str, notes: Notes) -> str:
    """What the sender wrote: no signature, no quoted lines, nor whose they are."""
    lines = body.replace("\r\n", "\n").split("\n")
    for i, line in enumerate(lines):
        if line in ("-- ", "--") and i > 0:
            notes.drop("signatures", "\n".join(lines[i:]))
            lines = lines[:i]
            break
    for i, line in enumerate(lines):
        if _ORIGINAL.match(line):
            notes.drop("quoted mail", "\n".join(lines[i:]))
            lines = lines[:i]
            break
    kept: list[str] = []
    for line in lines:
        if not _QUOTED.match(line):
            kept.append(line)
            continue
        notes.drop("quoted mail", line)
        while kept and not kept[-1].strip():
            kept.pop()
        for n in (1, 2):  # "On Monday ... wrote:" may take two lines
            if _ATTRIBUTION.match("\n".join(kept[-n:])):
                notes.drop("quoted mail", "\n".join(kept[-n:]))
                del kept[-n:]
                break
        kept.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n" if any(kept) else ""


def _content(part: EmailMessage, notes: Notes) -> str:
    from folio.corpus.encodings import decode

    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    return decode(data, part.get_content_charset(), notes)


def _page_text(page: str, notes: Notes) -> str:
    try:
        from folio.corpus.formats.html import html_text

        return html_text(page, notes)
    except ImportError:
        notes.warnings.append("mail in HTML needs: pip install 'foliolm[documents]'")
        notes.drop("HTML without its reader", page)
        return ""


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message[name])
    except (ValueError, IndexError, AttributeError):  # a header against the rules
        return ""
