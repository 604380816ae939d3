"""An exported chat of WhatsApp: a text file whose messages begin with date, time and name.

iOS writes `[12.03.24, 14:05:33] Anna: Hi`, Android `3/12/24, 2:05 PM - Anna: Hi`; order and signs
of the date are those of the telephone's country. Lines without a head go on with the message.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from folio.corpus.formats.conversations import turn
from folio.corpus.formats.passage import Notes, Passage

_DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
_HALF_OF_DAY = r"(?:\s?[^\W\d_]\.?\s?[^\W\d_]\.?)?"
_TIME = rf"\d{{1,2}}[:.]\d{{2}}(?:[:.]\d{{2}})?{_HALF_OF_DAY}"
_DIRECTION = r"[\u200e\u200f\u202a-\u202e\ufeff]*"
_HEAD = re.compile(
    rf"{_DIRECTION}(?:\[({_DATE},?\s{_TIME})\]|({_DATE},?\s{_TIME})\s[-–])\s{_DIRECTION}"
)
_SPEAKER = re.compile(r"(?:~\s?)?([^:\n]{1,80}): ?")
_MARK = "\u200e"
"""Before what the program says in the place of a message, on iOS."""
_EDITED = re.compile(rf"\s*{_MARK}<[^<>]*>\s*$")
_REMOVED = frozenset(("This message was deleted", "You deleted this message", "null"))
FIRST_LINES = 20
LINE_CHARACTERS = 1 << 16
"""Of a line that are looked at; a file may be a single line."""


def is_whatsapp(path: Path) -> bool:
    """Whether a text file begins as such an export does: with messages of two lines at least."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = [file.readline(LINE_CHARACTERS) for _ in range(FIRST_LINES)]
    except OSError:
        return False
    first = list(filter(str.strip, first))
    return len(first) > 1 and _is_head(first[0]) and sum(map(_is_head, first)) > 1


def read_whatsapp(
    lines: Iterable[str], column: str, notes: Notes, chat_times: bool = False
) -> Iterator[Passage]:
    """Who says what, a line for each message or several where it has them; the chat is a document.

    What the program reports, and the names of pictures that are not in the text, are counted.
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
    if head is None:  # what stands before the first message
        return text
    time = head[1] or head[2]
    speaker = _SPEAKER.match(text)
    said = _EDITED.sub("", text[speaker.end() :]).rstrip() if speaker else ""
    if speaker is None or said.startswith(_MARK) or said in _REMOVED or _is_placeholder(said):
        notes.drop("what the service reports", text)
        return ""
    if not with_time:
        notes.drop("times of messages", head[0])
    return turn(f"[{time}] {speaker[1]}" if with_time else speaker[1], said)


def _is_placeholder(said: str) -> bool:
    """Whether a message is `<Media omitted>`, in whatever language."""
    return said.startswith("<") and said.endswith(">") and said.count("<") == 1


def _is_head(line: str) -> bool:
    return _HEAD.match(line) is not None
