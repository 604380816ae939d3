"""A chat exported by WhatsApp: a text file whose messages begin with date, time and name.

iOS writes `[12.03.24, 14:05:33] Anna: Hi`, Android `3/12/24, 2:05 PM - Anna: Hi`; the date format
is
that of the phone's locale. Lines without such a head continue the message.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from folio.corpus.formats.conversations import turn
from folio.corpus.formats.passage import Notes, Passage

_SEPARATOR = r"\.? ?[\u200e\u200f]?[./-] ?"
_DATE = rf"\d{{1,4}}{_SEPARATOR}\d{{1,2}}{_SEPARATOR}\d{{1,4}}\.?"
_BETWEEN = r"(?:\s[^\W\d_]\.)?[,،]?\s(?:[^\W\d_]{1,5}\.?\s?)?"
"""What separates date and time; some languages put a word there: "г.", "à", "klo", the half of
the day."""
_CLOCK = r"\d{1,2}[:.]\d{2}"
_HALF_OF_DAY = r"(?:\s?[^\W\d_]\.?\s?[^\W\d_]?\.?)?"
_DIRECTION = r"[\u200e\u200f\u202a-\u202e\ufeff]*"
# Logs of programs have seconds without brackets, or ISO dates in brackets; phones have neither.
_HEAD = re.compile(
    rf"{_DIRECTION}(?:"
    rf"\[(?!\d{{4}}-\d\d-\d\d[ T]\d)({_DATE}{_BETWEEN}{_CLOCK}(?:[:.]\d{{2}})?{_HALF_OF_DAY})\]\s|"
    rf"({_DATE}{_BETWEEN}{_CLOCK}{_HALF_OF_DAY})\s[-–]\s|"
    rf"(\d{{1,2}}/\d{{1,2}}/\d{{2,4}},?\s{_CLOCK}[:.]\d{{2}}{_HALF_OF_DAY}):\s|"
    rf"(\d{{4}}\. ?\d{{1,2}}\. ?\d{{1,2}}\.{_BETWEEN}{_CLOCK}),\s"
    rf"){_DIRECTION}"
)
_SPEAKER = re.compile(
    r"(?:~\s?)?"
    r"((?>[^:\n“”„«»\"]|\b\"\b|\"[^\"\n]*\"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»){1,80}?): ?"
)
"""Quotes in a name are in pairs or inside a word, so that a colon in the subject of a group ends no
name."""
_MARK = "\u200e"
"""Precedes what the app reports in place of a message, on iOS."""
_EDITED = (
    "This message was edited|Diese Nachricht wurde bearbeitet|Se editó este mensaje|"
    "Ce message a été modifié|Questo messaggio è stato modificato|Mensagem editada"
)
_BESIDE = re.compile(
    rf"(?<!\s)\s*(?:{_MARK}<[^<>]*>|<(?:{_EDITED})\.?>)\s*$|"
    rf"^(?:{_MARK}[^\n]+|[A-Z]{{3}}-\d[\w-]*)\.\w{{2,5}} \([^()\n]+\)(?:\n|$)"
)
"""What the app adds to a message: that it was edited, the name of a file. Without the mark, only
its own words and names are."""
_REMOVED = frozenset(("This message was deleted", "You deleted this message", "null"))
FIRST_LINES = 20
LINE_BYTES = 1 << 13
"""How much of a line is looked at, on average; a file may be a single line."""


def begins_as_chat(head: bytes) -> bool:
    """Whether a file that begins with these bytes is such an export: its first lines hold two
    messages, and most heads name who speaks, unlike dates in a diary.
    """
    decoded = head[: FIRST_LINES * LINE_BYTES].decode("utf-8-sig", "replace")
    lines = list(filter(str.strip, decoded.splitlines()))
    first = [_HEAD.match(line) for line in lines[:FIRST_LINES]]
    if not any(first[:1]) or sum(map(bool, first)) < 2:
        return False
    found = list(filter(None, [*first, *map(_HEAD.match, lines[FIRST_LINES:])]))
    n_spoken = sum(_SPEAKER.match(head.string, head.end()) is not None for head in found)
    return 2 * n_spoken > len(found)


def read_whatsapp(
    lines: Iterable[str], column: str, notes: Notes, chat_times: bool = False
) -> Iterator[Passage]:
    """Read a chat as one document, one line per message unless a message has several.

    Reports of the app, and names of media that were not exported, are counted.
    """
    said: list[str] = []
    head: re.Match[str] | None = None
    for line in itertools.chain(lines, [None]):
        found = _HEAD.match(line) if line is not None else None
        if line is not None and found is None:
            said.append(line)
            continue
        text = _message(head, "".join(said), notes, chat_times)
        if text:
            yield Passage(text)
        head, said = found, [] if found is None or line is None else [line[found.end() :]]


def _message(head: re.Match[str] | None, text: str, notes: Notes, with_time: bool) -> str:
    if head is None:  # what precedes the first message
        return text
    time = next(filter(None, head.groups()))
    speaker = _SPEAKER.match(text)
    whole = text[speaker.end() :] if speaker else ""
    said = _BESIDE.sub("", whole).rstrip()
    if speaker is None or not said or said.startswith(_MARK) or _is_no_message(said):
        notes.drop("what the service reports", text)
        return ""
    for beside in _BESIDE.findall(whole):
        notes.drop("what the service reports", beside)
    if not with_time:
        notes.drop("times of messages", head[0])
    return turn(f"[{time}] {speaker[1]}" if with_time else speaker[1], said)


def _is_no_message(said: str) -> bool:
    """Whether a message was removed, or is `<Media omitted>` in any language."""
    omitted = said.startswith("<") and said.endswith(">") and said.count("<") == 1
    return omitted or said.rstrip(".") in _REMOVED
