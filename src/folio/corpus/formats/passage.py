"""What a reader returns: passages of a file's text, and notes on what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Passage(NamedTuple):
    """A stretch of text, including the separator from what follows."""

    text: str
    place: str = ""
    """Where it begins: "page 3", "chapter Two"; empty if it continues the last one."""
    document: bool = False
    """Whether a new document begins here, as for a row of JSONL."""
    conversation: bool = False
    """Whether that document is a conversation, with marks between its turns; see
    corpus/turns.py."""


@dataclass
class Notes:
    """What happened while a file was read, and what its text is to be decoded by."""

    warnings: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """What the file has but the text lacks: UTF-8 bytes by reason."""
    rewritten: Counter[str] = field(default_factory=Counter)
    """What was removed before the reader saw the text, such as "unpacking"; negative if added."""
    encoding: str = "auto"
    """What the user says of text that does not declare its encoding; `auto` has it guessed."""

    def drop(self, reason: str, text: str | None) -> None:
        """Count a text that is left out; white space alone does not count."""
        if text and not text.isspace():
            self.dropped[reason] += len(text.encode("utf-8", errors="replace"))
