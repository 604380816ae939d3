"""HTML: what a reader of the page sees, tables and preformatted text included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.passage import Notes, Passage

UNSEEN = frozenset((
    "head", "script", "style", "template", "noscript", "svg", "math", "canvas", "iframe",
    "object", "audio", "video", "select", "option", "button", "input", "textarea", "rp", "rt",
    "-comment",
))  # fmt: skip
NAVIGATION = frozenset(("nav",))
PARAGRAPHS = frozenset((
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl",
    "figure", "section", "article", "main", "header", "footer", "aside", "address", "form",
    "fieldset", "hr", "details",
))  # fmt: skip
LINES = frozenset((
    "div", "li", "dt", "dd", "tr", "br", "caption", "figcaption", "summary", "legend", "tbody",
    "thead", "tfoot",
))  # fmt: skip

_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w-]+)""", re.I)
_SPACES = re.compile(r"[ \t\n\r\f]+")


def read_html(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The text of a page, as one passage."""
    yield Passage(html_text(_decode(data, notes), notes))


def html_text(page: str, notes: Notes) -> str:
    """The text of a page: blocks by empty lines, cells by tabs."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(page)
    if tree.body is None:
        return ""
    writer = _Writer()
    title = tree.css_first("head > title")
    _walk(tree.body, writer, notes)
    text = writer.text()
    words = _SPACES.sub(" ", title.text()).strip() if title is not None else ""
    if words and words not in _SPACES.sub(" ", text):
        text = f"{words}\n\n{text}"
    return text.strip("\n") + "\n" if text.strip() else ""


class _Writer:
    """Text so far; line ends wait, so that nested blocks do not add theirs up."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.waiting = 0
        self.space = self.empty = False

    def words(self, text: str, preformatted: bool) -> None:
        """Text inside a block."""
        if not preformatted:
            text = _SPACES.sub(" ", text)
            if text.startswith(" "):
                self.space, text = True, text[1:]
        if not text:
            return
        if self.waiting and self.parts:
            self.parts.append("\n" * self.waiting)
        elif self.space and self.parts and not self.parts[-1].endswith(("\n", "\t")):
            self.parts.append(" ")
        self.waiting, self.space = 0, False
        if not preformatted and text.endswith(" "):
            self.space, text = True, text[:-1]
        self.parts.append(text)

    def end_line(self, n: int) -> None:
        """So many line ends before the next text, at least."""
        self.waiting, self.space = max(self.waiting, n), False

    def tab(self) -> None:
        """Between two cells."""
        if self.waiting and self.parts:
            self.parts.append("\n" * self.waiting)
        self.waiting, self.space = 0, False
        self.parts.append("\t")

    def text(self) -> str:
        """All of it."""
        return "".join(self.parts)


def _walk(root: Any, writer: _Writer, notes: Notes) -> None:
    # Written as a loop, since hostile pages nest deeper than Python calls.
    stack: list[tuple[Any, bool, bool]] = [(root, False, False)]
    while stack:
        node, preformatted, leaving = stack.pop()
        tag = node.tag
        if leaving:
            writer.end_line(2 if tag in PARAGRAPHS else 1)
            continue
        if tag == "-text":
            writer.words(node.text_content or "", preformatted)
            continue
        if tag in UNSEEN or tag is None or "hidden" in node.attributes:
            continue
        if tag in NAVIGATION:
            notes.drop("navigation", _SPACES.sub(" ", node.text()))
            continue
        if tag in PARAGRAPHS or tag in LINES:
            writer.end_line(2 if tag in PARAGRAPHS else 1)
            stack.append((node, preformatted, True))
        if tag in ("td", "th") and _has_cell_before(node):
            writer.tab()
        children = []
        child = node.child
        inside = preformatted or tag == "pre"
        while child is not None:
            children.append((child, inside, False))
            child = child.next
        stack.extend(reversed(children))


def _has_cell_before(cell: Any) -> bool:
    before = cell.prev
    while before is not None:
        if before.tag in ("td", "th"):
            return True
        before = before.prev
    return False


def _decode(data: bytes, notes: Notes) -> str:
    from folio.corpus.readers import decode

    named = _CHARSET.search(data[:2048])
    return decode(data, named[1].decode("ascii") if named else None, notes.warnings.append)
