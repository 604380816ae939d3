"""HTML and XHTML: the text that a reader of the page sees, including tables and
preformatted text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain

from folio.corpus.encodings import decode
from folio.corpus.formats.markup import FIELDS, Event, events_of_html, events_of_xhtml
from folio.corpus.formats.passage import Notes, Passage

UNSEEN = {
    "head": "page heads",
    "script": "scripts and styles",
    "style": "scripts and styles",
    "template": "templates",
    "noscript": "what is for browsers without scripts",
    "noframes": "what is for browsers without frames",
    "svg": "text of pictures",
    "canvas": "text of pictures",
    "math": "formulas",
    "iframe": "other pages and media",
    "object": "other pages and media",
    "audio": "other pages and media",
    "video": "other pages and media",
    "select": "form fields",
    "option": "form fields",
    "datalist": "form fields",
    "button": "form fields",
    "input": "form fields",
    "textarea": "form fields",
    "rp": "readings beside characters",
    "rt": "readings beside characters",
    "nav": "navigation",
    "case": "what stands there in another form",
    "epub:case": "what stands there in another form",
}
"""Elements that are skipped, and why."""
PARAGRAPHS = frozenset((
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl",
    "figure", "section", "article", "main", "header", "footer", "aside", "address", "form",
    "fieldset", "hr", "details", "menu", "dir", "listing", "xmp", "plaintext",
))  # fmt: skip
LINES = frozenset((
    "div", "li", "dt", "dd", "tr", "caption", "figcaption", "summary", "legend", "tbody", "thead",
    "tfoot", "center", "hgroup", "search", "dialog",
))  # fmt: skip
CELL_CHARACTERS = 100
"""A cell of at most so many is one line of its row, whatever line breaks it has; a longer one, such
as a poem in a page that is laid out as a table, keeps them."""
PREFORMATTED = frozenset(("pre", "listing", "xmp", "plaintext"))

_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w-]+)""", re.I)
_HIDING = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.I)
_SPACES = re.compile(r"[ \t\n\r\f]+")


def read_html(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read the text of a page as one passage."""
    yield Passage(html_text(decode_page(data, notes), notes, with_title=True))


LeftOut = Callable[[str, dict[str, str | None]], str]
"""Tells why an element with this tag and attributes is skipped; empty if it is not."""


def html_text(
    page: str,
    notes: Notes,
    left_out: LeftOut = lambda tag, given: "",
    with_title: bool = False,
) -> str:
    """The text of a page: blocks are separated by empty lines, cells by tabs.

    Hidden text is left out unless there is no other, as on pages that a script reveals. A browser
    shows the title of a page; nothing shows that of a mail, or of a file in a book.
    """

    def unseen(tag: str, given: dict[str, str | None]) -> str:
        return "hidden text" if _is_hidden(tag, given) else left_out(tag, given)

    walk = _walked(page, unseen)
    if not walk.writer.text().strip() and walk.notes.dropped["hidden text"]:
        walk = _walked(page, left_out)
        notes.warnings.append("all of its text is hidden, and is read")
    notes.dropped.update(walk.notes.dropped)
    text = walk.writer.text()
    words = _SPACES.sub(" ", "".join(walk.title)).strip()
    if words and words in _SPACES.sub(" ", text):
        notes.drop("titles that the page says again", words)
    elif words and with_title:
        text = f"{words}\n\n{text}"
    else:
        notes.drop("titles that nothing shows", words)
    return text.strip("\n") + "\n" if text.strip() else ""


def _walked(page: str, left_out: LeftOut) -> _Walk:
    events = events_of_xhtml(page)
    walk = _Walk(Notes(), left_out)
    for event in events_of_html(page) if events is None else events:
        walk.take(event)
    return walk


class _Walk:
    """Collects the visible text of a page, and counts the hidden text by reason."""

    def __init__(self, notes: Notes, left_out: LeftOut) -> None:
        self.notes = notes
        self.left_out = left_out
        self.writer = _Writer()
        self.title: list[str] = []
        self.unseen: list[str] = []  # reasons, from the first hidden element inwards
        self.open: list[str] = []
        self.cells: list[list[range]] = []  # of each open element the texts of its cells so far

    def take(self, event: Event) -> None:
        """Process the next event of the page."""
        kind, name, given = event
        if kind == "text":
            self.text(name)
        elif kind == "comment":
            self.notes.drop("comments", _squeezed(name))
        elif kind == "begin":
            self.begin(name, given)
        else:
            self.end(name)

    def begin(self, tag: str, given: dict[str, str | None]) -> None:
        for name, value in given.items():
            is_field = name in FIELDS.get(tag, ())
            self.notes.drop("form fields" if is_field else "attributes", value)
        reason = UNSEEN.get(tag) or (self.unseen[-1] if self.unseen else "")
        if reason := reason or self.left_out(tag, given):
            self.unseen.append(reason)
        elif tag in PARAGRAPHS or tag in LINES:
            self.writer.end_line(2 if tag in PARAGRAPHS else 1)
        elif tag == "br":
            self.writer.end_line(min(self.writer.waiting + 1, 2))
        elif tag in ("td", "th") and self.cells:
            self.writer.begin_cell(is_first=not self.cells[-1])
            self.cells[-1].append(range(0))
        self.open.append(tag)
        self.cells.append([])

    def end(self, tag: str) -> None:
        self.open.pop()
        texts = list(filter(None, self.cells.pop()))
        if len(texts) > 1:
            self.writer.join_lines(texts)
        if self.unseen:
            self.unseen.pop()
        elif tag in PARAGRAPHS or tag in LINES:
            self.writer.end_line(2 if tag in PARAGRAPHS else 1)
        elif tag in ("td", "th") and self.cells:
            self.cells[-1][-1] = self.writer.end_cell()

    def text(self, text: str) -> None:
        if self.open[-1:] == ["title"] and "head" in self.open[-2:] and not self.title:
            self.title.append(text)
        elif self.unseen:
            self.notes.drop(self.unseen[-1], _squeezed(text))
        else:
            self.writer.words(text, not PREFORMATTED.isdisjoint(self.open))


def _is_hidden(tag: str, given: dict[str, str | None]) -> bool:
    """Whether an element is invisible, or hidden from screen readers."""
    if "hidden" in given or (given.get("aria-hidden") or "").strip().lower() == "true":
        return True
    if tag in ("html", "body"):  # scripts show them after loading
        return False
    if tag == "dialog":
        return "open" not in given
    return _HIDING.search(given.get("style") or "") is not None


class _Writer:
    """The text so far; line ends are delayed, so that those of nested blocks do not add up."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.line_ends: set[int] = set()  # of parts, not those of preformatted text
        self.waiting = 0
        self.space = False
        self.n_line_ends = 0
        # For each open cell, the line ends before its text, and the number of its first part.
        self.cells: list[tuple[int, int] | None] = []

    def words(self, text: str, preformatted: bool) -> None:
        """Append text inside a block."""
        if not preformatted:
            text = _SPACES.sub(" ", text)
            if text.startswith(" "):
                self.space, text = True, text[1:]
        if not text:
            return
        if self.waiting and self.parts:
            self._end_waiting_lines()
        elif self.space and self.parts and not self.parts[-1].endswith(("\n", "\t")):
            self.parts.append(" ")
        self.waiting, self.space = 0, False
        for i in range(len(self.cells) - 1, -1, -1):  # the cells that begin with this text
            if self.cells[i] is not None:
                break
            self.cells[i] = self.n_line_ends, len(self.parts)
        self.n_line_ends += text.count("\n")
        if not preformatted and text.endswith(" "):
            self.space, text = True, text[:-1]
        self.parts.append(text)

    def end_line(self, n: int) -> None:
        """Make sure that at least `n` line ends precede the next text, unless it begins a cell."""
        if self.cells and self.cells[-1] is None:
            return
        self.waiting, self.space = max(self.waiting, n), False

    def begin_cell(self, is_first: bool) -> None:
        """Begin a cell of a table, after a tab unless it is the first of its row."""
        if not is_first:
            self._end_waiting_lines()
            self.parts.append("\t")
        self.space = False
        self.cells.append(None)

    def end_cell(self) -> range:
        """End a cell; one of a single line leaves it to the next cell, whatever its blocks are.

        Returns:
            The parts of its text.
        """
        n_line_ends, begin = self.cells.pop() or (-1, len(self.parts))
        text = range(begin, len(self.parts))
        if n_line_ends == self.n_line_ends or self._fits_line(text):
            self.waiting = 0
        return text

    def join_lines(self, texts: list[range]) -> None:
        """Have the cells of a row, given by their parts, take one line each, unless one is long."""
        for i in chain.from_iterable(filter(self._fits_line, texts)):
            self.parts[i] = " " if i in self.line_ends else self.parts[i]

    def _fits_line(self, text: range) -> bool:
        """Whether the text of a cell is short, and no paragraphs, list or table."""
        parts = self.parts[text.start : text.stop]
        apart = {"\n\n", "\t"}.isdisjoint(parts)
        return bool(parts) and apart and sum(map(len, parts)) <= CELL_CHARACTERS

    def _end_waiting_lines(self) -> None:
        if self.waiting and self.parts:
            self.line_ends.add(len(self.parts))
            self.parts.append("\n" * self.waiting)
            self.n_line_ends += 1
        self.waiting = 0

    def text(self) -> str:
        """Return all that was written."""
        return "".join(self.parts)


def _squeezed(text: str) -> str:
    return _SPACES.sub(" ", text).strip()


def decode_page(data: bytes, notes: Notes) -> str:
    """Decode a page as UTF-8, else in the encoding that it declares."""
    named = _CHARSET.search(data[:2048])
    return decode(data, named[1].decode("ascii") if named else None, notes)
