"""Text that may be shown while it is written, up to the first of some strings."""

from __future__ import annotations

from collections.abc import Sequence


class StoppableText:
    """Lets text through as it comes, and holds back what may begin a stop string.

    A text ends where the first stop string is complete, read character by character, so that it
    does not matter in which pieces the text comes. The stop string is no part of it.

    >>> text = StoppableText(["END"])
    >>> text.take("The E"), text.take("nd is nigh. EN"), text.take("D. And so on")
    ('The ', 'End is nigh. ', '')
    >>> text.stopped
    True
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        """Begin a text that any of these ends."""
        self.stop_strings = stop_strings
        self.stopped = False
        self._held = ""

    def take(self, piece: str) -> str:
        """Add a piece; returns what may be shown now."""
        text = self._held + piece
        found = [(text.find(s) + len(s), text.find(s)) for s in self.stop_strings if s in text]
        if found:  # the one that ends first; of those, the longest
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        n_held = max((_overlap(text, s) for s in self.stop_strings), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def end(self) -> str:
        """Return what was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop_string: str) -> int:
    """Characters at the end of a text that a string begins with."""
    longest = min(len(text), len(stop_string) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop_string[:n])), 0)
