"""PDF: glyphs at positions on pages -> text in reading order.

A page of a PDF has no words, lines or columns, only glyphs with boxes. PDFium gives them in the
order in which the file draws them, with spaces and line ends guessed. From there:

    runs         stretches of a line without a wide gap, in a frame in which lines go to the right
    columns      a gutter that few runs cross splits a page; what crosses stands between
    paragraphs   lines joined, except at short lines, wide gaps and indents; words divided at a line
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import pairwise
from statistics import median
from typing import Any

from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.pdf_fields import field_texts
from folio.corpus.formats.pdf_runs import DIVIDED, WIDE_GAP, Frame, Run, runs_of
from folio.corpus.formats.scripts import joint, written_without_spaces
from folio.errors import UserError

MARGIN = 0.12
"""Share of a page's height, at top and bottom, that can hold running headers."""
REPEATED_PAGES = 3
"""A line in a margin that recurs on so many pages, ignoring digits, is a running header."""
INITIAL = 1.7
"""Height of a large initial, relative to the usual height."""
NO_GAP = 0.1
"""Relative to a line's height: a narrower gap is inside a word."""
COLUMN_CHARACTERS = 15
"""Average length above which runs are a column of prose rather than cells of a table."""


def read_pdf(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read the text of each page.

    Raises:
        UserError: damaged, encrypted, or without any text.
    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise UserError("it is encrypted; save it without a password") from None
        raise UserError("it is damaged, or not a PDF") from None
    pages: list[dict[Frame, list[Run]]] = []
    heights, without_text, fields = [], [], []
    pdf.init_forms()
    for number in range(len(pdf)):
        page = pdf[number]
        textpage = page.get_textpage()
        runs = runs_of(textpage)
        pages.append(runs)
        fields.append(field_texts(pdf, page, notes))
        heights.append(page.get_height())
        if not runs and page.get_objects(max_depth=2) and _has_picture(page):
            without_text.append(number + 1)
        textpage.close()
        page.close()
    if not any(pages) and not any(fields):
        raise UserError(
            "it has no text layer: needs OCR, as with `ocrmypdf`"
            if without_text
            else "it has no text"
        )
    if without_text:
        notes.warnings.append(
            f"no text on page {', '.join(map(str, without_text[:10]))}"
            f"{', ...' if without_text[10:] else ''}: needs OCR"
        )
    for frame in {frame for runs in pages for frame in runs if frame.turn == 0}:
        _drop_running_headers([runs.get(frame, []) for runs in pages], heights, notes)
    read = [
        [p for frame in runs if runs[frame] for p in _paragraphs_of(runs[frame])]
        + [[text] for text in texts]
        for runs, texts in zip(pages, fields)
    ]
    yield from _passages(read)


def _has_picture(page: Any) -> bool:
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    return any(True for _ in page.get_objects(filter=[FPDF_PAGEOBJ_IMAGE], max_depth=4))


def _drop_running_headers(pages: list[list[Run]], heights: list[float], notes: Notes) -> None:
    """Remove what recurs in the margins of several pages, page numbers included."""
    seen: Counter[tuple[str, int]] = Counter()
    found: list[list[tuple[list[Run], tuple[str, int]]]] = []
    for runs, height in zip(pages, heights):
        in_margins = []
        for line in _lines(runs):
            middle = (line[0].bottom + line[0].top) / 2 / max(height, 1.0)
            if middle < MARGIN or middle > 1 - MARGIN:
                words = " ".join(run.text for run in line).casefold()
                words = re.sub(r"\d+|\b[ivxlc]+\b", "#", words)
                in_margins.append((line, (words, round(middle * 50))))
        found.append(in_margins)
        seen.update({key for _, key in in_margins})
    for runs, in_margins in zip(pages, found):
        for line, key in in_margins:
            if seen[key] >= REPEATED_PAGES:
                for run in line:
                    runs.remove(run)
                    notes.drop("page headers and footers", run.text)


# ---- order -----------------------------------------------------------------------------


def _regions(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The columns of a page one after the other, and between them what spans the page."""
    gutter = _gutter(runs)
    if gutter is None:
        if runs:
            yield list(runs)
        return
    band: list[Run] = []
    across: list[Run] = []

    def columns() -> Iterator[list[Run]]:
        left = [run for run in band if run.left < gutter]
        yield from _regions(left)
        yield from _regions([run for run in band if run.left >= gutter])

    for run in sorted(runs, key=lambda run: -run.top):
        crosses = run.left < gutter < run.right
        if crosses and band:
            yield from columns()
            band = []
        elif not crosses and across:
            yield across
            across = []
        (across if crosses else band).append(run)
    if across:
        yield across
    yield from columns()


def _gutter(runs: Sequence[Run]) -> float | None:
    """The x position that separates two columns of prose; None if there is none."""
    if len(runs) < 6:
        return None
    begin, end = min(run.left for run in runs), max(run.right for run in runs)
    inner = (begin + 0.2 * (end - begin), end - 0.2 * (end - begin))
    candidates = {round(run.left) - 1.0 for run in runs} | {round(run.right) + 1.0 for run in runs}
    best, fewest = None, len(runs) / 2
    for x in sorted(candidates):
        if inner[0] < x < inner[1]:
            crossing = sum(run.left < x < run.right for run in runs)
            if crossing < fewest:
                best, fewest = x, crossing
    if best is None:
        return None
    left = [run for run in runs if run.right <= best]
    right = [run for run in runs if run.left >= best]
    if len(left) < 3 or len(right) < 3:
        return None
    if any(median(len(run.text) for run in side) < COLUMN_CHARACTERS for side in (left, right)):
        return None  # these are cells of a table
    top, bottom = (
        min(max(run.top for run in left), max(run.top for run in right)),
        max(min(run.bottom for run in left), min(run.bottom for run in right)),
    )
    return best if top > bottom else None


def _with_initials(runs: Sequence[Run]) -> list[Run]:
    """Put large initials, several lines high, before the line that they begin."""
    if len(runs) < 3:
        return list(runs)
    usual = median(run.height for run in runs)
    kept = list(runs)
    for initial in runs:
        if len(initial.text.strip()) > 1 or not initial.text.strip().isalpha():
            continue
        if initial.height < INITIAL * usual:
            continue
        beside = [
            (i, run)
            for i, run in enumerate(kept)
            if run is not initial
            and run.height < initial.height / 1.5
            and 0 <= run.left - initial.right + usual / 2 < 2 * usual
            and initial.bottom - usual < run.bottom and run.top < initial.top + usual
        ]  # fmt: skip
        if len(beside) > 1:
            i, first = max(beside, key=lambda found: found[1].top)
            kept[i] = first._replace(text=initial.text.strip() + first.text)
            kept.remove(initial)
    return kept


def _lines(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs into lines, from top to bottom and from left to right."""
    lines: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: -(run.bottom + run.top)):
        if lines:
            first = lines[-1][0]
            overlap = min(first.top, run.top) - max(first.bottom, run.bottom)
            if overlap > 0.5 * min(first.height, run.height):
                lines[-1].append(run)
                continue
        lines.append([run])
    return [sorted(line) for line in lines]


# ---- paragraphs ------------------------------------------------------------------------


def _paragraphs_of(runs: Sequence[Run]) -> list[list[str]]:
    """The paragraphs of a page, each a list of lines that belong together."""
    paragraphs: list[list[str]] = []
    for region in _regions(_with_initials(runs)):
        lines = _lines(region)
        left = min(run.left for run in region)
        # Not the maximum: a title may be wider than the text.
        right = sorted(line[-1].right for line in lines)[int(0.8 * (len(lines) - 1) + 0.5)]
        pitches = [above[0].bottom - below[0].bottom for above, below in pairwise(lines)]
        usual = median(pitches) if pitches else 0.0
        for before, line in zip([None, *lines], lines):
            if before is None or _begins_paragraph(before, line, left, right, usual):
                paragraphs.append([])
            paragraphs[-1].append(_text(line))
    return paragraphs


def _text(line: Sequence[Run]) -> str:
    """Join the runs of a line, with a tab between cells of a table."""
    text = line[0].text.strip()
    for before, run in pairwise(line):
        gap = (run.left - before.right) / max(run.height, 1.0)
        following = run.text.strip()
        text += "\t" if gap > WIDE_GAP else joint(text, following) if gap > NO_GAP else ""
        text += following
    return text


def _begins_paragraph(
    before: list[Run], line: list[Run], left: float, right: float, usual: float
) -> bool:
    height = line[0].height
    pitch = before[0].bottom - line[0].bottom
    if "\t" in _text(before) or "\t" in _text(line):  # a row of a table
        return True
    if before[-1].text.endswith(DIVIDED):
        return False
    if pitch > 1.4 * usual or abs(height - before[0].height) > 0.25 * height:
        return True
    if line[0].left > max(left, before[0].left) + 0.7 * height:  # indented
        return True
    # The first word of this line would have fit on the line before, so that line ended its
    # paragraph.
    first_word = line[0].text.split()[0]
    n = 2 if written_without_spaces(first_word[0]) else len(first_word) + 1
    width = (line[0].right - line[0].left) * n / max(len(line[0].text), 1)
    return before[-1].right + width < right - 0.05 * (right - left)


def _passages(pages: list[list[list[str]]]) -> Iterator[Passage]:
    words = Counter(
        word.lower()
        for paragraphs in pages
        for lines in paragraphs
        for line in lines
        for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", line)
    )
    held, held_page = "", 0
    for number, paragraphs in enumerate(pages, 1):
        joined = [reduce(partial(_join, words=words), lines) for lines in paragraphs]
        page = "".join(
            text + ("\n" if "\t" in text and "\t" in following else "\n\n")
            for text, following in zip(joined, [*joined[1:], ""])
        ).rstrip("\n")
        if not page:
            continue
        if held:
            goes_on = held[-1].isalpha() or held[-1] in f",،、，-{DIVIDED}"
            no_capitals = page[0].isalpha() and not page[0].isupper()
            if goes_on and (page[0].islower() or (no_capitals and not held[-1].islower())):
                held = _join(held, page, words)[: -len(page)]
            else:
                held += "\n\n"
            yield Passage(held, f"page {held_page}")
        held, held_page = page, number
    if held:
        yield Passage(held.replace(DIVIDED, "-") + "\n", f"page {held_page}")


def _join(text: str, line: str, words: Counter[str]) -> str:
    """Join two lines and reunite a word that was divided between them.

    A hyphen that belongs to the word stays: if elsewhere the document has the word only with its
    hyphen, or if what follows is not a lower-case letter.
    """
    if not text.endswith(("-", DIVIDED, "\u2010")):
        return f"{text}{joint(text, line)}{line}"
    stem = text[:-1]
    head = re.search(r"[^\W\d_]+$", stem)
    tail = re.match(r"[^\W\d_]+", line)
    if head is None or tail is None:
        return f"{stem}-{line}" if text.endswith(DIVIDED) else f"{text} {line}"
    hyphenated = f"{head[0]}-{tail[0]}".lower()
    whole = f"{head[0]}{tail[0]}".lower()
    keeps = not line[0].islower() or (words[hyphenated] > 0 and not words[whole])
    return f"{stem}-{line}" if keeps else stem + line
