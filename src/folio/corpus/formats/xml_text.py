"""XML by its elements: one line per element with text, or one document per element of a
given name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from folio.corpus.formats.html import decode_page
from folio.corpus.formats.package import attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.xml_tree import xml_tree
from folio.errors import UserError

_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_INSTRUCTION = re.compile(r"<\?(?!xml\s)(.*?)\?>", re.DOTALL)
_SPACE = re.compile(r"[ \t]*\n\s*")
_ENCODED = ("binary",)
"""Elements whose text is encoded binary data, such as the pictures of FictionBook."""
_IN_ATTRIBUTES = {"outline": ("text", "_note"), "node": ("TEXT",)}
"""Elements whose text is in attributes: OPML, FreeMind."""
_ROWS = ("row", "tr")
_NOTES = ("note", "footnote", "fn")
"""Elements that are put below the text in which they occur."""
_BLOCKS = frozenset((
    "p", "para", "simpara", "div", "sec", "section", "list", "itemizedlist", "orderedlist", "ul",
    "variablelist", "simplelist", "ol", "dl", "def-list", "table", "informaltable", "table-wrap",
    "figure", "fig", "informalfigure", "lg", "l", "sp", "quote", "blockquote", "disp-quote", "eg",
    "programlisting", "screen", "literallayout", "code", "disp-formula", "boxed-text", "example",
    "poem", "stanza", "v", "item", "listitem", "list-item", "cit", "epigraph", "procedure",
))  # fmt: skip
"""Elements that begin a new line, even inside a sentence."""
_FEEDS = ("rss", "feed", "RDF")
_PAGES = ("description", "encoded", "summary", "content", "title", "subtitle")
"""Elements of feeds whose text is an HTML page."""
_DOCUMENTS = {"mediawiki": "text"}
"""Elements that hold one document each, by the root element of the file."""
_HAS_TAGS = re.compile(r"</\w+>|<\w+[^<>]*>|&\w+;")
_DOCUMENT = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)


def read_xml(data: bytes, notes: Notes, text_column: str = "") -> Iterator[Passage]:
    """Read the text of all elements in order, or one document per element named `text_column`.

    An element whose text and children are mixed, as in `<p>a <i>b</i> c</p>`, is one line.

    Raises:
        UserError: not XML, declares entities, or has no element of that name.
    """
    page = decode_page(data, notes)
    root = xml_tree(page, notes)
    text_column = text_column or _DOCUMENTS.get(local_name(root), "")
    # Comments before the root are in no tree. An unclosed one is not searched for again and again.
    for comment in _COMMENT.findall(page, 0, page.rfind("-->") + 3):
        notes.drop("comments", comment)
    for instruction in _INSTRUCTION.findall(page, 0, page.rfind("?>") + 2):
        notes.drop("instructions to programs", instruction)
    for element in root.iter():
        shown = _named(local_name(element)) if not text_column else ()
        for key, value in element.attrib.items():
            notes.drop("attributes", value if key not in shown else "")
    if not text_column:
        yield from (Passage(text + "\n") for text in _lines(root, notes))
        return
    named = [element for element in root.iter() if local_name(element) == text_column]
    if not named:
        names = sorted({name for element in root.iter() if (name := local_name(element))})
        raise UserError(
            f"it has no element '{text_column}'; it has {', '.join(names[:10])}; "
            f"see --corpus.text-column"
        )
    kept = 0
    for number, element in enumerate(named, 1):
        text = "".join(_texts(element)).strip()
        if text:
            kept += len(text.encode("utf-8", "replace"))
            yield Passage(text, f"{text_column} {number}", document=True)
    everything = sum(len(t.strip().encode("utf-8", "replace")) for t in _texts(root))
    notes.dropped["other elements"] += max(everything - kept, 0)


class _Part(NamedTuple):
    """An element or a text that remains to be read."""

    what: Any
    """An element, or a text."""
    inline: bool = False
    """Whether it is inside a sentence."""


_LINE_END = _Part(None)


def _lines(root: Any, notes: Notes) -> Iterator[str]:
    """The lines of all elements; a loop, since hostile files nest deeper than Python's stack."""
    is_feed = local_name(root) in _FEEDS
    stack = [_LINE_END, _Part(root)]
    line: list[str] = []
    below: list[str] = []
    while stack:
        part = stack.pop()
        if part is _LINE_END:
            text = "".join(line).strip()
            yield from filter(None, (text, *below))
            line, below = [], []
        elif isinstance(part.what, str):
            line.append(_SPACE.sub(" ", part.what) if part.inline else part.what)
        else:
            element, name = part.what, local_name(part.what)
            said = "\n".join(filter(None, (attribute(element, key) for key in _named(name))))
            if name in _ENCODED:
                notes.drop("encoded bytes", element.text)
            elif name in _NOTES and part.inline:
                below.append(_SPACE.sub(" ", "".join(_texts(element))).strip())
            elif name in _ROWS and len(element) and not _is_mixed(element):
                cells = (_SPACE.sub(" ", "".join(_texts(cell)).strip()) for cell in element)
                stack += [_LINE_END, _Part("\t".join(cells)), _LINE_END]
            elif name == "alternatives":
                stack.append(_Part(_first_with_text(element, notes), part.inline))
            elif not len(element):
                text = said or _shown(element.text or "", name, is_feed, notes)
                stack.append(_Part(text, part.inline))
            else:
                stack += reversed([_Part(said), *_contents(element, part.inline)])


def _named(element: str) -> tuple[str, ...]:
    """Attributes of an element that are its text."""
    return _IN_ATTRIBUTES.get(element, ())


def _contents(element: Any, inline: bool) -> Iterator[_Part]:
    """The content of an element, with line ends between its children unless it is a sentence."""
    if _is_mixed(element):
        yield from _sentence(element)
        return
    is_block = not inline or local_name(element) in _BLOCKS
    for i, child in enumerate(element):
        yield _LINE_END if is_block else _Part(" " if i else "")
        yield _Part(child, not is_block)
    if is_block:
        yield _LINE_END


def _sentence(element: Any) -> Iterator[_Part]:
    yield _Part(element.text or "", True)
    for child in element:
        is_block = local_name(child) in _BLOCKS
        yield _LINE_END if is_block else _Part("")
        yield _Part(child, not is_block)
        yield _LINE_END if is_block else _Part("")
        yield _Part(child.tail or "", True)


def _first_with_text(alternatives: Any, notes: Notes) -> Any:
    """Choose one of several alternative forms, such as a formula in TeX and in MathML."""
    forms = ["".join(_texts(form)).strip() for form in alternatives]
    first = next((i for i, form in enumerate(forms) if form), 0)
    for i, form in enumerate(forms):
        notes.drop("what stands there in another form", form if i != first else "")
    return alternatives[first] if forms else ""


def _shown(text: str, name: str, is_feed: bool, notes: Notes) -> str:
    """The text of an element without children, which may itself be an HTML page."""
    if name == "tex-math" and (document := _DOCUMENT.search(text)):
        notes.drop("the preamble", text[: document.start()])
        return document[1].strip()
    if is_feed and name in _PAGES and _HAS_TAGS.search(text):
        from folio.corpus.formats.html import html_text

        return html_text(text, notes)
    return text


def _is_mixed(element: Any) -> bool:
    """Whether an element has text beside its children."""
    return any(text and text.strip() for text in (element.text, *(child.tail for child in element)))


def _texts(element: Any) -> Iterator[str]:
    """All text in an element, in order."""
    stack: list[Any] = [element]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            yield part
            continue
        if part.text:
            yield part.text
        for child in reversed(part):
            stack.append(child.tail or "")
            stack.append(child)
