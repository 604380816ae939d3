"""Cleaning: each step is optional, counted, and shown with examples.

unicode              NFC: one code for one character
control characters   invisible ones are dropped, direction marks among them
whitespace           one kind of line end and space, none before a line end, one empty line
boilerplate          lines with which many pages begin or end are dropped: menus, legal notices
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from folio.corpus.document import Pieces

BLOCK_CHARACTERS = 1 << 16
LONGEST_LINE = 1 << 22
"""In characters; a longer line is cleaned in parts."""
SHOWN = 3
"""How many examples are kept for each step."""

BOILERPLATE_FILES = 5
BOILERPLATE_SHARE = 0.3
"""A line is boilerplate if it stands at one place in so many files, in at least this share of them,
and with at least this share of all its occurrences. Places are counted from the start or the end.
Ordinary lines, such as "Yes." or `else:`, recur in many files, but at many places."""
EDGE_LINES = 50
"""How many lines at the start and at the end of a file may be boilerplate."""
BOILERPLATE_SAMPLE = 200
"""How many files are searched, chosen by their content."""
BOILERPLATE_CHARACTERS = (2, 300)

# Zero-width joiners stay: emoji and several scripts need them.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_BEFORE_LINE_END = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Which changes are made to a text before anything is learned from it."""

    apply_to: Literal["extracted", "all", "none"] = "extracted"
    """`extracted`: text that a reader made of PDF, HTML, DOCX, ODT, EPUB or with Tika. Plain text,
    source code and rows of tables are cleaned only with `all`."""

    unicode: bool = True
    """Normal form C: a letter and its accent become one character."""

    control_characters: bool = True
    """Drop invisible characters."""

    whitespace: bool = True
    """One kind of line end and space, no spaces before a line end, one empty line at most."""

    boilerplate: bool = True
    """Drop lines near the start or the end of a page, PDF or EPUB, or of plain text if that is
    cleaned, that stand at the same place in a third of these files, and in at least five."""


@dataclass
class Tally:
    """What cleaning changed, over all documents."""

    changes: Counter[str] = field(default_factory=Counter)
    """How often each step changed something."""
    rewritten: Counter[str] = field(default_factory=Counter)
    """UTF-8 bytes before minus bytes after, by step; negative where the text grew."""
    dropped: Counter[str] = field(default_factory=Counter)
    """UTF-8 bytes left out, by reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, step: str, count: int, example: Callable[[], str]) -> None:
        """Count a change; `example` is called only while there are few examples."""
        self.changes[step] += count
        shown = self.examples.setdefault(step, [])
        if len(shown) < SHOWN and (made := example()) not in shown:
            shown.append(made)


def cleaned(
    pieces: Pieces, config: CleaningConfig, boilerplate: frozenset[int] = frozenset()
) -> Pieces:
    """The same text, cleaned each time it is read."""
    return lambda: clean(pieces(), config, boilerplate)


def clean(
    pieces: Iterable[str],
    config: CleaningConfig,
    boilerplate: frozenset[int] = frozenset(),
    tally: Tally | None = None,
    source: str = "",
    places: Sequence[int] = (),
    moved: list[int] | None = None,
) -> Iterator[str]:
    """Clean a text that comes in pieces.

    Args:
        pieces: the text.
        config: which steps to take.
        boilerplate: numbers of the lines to drop, from 0; empty lines do not count.
        tally: counts the changes; None if they have been counted before.
        source: the name that examples show.
        places: character positions in the text, ascending ...
        moved: ... and receives the same positions in the cleaned text.
    """
    tally = tally or Tally()
    n_characters = held = n_lines = 0
    for block in _blocks(pieces, places):
        if block is None:
            if moved is not None:
                moved.append(n_characters + (min(held, 2) if n_characters else 0))
            continue
        text = block
        if config.control_characters:
            text = _without_control(text, tally, source)
        if config.unicode:
            text = _composed(text, tally, source)
        if boilerplate and config.boilerplate:
            text, n_lines = _without_boilerplate(text, boilerplate, n_lines, tally)
        if config.whitespace:
            n_bytes = _size(text)
            text = _plain_spaces(text, tally, source)
            # Line ends at the end of a block wait for the next block, which may begin with more of
            # them.
            body = text.lstrip("\n")
            held += len(text) - len(body)
            text = ""
            if body:
                text = ("\n" * min(held, 2) if n_characters else "") + body.rstrip("\n")
                held = len(body) - len(body.rstrip("\n"))
            tally.rewritten["whitespace"] += n_bytes - _size(text)
        if text:
            n_characters += len(text)
            yield text
    if config.whitespace and held and n_characters:
        tally.rewritten["whitespace"] -= 1
        yield "\n"


def find_boilerplate(
    documents: Sequence[tuple[str, Pieces]], config: CleaningConfig
) -> frozenset[tuple[int, str]]:
    """Find lines that stand at the same place in many documents.

    Args:
        documents: the sha256 and the text of each; the sample is chosen by sha256.
        config: how the lines are cleaned before they are compared.

    Returns:
        Each line with its place: 0, 1, ... from the start, -1, -2, ... from the end.
    """
    sample = sorted(documents, key=lambda document: document[0])[:BOILERPLATE_SAMPLE]
    seen: Counter[tuple[int, str]] = Counter()
    shortest, longest = BOILERPLATE_CHARACTERS
    everywhere: Counter[str] = Counter()
    for _, pieces in sample:
        lines = list(_lines(pieces(), config, ()))
        everywhere.update(lines)
        seen.update(
            (place, line)
            for place, line in _edges(lines)
            if shortest <= len(line) <= longest and any(map(str.isalnum, line))
        )

    def enough(line: str) -> float:
        return max(BOILERPLATE_FILES, BOILERPLATE_SHARE * max(len(sample), everywhere[line]))

    return frozenset((place, line) for (place, line), n in seen.items() if n >= enough(line))


def boilerplate_lines(
    pieces: Iterable[str],
    config: CleaningConfig,
    boilerplate: frozenset[tuple[int, str]],
    places: Sequence[int] = (),
) -> frozenset[int]:
    """The numbers of the lines of a document that are boilerplate, for `clean`."""
    if not boilerplate:
        return frozenset()
    lines = list(_lines(pieces, config, places))
    return frozenset(at[0] % len(lines) for at in _edges(lines) if at in boilerplate)


def _lines(pieces: Iterable[str], config: CleaningConfig, places: Sequence[int]) -> Iterator[str]:
    """The lines that are not empty, cleaned."""
    for text in clean(pieces, replace(config, boilerplate=False), places=places):
        yield from filter(None, map(str.strip, text.splitlines()))


def _edges(lines: Sequence[str]) -> list[tuple[int, str]]:
    """The first and the last lines with their places."""
    last = lines[-EDGE_LINES:]
    return [*enumerate(lines[:EDGE_LINES]), *zip(range(-len(last), 0), last)]


# ---- steps -----------------------------------------------------------------------------


def _without_control(text: str, tally: Tally, source: str) -> str:
    changed, count = _CONTROL.subn("", text)
    if count:
        tally.rewritten["control characters"] += _size(text) - _size(changed)
        tally.note("control characters", count, lambda: _around(text, _CONTROL, source))
    return changed


def _composed(text: str, tally: Tally, source: str) -> str:
    if unicodedata.is_normalized("NFC", text):
        return text
    changed = unicodedata.normalize("NFC", text)
    tally.rewritten["unicode"] += _size(text) - _size(changed)
    different = [
        (before, after)
        for before, after in zip(text.split("\n"), changed.split("\n"))
        if before != after
    ]

    def example() -> str:
        before, after = different[0]
        at = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), len(after))
        codes = " ".join(f"U+{ord(c):04X}" for c in before[at : at + 2])
        return f"{source}: {codes} in {after[max(at - 20, 0) : at + 20]!r}"

    tally.note("unicode", len(different), example)
    return changed


def _plain_spaces(text: str, tally: Tally, source: str) -> str:
    for pattern, plain in (
        (_LINE_ENDS, "\n"),
        (_SPACES, " "),
        (_BEFORE_LINE_END, ""),
        (_EMPTY_LINES, "\n\n"),
    ):
        changed, count = pattern.subn(plain, text)
        if count:
            before = text
            tally.note("whitespace", count, lambda: _around(before, pattern, source))  # noqa: B023
        text = changed
    return text


def _without_boilerplate(
    text: str, boilerplate: frozenset[int], n_lines: int, tally: Tally
) -> tuple[str, int]:
    """The text that is kept, and the number of lines so far."""
    kept = []
    for line in text.splitlines(keepends=True):
        if not line.isspace():
            n_lines += 1
            if n_lines - 1 in boilerplate:
                tally.dropped["boilerplate"] += _size(line)
                tally.note("boilerplate", 1, line.strip)
                continue
        kept.append(line)
    return "".join(kept), n_lines


def _around(text: str, pattern: re.Pattern[str], source: str) -> str:
    match = pattern.search(text)
    assert match is not None
    return f"{source}: {text[max(match.start() - 20, 0) : match.end() + 20]!r}"


def _blocks(pieces: Iterable[str], places: Sequence[int]) -> Iterator[str | None]:
    """Whole lines of a text; None marks the positions in `places`."""
    waiting, position = "", 0
    coming = iter(places)
    place = next(coming, None)
    for piece in pieces:
        waiting += piece
        while place is not None and place < position + len(waiting):
            if place > position:
                yield waiting[: place - position]
                waiting, position = waiting[place - position :], place
            yield None
            place = next(coming, None)
        if len(waiting) < BLOCK_CHARACTERS:
            continue
        end = waiting.rfind("\n") + 1
        if not end and len(waiting) > LONGEST_LINE:
            end = waiting.rfind(" ") + 1 or len(waiting)
        if end:
            yield waiting[:end]
            waiting, position = waiting[end:], position + end
    if waiting:
        yield waiting
    while place is not None:
        yield None
        place = next(coming, None)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))
