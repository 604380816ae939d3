"""OpenDocument texts, workbooks and presentations: paragraphs, tables and footnotes as shown.

The text is laid out as that of DOCX. Text hidden directly, by its section or by a style is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

REPEATED = 64
"""How many equal cells in a row are kept, if there are no more; a row may have a thousand empty
cells."""
_TITLE_FIELD = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}title"
"""Shows the title of the document; other titles describe pictures."""
_SKIPPED = {
    "tracked-changes": "deleted text",
    "annotation": "comments",
    "annotation-end": "comments",
    "sequence-decls": "forms and fields",
    "variable-decls": "forms and fields",
    "forms": "forms and fields",
    "placeholder": "placeholders of fields",
    "ruby-text": "readings beside characters",
    "title": "descriptions of pictures and fields",
    "desc": "descriptions of pictures and fields",
}


def read_odt(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The body of an OpenDocument text, without deleted text and comments."""
    package = Package(data)
    if "META-INF/manifest.xml" in package.names and b"encryption-data" in package.read(
        "META-INF/manifest.xml"
    ):
        raise UserError("it is encrypted; save it without a password")
    roots = [package.xml(part) for part in ("content.xml", "styles.xml") if part in package.names]
    if "content.xml" not in package.names:
        package.read("content.xml")  # raises the error that it is missing
    body = next((e for e in roots[0].iter() if local_name(e) == "body"), roots[0])
    reader = _Odt(_hidden_styles(roots), notes)
    yield Passage("".join(reader.blocks(body)).rstrip("\n") + "\n")
    for element in (e for root in roots[1:] for e in root.iter()):
        if re.match("(header|footer)(-left|-first)?$", local_name(element)):
            notes.drop("page headers and footers", "".join(element.itertext()))
    package.account(notes)


def _hidden_styles(roots: list[Any]) -> frozenset[str]:
    """Styles that hide text and paragraphs, themselves or through the styles they are based on."""
    own: dict[str, bool] = {}
    parents: dict[str, str] = {}
    for style in (e for root in roots for e in root.iter() if local_name(e) == "style"):
        name = attribute(style, "name") or ""
        parents[name] = attribute(style, "parent-style-name") or ""
        for properties in style:
            shown = _display(properties) or attribute(properties, "visibility")
            if local_name(properties).endswith("-properties") and shown:
                own[name] = shown in ("none", "false", "hidden")
    hidden = set()
    for name in parents:
        ancestor, seen = name, set()
        while ancestor in parents and ancestor not in own and ancestor not in seen:
            seen.add(ancestor)
            ancestor = parents[ancestor]
        if own.get(ancestor):
            hidden.add(name)
    return frozenset(hidden)


def _display(element: Any) -> str:
    return attribute(element, "display") or ""


class _Odt:
    """Walks an OpenDocument text."""

    def __init__(self, hidden_styles: frozenset[str], notes: Notes) -> None:
        self.hidden_styles = hidden_styles
        self.notes = notes

    def blocks(self, parent: Any) -> Iterator[str]:
        """Text of paragraphs and tables, in order."""
        for element in parent:
            name = local_name(element)
            self.notes.drop("text outside of paragraphs", element.tail)
            if self.is_hidden(element):
                self.notes.drop("hidden text", "".join(element.itertext()))
            elif name in ("p", "h"):
                footnotes: list[str] = []
                text = self.inline(element, footnotes).strip("\n")
                yield text + "\n\n" if text.strip() else ""
                yield from footnotes
            elif name == "table":
                yield from self.rows(element)
                yield "\n"
            elif name in _SKIPPED:
                self.notes.drop(_SKIPPED[name], "".join(element.itertext()))
            else:
                self.notes.drop("text outside of paragraphs", element.text)
                yield from self.blocks(element)

    def rows(self, table: Any) -> Iterator[str]:
        """Yield a line for each row."""
        for element in table:
            name = local_name(element)
            if attribute(element, "visibility") in ("collapse", "filter"):
                self.notes.drop("hidden text", "".join(element.itertext()))
            elif name == "table-row":
                cells = []
                for cell in element:
                    if local_name(cell) == "table-cell":
                        text = re.sub(r"\s*\n\s*", " ", "".join(self.blocks(cell))).strip()
                        n = int(attribute(cell, "number-columns-repeated") or 1)
                        cells += [text] * min(n, REPEATED if len(text) < REPEATED else 1)
                    else:
                        self.notes.drop("covered cells", "".join(cell.itertext()))
                if any(cells):
                    yield "\t".join(cells).rstrip("\t") + "\n"
            elif name in ("table-header-rows", "table-rows", "table-row-group"):
                yield from self.rows(element)
            else:
                self.notes.drop("titles of tables", "".join(element.itertext()))

    def inline(self, parent: Any, footnotes: list[str]) -> str:
        """Text of a paragraph; notes and boxes, which follow it, are added to `footnotes`."""
        parts = [parent.text or ""]
        for element in parent:
            name = local_name(element)
            if name == "s":
                parts.append(" " * min(int(attribute(element, "c") or 1), 1000))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name == "note":
                parts.append(self.footnote(element, footnotes))
            elif name in ("text-box", "list", "table"):
                footnotes.append("".join(self.blocks([element])).strip("\n") + "\n\n")
            elif name in _SKIPPED and element.tag != _TITLE_FIELD:
                self.notes.drop(_SKIPPED[name], "".join(element.itertext()))
            elif self.is_hidden(element):
                self.notes.drop("hidden text", "".join(element.itertext()))
            else:
                parts.append(self.inline(element, footnotes))
            parts.append(element.tail or "")
        return "".join(parts)

    def footnote(self, note: Any, footnotes: list[str]) -> str:
        """The mark of a note, whose text waits for the end of the paragraph."""
        mark = ""
        for part in note:
            if local_name(part) == "note-citation":
                mark = f"[{''.join(part.itertext()).strip()}]"
            elif local_name(part) == "note-body":
                body = "".join(self.blocks(part)).strip()
                footnotes.append(f"{mark} {body}\n\n")
        return mark

    def is_hidden(self, element: Any) -> bool:
        """Whether a section or a text is hidden, or all that a paragraph contains."""
        if attribute(element, "style-name") in self.hidden_styles:
            return local_name(element) in ("p", "h", "span", "a", "table", "page")
        if local_name(element) == "section":
            return _display(element) == "none" or attribute(element, "is-hidden") == "true"
        if local_name(element) == "hidden-text":
            return attribute(element, "is-hidden") == "true"
        return local_name(element) in ("p", "h") and any(
            local_name(e) == "hidden-paragraph" and attribute(e, "is-hidden") == "true"
            for e in element.iter()
        )
