"""Org files of Emacs: headings, prose, code and tables, without metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from folio.corpus.formats.passage import Notes, Passage

_HEADING = re.compile(
    r"\*+\s+(?:(?:TODO|DONE|NEXT|WAITING|STARTED|CANCELL?ED)\s+)?(?:\[#\w\]\s+)?"
    r"(.*?)(\s+:[\w@#%:]+:)?\s*$"
)
_KEYWORD = re.compile(r"\s*#\+(\w+)(?:\[[^]]*\])?:\s*(.*)$")
_SHOWN_KEYWORDS = ("title", "subtitle", "caption")
_BEGIN = re.compile(r"\s*#\+begin_(\w+)", re.IGNORECASE)
_END = re.compile(r"\s*#\+end_(\w+)", re.IGNORECASE)
_HIDDEN_BLOCKS = ("comment", "export")
_VERBATIM_BLOCKS = ("src", "example")
_COMMENT = re.compile(r"\s*#(\s|$)")
_DRAWER = re.compile(r"\s*(:)[\w-]+:\s*$")
_PROPERTIES = re.compile(r"\s*:properties:\s*$", re.IGNORECASE)
_DRAWER_END = re.compile(r"\s*(:)end:\s*$", re.IGNORECASE)
_PLANNING = re.compile(r"\s*(?:SCHEDULED|DEADLINE|CLOSED|CLOCK):")
_RULE = re.compile(r"\s*\|[-+]+\|\s*$")
_LINK = re.compile(r"\[\[([^][]*)\](?:\[([^][]*)\])?\]")
# Bounded, since a line of a thousand signs would otherwise be scanned to its end a thousand times.
_EMPHASIS = re.compile(r"(?<![\w*/_=~+])([*/_=~+])(\S(?:[^\n]{0,200}?\S)?)\1(?![\w*/_=~+])")


def read_org(lines: Iterable[str], column: str, notes: Notes) -> Iterator[Passage]:
    """Read the text of a file, all of whose lines are held in memory."""
    block = ""
    in_drawer = False
    texts = [line.rstrip("\r\n") for line in lines]
    closed = _closed(texts)
    for i, text in enumerate(texts):
        for target, shown in _LINK.findall(text) if block not in _VERBATIM_BLOCKS else ():
            notes.drop("targets of links", target if shown else "")
        if in_drawer:
            notes.drop("drawers", text)
            in_drawer = not _DRAWER_END.match(text)
        elif block:
            if (end := _END.match(text)) and end[1].lower() == block:
                block = ""
            elif block in _HIDDEN_BLOCKS:
                notes.drop("comments", text)
            else:
                yield Passage((text if block in _VERBATIM_BLOCKS else _inline(text)) + "\n")
        elif begin := _BEGIN.match(text):
            named = begin[1].lower()
            block = named if named not in _HIDDEN_BLOCKS or i in closed else ""
            notes.drop("settings of the file", text[begin.end() :])
        elif keyword := _KEYWORD.match(text):
            if keyword[1].lower() in _SHOWN_KEYWORDS:
                yield Passage(_inline(keyword[2]) + "\n")
            else:
                notes.drop("settings of the file", keyword[2])
        elif _COMMENT.match(text):
            notes.drop("comments", text)
        elif _PLANNING.match(text):
            notes.drop("times of tasks", text)
        elif i in closed:
            in_drawer = True
        elif heading := _HEADING.match(text):
            notes.drop("tags", heading[2])
            yield Passage(_inline(heading[1]) + "\n", heading[1])
        elif not _RULE.match(text):
            yield Passage(_inline(text) + "\n")


def _closed(texts: Sequence[str]) -> set[int]:
    """The numbers of the lines at which a drawer or a block begins that ends before the next
    heading; what looks like the beginning of another one is text, such as `:smile:`.
    """
    closed: set[int] = set()
    begun: dict[str, int] = {}  # where the last one began, by the name of a block or ":"
    for i, text in enumerate(texts):
        if _HEADING.match(text):
            begun.clear()
        elif end := _END.match(text) or _DRAWER_END.match(text):
            if end[1].lower() in begun:
                closed.add(begun.pop(end[1].lower()))
        elif begin := _BEGIN.match(text) or _DRAWER.match(text):
            name = begin[1].lower()
            is_property = name in begun and _PROPERTIES.match(texts[begun[name]])
            if not is_property:  # one without a value looks like the beginning of a drawer
                begun[name] = i
    return closed


def _inline(text: str) -> str:
    """Remove the markup of links and emphasis.

    >>> _inline("See [[https://example.org][the *old* page]], =code= and 2 * 3 * 4.")
    'See the old page, code and 2 * 3 * 4.'
    """
    return _EMPHASIS.sub(r"\2", _LINK.sub(lambda link: link[2] or link[1], text))
