"""Finds where LaTeX's braces, environments and formulas are closed.

All braces are paired in one pass before the text is walked, and each mark is searched once per
file, so that constructs that are opened again and again and never closed take no longer.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from folio.corpus.formats.latex_words import COMMENTS, VERBATIM

_PAIRED = re.compile(
    r"\\begin\{(?P<environment>\w+\*?)\}|\\(?:verb|lstinline)\*?(?P<verb>[^\s\w*{[\\])|"
    r"\\(?:url|path|nolinkurl|href)\s*(?P<address>\{[^{}\n]*\})|\\.|%[^\n]*|[{}]",
    re.DOTALL,
)


def pairs(source: str) -> dict[int, int]:
    """Where each opened brace is closed, except in comments and verbatim text."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    ends = Ends(source)
    at = 0
    while token := _PAIRED.search(source, at):
        at = token.end()
        if token[0] == "{":
            opened.append(at - 1)
        elif token[0] == "}" and opened:
            closing[opened.pop()] = at - 1
        elif token["address"]:
            closing[token.start("address")] = at - 1
        elif token["verb"]:
            at = max(source.find(token["verb"], at), at)
        elif name := token["environment"]:
            closing[token.start("environment") - 1] = at - 1
            if name.rstrip("*") in VERBATIM.keys() | COMMENTS.keys():
                at = ends.next(rf"\end{{{name}}}", at) or at
    return closing


class Ends:
    """Positions of marks; each is searched once in the whole text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.places: dict[str, list[int]] = {}

    def next(self, mark: str, at: int) -> int | None:
        """Return the first position of a mark from `at` on; an escaped dollar does not count."""
        if mark not in self.places:
            pattern = (r"(?<!\\)" if mark.startswith("$") else "") + re.escape(mark)
            self.places[mark] = [found.start() for found in re.finditer(pattern, self.source)]
        places = self.places[mark]
        i = bisect_left(places, at)
        return places[i] if i < len(places) else None
