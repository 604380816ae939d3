"""XML by its elements: a line for each that holds text; or a document for each of a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import local_name, parse_xml
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

_COMMENT = re.compile(rb"<!--(.*?)-->", re.DOTALL)
_INSTRUCTION = re.compile(rb"<\?(?!xml\s)(.*?)\?>", re.DOTALL)
_SPACE = re.compile(r"[ \t]*\n\s*")
_ENCODED = ("binary",)
"""Elements whose text is the bytes of something else, as the pictures of FictionBook."""


def read_xml(data: bytes, notes: Notes, text_column: str = "") -> Iterator[Passage]:
    """The text of all elements in order; of those named `text_column`, a document each.

    An element whose text and children are mixed, as in `<p>a <i>b</i> c</p>`, is one line.

    Raises:
        UserError: it is no XML, declares entities, or has no element of that name.
    """
    root = parse_xml(data, "")
    for comment in _COMMENT.findall(data):  # those before the root are in no tree
        notes.drop("comments", comment.decode("utf-8", "replace"))
    for instruction in _INSTRUCTION.findall(data):
        notes.drop("instructions to programs", instruction.decode("utf-8", "replace"))
    for element in root.iter():
        for value in element.attrib.values():
            notes.drop("attributes", value)
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


def _lines(root: Any, notes: Notes) -> Iterator[str]:
    stack = [root]
    while stack:
        element = stack.pop()
        if local_name(element) in _ENCODED:
            notes.drop("encoded bytes", element.text)
        elif len(element) and not _is_mixed(element):
            stack.extend(reversed(element))
        elif text := "".join(_texts(element)).strip():
            yield _SPACE.sub(" ", text) if len(element) else text


def _is_mixed(element: Any) -> bool:
    """Whether text stands beside the children of an element."""
    return any(text and text.strip() for text in (element.text, *(child.tail for child in element)))


def _texts(element: Any) -> Iterator[str]:
    """All text in an element, in order."""
    # Written as a loop, since hostile files nest deeper than Python calls.
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
