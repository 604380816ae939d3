"""Markup -> events, by the parser that its language needs: HTML's rules for HTML, XML's for XHTML.

By HTML's rules `<title/>` opens a title that swallows everything after it, and `<![CDATA[` begins a
comment; an EPUB, which is XHTML, would lose chapters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.entities import html5
from typing import Any

Event = tuple[str, str, dict[str, str | None]]
"""`begin` and `end` with a tag, `text` and `comment` with their text; the tag's attributes."""

FIELDS = {"input": ("value", "placeholder"), "textarea": ("placeholder",)}
"""Attributes that hold the text of a form."""

VOID = frozenset((
    "area", "base", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta", "param",
    "source", "track", "wbr",
))  # fmt: skip
_XHTML = re.compile(
    r"^\s*<\?xml\b|<!DOCTYPE[^>]*XHTML|<(\w+:)?html\b[^>]*1999/xhtml", re.IGNORECASE
)
_SELF_CLOSED = re.compile(r"<([A-Za-z][\w:.-]*)((?:\s[^<>]*?)?)/>")
_ENTITY = re.compile(r"&(\w+);")
_XML_ENTITIES = frozenset(("amp", "lt", "gt", "quot", "apos"))
_PROLOG = re.compile(r"^\ufeff?\s*<\?xml[^>]*\?>")


def events_of_xhtml(page: str) -> Iterator[Event] | None:
    """The events of a page that declares XHTML and is well-formed; None for any other.

    Raises:
        UserError: it declares XML entities.
    """
    from folio.corpus.formats.package import NotWellFormedError, parse_xml

    if not _XHTML.search(page[:4096]):
        return None
    named = _ENTITY.sub(_character, _PROLOG.sub("", page))
    try:
        root = parse_xml(named.encode("utf-8", "replace"), "", comments=True)
    except NotWellFormedError:
        return None
    return _events_of_tree(root)


def events_of_html(page: str) -> Iterator[Event]:
    """The events of a page by HTML's rules."""
    from selectolax.lexbor import LexborHTMLParser

    if _XHTML.search(page[:4096]):  # broken XHTML: at least close what closes itself
        page = _SELF_CLOSED.sub(_closed, page.replace("<![CDATA[", "").replace("]]>", ""))
    root = LexborHTMLParser(page).root
    if root is not None:
        yield from _events_of_nodes(root)


def _events_of_nodes(root: Any) -> Iterator[Event]:
    # A loop instead of recursion, since hostile pages nest deeper than Python's stack.
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, leaving = stack.pop()
        tag = node.tag
        if leaving:
            yield "end", tag, {}
        elif tag == "-text":
            yield "text", node.text_content or "", {}
        elif tag == "-comment":
            yield "comment", node.html[4:-3], {}
        elif tag == "template":  # its content is not a child
            yield "begin", tag, {}
            yield "text", re.sub(r"<[^>]*>", " ", node.html), {}
            yield "end", tag, {}
        elif tag is not None:
            yield "begin", tag, node.attributes
            stack.append((node, True))
            children = []
            child = node.child
            while child is not None:
                children.append((child, False))
                child = child.next
            stack.extend(reversed(children))


def _events_of_tree(root: Any) -> Iterator[Event]:
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        element, leaving = stack.pop()
        is_element = isinstance(element.tag, str)
        if leaving:
            yield "end", _local(element.tag), {}
        elif is_element:
            yield "begin", _local(element.tag), {_local(k): v for k, v in element.attrib.items()}
            if element.text:
                yield "text", element.text, {}
            stack.append((element, True))
            stack.extend((child, False) for child in reversed(element))
            continue
        else:
            yield "comment", element.text or "", {}
        if element.tail and element is not root:
            yield "text", element.tail, {}


def _local(name: str) -> str:
    return name.rpartition("}")[2].lower()


def _character(entity: re.Match[str]) -> str:
    """The character of an HTML entity, which XML does not define."""
    name = entity[1]
    return entity[0] if name in _XML_ENTITIES else html5.get(f"{name};", entity[0])


def _closed(tag: re.Match[str]) -> str:
    name = tag[1]
    return tag[0] if name.lower() in VOID else f"<{name}{tag[2]}></{name}>"
