"""Which stretches of a text stand in the training text, or in that of a run before it, and where.

The hashes of windows of the training text, at every few places, are kept in order; a text that is
looked at is hashed at all of its places, so that what is long enough is found, and what was found
is compared letter by letter. Lengths are in bytes of UTF-8, but for the spans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import rolling_hashes
from folio.evaluation.passages import pattern_windows
from folio.recall.against import with_old_texts
from folio.recall.sources import Sources
from folio.run.model import Model
from folio.tokens.text import BREAK, Symbols, TokenText, characters, from_text

WINDOW, APART = 24, 7
"""Length in bytes of the windows that are hashed, and their distance."""
SHORTEST = WINDOW + APART - 1
"""Characters of a span that is told; of so many bytes, each has a window that is kept."""
LARGEST = 100_000_000
"""Longest training text in bytes that is indexed, at 12 bytes per window."""
PLACES = 8
"""Of one window that are tried: what stands in more of them is taken for one of these."""
AT_ONCE = 100
"""Windows that are compared in one step."""
REACH = 4096
"""Bytes that a span may go on to either side of a window."""
GLANCE_SECONDS = 0.0002
"""How long a step waits for the table, in seconds."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Copied:
    """Characters start ... end - 1, and where they stand."""

    start: int
    end: int
    source: str


class CopyFinder:
    """Looks texts up in one training text; its table is made when it is first asked."""

    def __init__(self, opened: Model) -> None:
        """For one thread, in which several texts may be looked up in turn."""
        self.opened = opened
        self._table: Future[Table | None] | None = None

    def steps(self, text: str) -> Iterator[list[Copied] | None]:
        """Look a text up, in steps; the last one yields what was found.

        Yields:
            The spans, in order; None before, and where the training text is not known or too long.
        """
        made = self._table = self._table or in_a_thread(self._make)
        while not wait([made], GLANCE_SECONDS).done:
            yield None
        if made.exception() and made is self._table:
            self._table = None  # what was in the way may be gone when the next text is looked up
        table = made.result()
        if table is None:
            yield None
        else:
            yield from table.find(text)

    def _make(self) -> Table | None:
        """Hash the training text; to sort the hashes of a long one takes seconds, in which numpy
        lets other threads work.
        """
        if not self.opened.has_text or not self.opened.tokenizer.lossless:
            return None
        with with_old_texts(self.opened) as opened:
            text = TokenText(opened.training(), opened.tokenizer)
            return _table(text, Sources(opened.run, text)) if len(text) <= LARGEST else None


@dataclass(frozen=True)
class Table:
    """Hashes of windows of a training text, sorted."""

    hashes: NDArray[np.uint64]
    places: NDArray[np.uint32]
    training: TokenText
    sources: Sources

    def find(self, text: str) -> Iterator[list[Copied] | None]:
        """Find copied spans step by step, as `CopyFinder.steps` does."""
        symbols = from_text(text)
        codes, starts = characters(symbols)
        if len(symbols) < WINDOW:
            yield []
            return
        hashes = _hashes(symbols)
        left, right = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        spans: list[tuple[int, int, int]] = []  # first and last byte + 1, and place
        for number, at in enumerate(np.flatnonzero(left < right).tolist(), 1):
            if number % AT_ONCE == 0:
                yield None
            if spans and at + WINDOW <= spans[-1][1]:
                continue  # inside of the last one
            places = self.places[left[at] : min(right[at], left[at] + PLACES)].tolist()
            extents = [(*_extent(symbols, at, self.training, place), place) for place in places]
            before, after, place = max(extents, key=lambda extent: extent[0] + extent[1])
            if before + after >= SHORTEST:
                spans.append((at - before, at + after, place - before))
        yield self._in_characters(_apart(spans), codes, starts)

    def _in_characters(
        self, spans: list[tuple[int, int, int]], codes: NDArray[Any], starts: NDArray[Any]
    ) -> list[Copied]:
        """Extend spans to whole characters, and drop patterns such as a row of dashes."""
        found = []
        for first, last, place in spans:
            start = int(np.searchsorted(starts, first))
            end = int(np.searchsorted(starts, last))
            if end < len(starts) and starts[end] != last:
                end -= 1
            length = end - start
            if length < SHORTEST or pattern_windows(codes[start:end], length)[0]:
                continue
            source = self.sources.locate(place + int(starts[start]) - first)
            named = replace(source, document=Path(source.document).name)  # to whoever asks
            found.append(Copied(start, end, str(named)))
        return found


def _table(text: TokenText, sources: Sources) -> Table:
    """Hash a training text."""
    hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)]
    begin, kept = 0, np.zeros(0, np.int16)
    for chunk in text.chunks():
        kept = np.concatenate([kept, chunk])
        n_windows = max(len(kept) - WINDOW + 1, 0)
        here = np.arange(-begin % APART, n_windows, APART)
        if len(here):
            hashes.append(_hashes(kept)[here])
            places.append((here + begin).astype(np.uint32))
        kept, begin = kept[n_windows:], begin + n_windows
    found = np.concatenate(hashes)
    order = np.argsort(found, kind="stable")
    return Table(found[order], np.concatenate(places)[order], text, sources)


def in_a_thread(make: Callable[[], Made]) -> Future[Made]:
    """Make something beside what goes on here; the thread does not keep the process from ending."""
    made: Future[Made] = Future()

    def work() -> None:
        try:
            made.set_result(make())
        except BaseException as error:  # raised where it is asked for
            made.set_exception(error)

    threading.Thread(target=work, name="folio-copies", daemon=True).start()
    return made


def _hashes(symbols: Symbols) -> NDArray[np.uint64]:
    return rolling_hashes(symbols.astype(np.uint32) + np.uint32(1), WINDOW)


def _extent(symbols: Symbols, at: int, training: TokenText, place: int) -> tuple[int, int]:
    """How many bytes are equal before and from some places on; (0, 0) where a hash misled."""
    first = max(place - min(at, REACH), 0)
    around = training.between(first, place + REACH)
    middle = place - first
    left, right = around[:middle][::-1], around[middle:]
    after = _equal(symbols[at:], right)
    if after < WINDOW:
        return 0, 0
    return _equal(symbols[:at][::-1], left), after


def _equal(a: Symbols, b: Symbols) -> int:
    n = min(len(a), len(b))
    wrong = np.flatnonzero((a[:n] != b[:n]) | (b[:n] == BREAK))
    return int(wrong[0]) if len(wrong) else n


def _apart(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Give the overlap of two spans to the longer one."""
    taken: list[tuple[int, int, int]] = []
    for first, last, place in sorted(spans, key=lambda span: span[0] - span[1]):
        for other_first, other_last, _ in taken:
            if first < other_first:
                last = min(last, other_first)
            elif last > other_last:
                place += max(other_last - first, 0)
                first = max(first, other_last)
            else:
                last = first
        if last > first:
            taken.append((first, last, place))
    return sorted(taken)
