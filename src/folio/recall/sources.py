"""Maps a place in the training text to the document, page and character that it came from."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.run.directory import Run
from folio.run.parts import Parts, read_canaries, read_parts
from folio.tokens.text import TokenText, to_text

AROUND = 200
"""Characters that are shown on either side of a place."""


@dataclass(frozen=True)
class Source:
    """The position of a passage in the user's files."""

    document: str
    page: str
    """Its page or chapter; empty where the document has none."""
    offset: int
    """Characters from the beginning of the document, as it was read."""

    def __str__(self) -> str:
        page = f", {self.page}" if self.page else ""
        return f"{self.document}{page}, character {self.offset:,}"


class Sources:
    """The documents of a run's training text."""

    def __init__(self, run: Run, text: TokenText) -> None:
        """Read what the run noted of them."""
        self.text = text
        self.planted_lines = [canary.line for canary in read_canaries(run)]
        self.entries: list[dict[str, Any]] = run.corpus()["sources"]
        parts = read_parts(run)
        known = parts is not None and len(parts) == len(text.document_starts)
        self.parts: Parts | None = parts if known else None

    @property
    def known(self) -> bool:
        """Whether the run noted its documents; older ones did not."""
        return self.parts is not None

    @property
    def families(self) -> NDArray[np.int64] | tuple[()]:
        """The family of each document; empty if unknown."""
        return self.parts.families if self.parts is not None else ()

    def documents_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the numbers of the documents in the training text."""
        return np.searchsorted(self.text.document_starts, places, "right") - 1

    def document_at(self, place: int) -> int:
        """The number of the document at a place."""
        return int(self.documents_at(np.array([place]))[0])

    def name(self, document: int) -> str:
        """Name of a document, by its number in the training text."""
        if self.parts is None:
            return f"document {document + 1}"
        return self.entries[int(self.parts.source[document])]["source"]

    def locate(self, place: int) -> Source:
        """Find the source of a place in the training text."""
        document = self.document_at(place)
        start = int(self.text.document_starts[document])
        offset = self.text.characters_before(place) - self.text.characters_before(start)
        offset -= self._planted_between(start, place)
        page = ""
        if self.parts is not None:
            offset += int(self.parts.start[document])
            entry = self.entries[int(self.parts.source[document])]
            places = entry.get("places", [])
            number = bisect_right([at for at, _ in places], offset) - 1
            page = places[number][1] if number >= 0 else ""
        return Source(self.name(document), page, offset)

    def _planted_between(self, start: int, place: int) -> int:
        """Number of characters of planted lines between two places, which the document does not
        have.
        """
        n = 0
        for begin, line in self._planted:
            if start <= begin < place:
                since = self.text.characters_before(place) - self.text.characters_before(begin)
                n += min(len(line), since)
        return n

    @cached_property
    def _planted(self) -> list[tuple[int, str]]:
        """Each planted line and where it begins, ascending."""
        lines = self.planted_lines
        if not lines:
            return []
        pattern, longest = re.compile("|".join(map(re.escape, lines))), max(map(len, lines))
        found, window, begin = list[tuple[int, str]](), "", 0
        for piece in self.text.pieces():
            window += piece
            kept = max(len(window) - longest + 1, 0)  # what may go on in the next piece
            for match in pattern.finditer(window):
                place = self.text.place_of_character(begin + match.start())
                found.append((place, match[0]))
                kept = max(kept, match.end())
            window, begin = window[kept:], begin + kept
        return found

    def around(self, start: int, stop: int) -> tuple[str, str, str]:
        """The text before, of, and after a stretch of the training text."""
        reach = 4 * AROUND
        texts = [
            to_text(self.text.between(start - reach, start))[-AROUND:],
            to_text(self.text.between(start, stop)),
            to_text(self.text.between(stop, stop + reach))[:AROUND],
        ]
        return texts[0], texts[1], texts[2]
