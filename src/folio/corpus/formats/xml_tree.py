"""XML text -> a tree: by XML's rules if it is well-formed, else by its tags as they come.

One wrong character does not condemn a file: feeds, truncated extracts and parts without a root are
read nevertheless, with a warning. Entities that stand for a few words are resolved; those that
could
be bombs or steal files are refused.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from html.entities import html5
from typing import Any

from folio.corpus.formats.package import NotWellFormedError, parse_xml
from folio.corpus.formats.passage import Notes
from folio.corpus.limits import Expansion

_PROLOG = re.compile(r"^\ufeff?\s*<\?xml\b[^>]*\?>")
_OWN_ENTITY = re.compile(
    r"""<!ENTITY\s+([\w.-]+)\s+(?:"([^"<&%]{0,1000})"|'([^'<&%]{0,1000})')\s*>"""
)
_UNPARSED = re.compile(r"""<!ENTITY\s+[\w.-]+\s+SYSTEM\s+["'][^"'<]*["']\s+NDATA\s+\w+\s*>""")
"""Declarations of pictures beside the file, which nobody opens."""
_REFERENCE = re.compile(r"&([\w.-]+);")
_OF_XML = frozenset(("amp", "lt", "gt", "quot", "apos"))
_CUT_OFF = re.compile(r"</?[A-Za-z][^<>]*\Z")
"""A tag that the end of the file cuts off."""
_ATTRIBUTE = re.compile(r"""([^\s=<>/"']+)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')""")
_DOCTYPE = re.compile(r"<!DOCTYPE[^\[>]*(?:\[[^\]]*\]\s*)?>")
_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)|"
    r"<(?P<end>/?)(?P<name>[A-Za-z_][\w:.-]*)(?P<attributes>(?:\s[^<>]*?)?)(?P<empty>/?)>",
    re.DOTALL,
)


def xml_tree(page: str, notes: Notes) -> Any:
    """The root element of a text; several roots, or a truncated one, get a common parent.

    Raises:
        NotWellFormedError: no element in it.
        UserError: it declares entities that are refused, or that are used too often.
    """
    page = _resolved(_PROLOG.sub("", page))
    try:
        return parse_xml(page.encode("utf-8", "replace"), "")
    except NotWellFormedError:
        root = _by_its_tags(page)
        if not len(root):
            raise
    notes.warnings.append("it is not well-formed XML; its tags were taken as they come")
    return root


def _resolved(page: str) -> str:
    """Resolve the entities that stand for words, the file's own and those of HTML."""
    page = _UNPARSED.sub("", page)
    own = {name: a or b for name, a, b in _OWN_ENTITY.findall(page)}
    if own:
        page = _OWN_ENTITY.sub("", page)
    expansion = Expansion(len(page))

    def words(reference: re.Match[str]) -> str:
        name = reference[1]
        if name in _OF_XML:
            return reference[0]
        said = own.get(name) or html5.get(f"{name};", reference[0])
        expansion.add(len(said))
        if said == reference[0]:  # unknown, so it is not XML
            return said
        return said.replace("&", "&amp;").replace("<", "&lt;")

    return _REFERENCE.sub(words, page)


def _by_its_tags(page: str) -> Any:
    """Build a tree from the tags alone; an end tag that closes nothing is skipped."""
    from xml.etree.ElementTree import TreeBuilder

    at = page.find("<!DOCTYPE")
    if at >= 0 and (declared := _DOCTYPE.match(page, at)):
        page = page[:at] + page[declared.end() :]
    page = _CUT_OFF.sub("", page)
    builder = TreeBuilder()
    builder.start("document", {})
    opened: list[str] = []
    counts: Counter[str] = Counter()
    at = 0
    for token in _TOKEN.finditer(page):
        builder.data(html.unescape(page[at : token.start()]))
        at = token.end()
        name = (token["name"] or "").rpartition(":")[2]
        if token["cdata"]:
            builder.data(token["cdata"])
        elif token["end"] and counts[name]:
            while opened:
                last = opened.pop()
                counts[last] -= 1
                builder.end(last)
                if last == name:
                    break
        elif name and not token["end"]:
            given = _ATTRIBUTE.findall(token["attributes"])
            builder.start(name, {key: html.unescape(a or b) for key, a, b in given})
            if token["empty"]:
                builder.end(name)
            else:
                opened.append(name)
                counts[name] += 1
    builder.data(html.unescape(page[at:]))
    for name in (*reversed(opened), "document"):
        builder.end(name)
    return builder.close()
