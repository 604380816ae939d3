"""What a reader gives: passages of a file's text, and what it noticed on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Passage(NamedTuple):
    """Text as it stands in a file, with whatever separates it from what follows."""

    text: str
    place: str = ""
    """Where it begins: "page 3", "chapter Two"; empty where it goes on."""
    document: bool = False
    """Whether a document of its own begins here, such as a row of JSONL."""
    conversation: bool = False
    """Whether that document is turns with marks between them; see corpus/turns.py."""


@dataclass
class Notes:
    """What happened while a file was read."""

    warnings: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    """What is in the file and is left out: bytes by reason, of text in UTF-8."""
    rewritten: Counter[str] = field(default_factory=Counter)
    """What was taken away, or added where below 0, before the reader saw the text: "unpacking"."""

    def drop(self, reason: str, text: str | None) -> None:
        """Count a text that is left out; spaces alone are none."""
        if text and not text.isspace():
            self.dropped[reason] += len(text.encode("utf-8", errors="replace"))
