"""DOCX and ODT: paragraphs, tables and footnotes from their XML.

Paragraphs end with an empty line, rows of a table with a line end, cells with a tab. A footnote
follows the paragraph that refers to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError


def read_docx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The body of a Word document, without deleted text, comments, page headers and footers."""
    package = Package(data)
    main = _main_part(package)
    targets = _relations(package, main)
    reader = _Docx(
        {kind: _notes_of(package, targets.get(f"{kind}s", "")) for kind in ("footnote", "endnote")},
        notes,
    )
    body = package.xml(main)
    yield Passage("".join(reader.blocks(body)).rstrip("\n") + "\n")
    for kept in reader.footnotes_of.values():
        for note in kept.values():
            if note not in reader.used:
                notes.drop("footnotes without a place", _texts(note))
    for part in sorted(package.names):
        if match := _OTHER_TEXT.search(part):
            notes.drop(_OTHER_REASONS[match[1]], _texts(package.xml(part)))
    package.account(notes)


def read_odt(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The body of an OpenDocument text, without deleted text and comments."""
    package = Package(data)
    if "META-INF/manifest.xml" in package.names and b"encryption-data" in package.read(
        "META-INF/manifest.xml"
    ):
        raise UserError("it is encrypted; save it without a password")
    root = package.xml("content.xml")
    body = next((e for e in root.iter() if local_name(e) == "body"), root)
    yield Passage("".join(_Odt(notes).blocks(body)).rstrip("\n") + "\n")
    if "styles.xml" in package.names:
        for element in package.xml("styles.xml").iter():
            if local_name(element) in ("header", "footer", "header-left", "footer-left"):
                notes.drop("page headers and footers", "".join(element.itertext()))
    package.account(notes)


# ---- DOCX ------------------------------------------------------------------------------

_LEFT_OUT = {
    "del": "deleted text",
    "moveFrom": "deleted text",
    "Fallback": "what stands there in another form",
    "instrText": "codes of fields",
    "delInstrText": "codes of fields",
    "rt": "readings beside characters",
}
_OTHER_TEXT = re.compile(r"^word/(comments|header|footer)\d*\.xml$")
_OTHER_REASONS = {
    "comments": "comments",
    "header": "page headers and footers",
    "footer": "page headers and footers",
}


def _texts(element: Any) -> str:
    """All text inside an element of a Word document."""
    texts = ("t", "delText", "instrText", "delInstrText")
    return "".join(e.text or "" for e in element.iter() if local_name(e) in texts)


def _main_part(package: Package) -> str:
    if "_rels/.rels" in package.names:
        for element in package.xml("_rels/.rels"):
            if (attribute(element, "Type") or "").endswith("/officeDocument"):
                return package.resolve("", attribute(element, "Target") or "")
    return "word/document.xml"


def _relations(package: Package, part: str) -> dict[str, str]:
    """Parts that a part refers to, by the last word of their type."""
    folder, _, name = part.rpartition("/")
    relations = f"{folder}/_rels/{name}.rels"
    if relations not in package.names:
        return {}
    return {
        (attribute(e, "Type") or "").rpartition("/")[2]: package.resolve(
            part, attribute(e, "Target") or ""
        )
        for e in package.xml(relations)
        if attribute(e, "TargetMode") != "External"
    }


def _notes_of(package: Package, part: str) -> dict[str, Any]:
    if part not in package.names:
        return {}
    return {attribute(note, "id") or "": note for note in package.xml(part)}


class _Docx:
    def __init__(self, footnotes_of: dict[str, dict[str, Any]], notes: Notes) -> None:
        self.footnotes_of = footnotes_of
        self.notes = notes
        self.number = 0
        self.pending: list[tuple[str, Any]] = []
        self.used: list[Any] = []

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables."""
        for element in parent:
            name = local_name(element)
            if name == "p":
                text = self.inline(element).strip("\n")
                yield text + "\n\n" if text.strip() else ""
                yield from self.footnotes()
            elif name == "tbl":
                yield from self.rows(element)
                yield "\n"
                yield from self.footnotes()
            elif name in _LEFT_OUT:
                self.notes.drop(_LEFT_OUT[name], _texts(element))
            elif name != "sectPr":
                yield from self.blocks(element)

    def rows(self, table: Any) -> Iterator[str]:
        """A line for each row; tables inside a cell follow in it."""
        for row in _children(table, "tr"):
            cells = [
                re.sub(r"\s*\n\s*", " ", "".join(self.blocks(cell))).strip()
                for cell in _children(row, "tc")
            ]
            yield "\t".join(cells) + "\n"

    def footnotes(self) -> Iterator[str]:
        """Those that were referred to since the last time."""
        waiting, self.pending = self.pending, []
        for mark, note in waiting:
            text = "".join(self.blocks(note)).strip()
            yield f"{mark} {text}\n\n" if text else ""

    def inline(self, parent: Any) -> str:
        """Text of a paragraph, with what floats in it."""
        parts: list[str] = []
        for element in parent:
            name = local_name(element)
            if name == "t":
                parts.append(element.text or "")
            elif name in ("tab", "ptab"):
                parts.append("\t")
            elif name in ("br", "cr"):
                parts.append("\n")
            elif name == "noBreakHyphen":
                parts.append("-")
            elif name in ("footnoteReference", "endnoteReference"):
                note = self.footnotes_of[name.removesuffix("Reference")].get(
                    attribute(element, "id") or ""
                )
                if note is not None:
                    self.used.append(note)
                    self.number += 1
                    parts.append(f"[{self.number}]")
                    self.pending.append((f"[{self.number}]", note))
            elif name == "txbxContent":
                parts.append("\n" + "".join(self.blocks(element)).strip("\n") + "\n")
            elif name == "sym":  # a character of a font of its own
                code = attribute(element, "char") or ""
                self.notes.drop("characters of symbol fonts", chr(int(code, 16)) if code else "")
            elif name in _LEFT_OUT:
                self.notes.drop(_LEFT_OUT[name], _texts(element))
            elif name not in ("pPr", "rPr"):
                parts.append(self.inline(element))
        return "".join(parts)


def _children(parent: Any, name: str) -> Iterator[Any]:
    """Rows of a table or cells of a row, also those inside content controls and insertions."""
    for element in parent:
        found = local_name(element)
        if found == name:
            yield element
        elif found in ("sdt", "sdtContent", "ins", "customXml", "smartTag", "moveTo"):
            yield from _children(element, name)


# ---- ODT -------------------------------------------------------------------------------

_SKIPPED = {
    "tracked-changes": "deleted text",
    "annotation": "comments",
    "annotation-end": "comments",
    "sequence-decls": "forms and fields",
    "variable-decls": "forms and fields",
    "forms": "forms and fields",
    "ruby-text": "readings beside characters",
}


class _Odt:
    """What stands in an OpenDocument text."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables."""
        for element in parent:
            name = local_name(element)
            self.notes.drop("text outside of paragraphs", element.tail)
            if name in ("p", "h"):
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
        """A line for each row."""
        for element in table:
            name = local_name(element)
            if name == "table-row":
                cells = []
                for cell in element:
                    if local_name(cell) == "table-cell":
                        text = "".join(self.blocks(cell))
                        cells.append(re.sub(r"\s*\n\s*", " ", text).strip())
                    else:
                        self.notes.drop("covered cells", "".join(cell.itertext()))
                if any(cells):
                    yield "\t".join(cells) + "\n"
            elif name in ("table-header-rows", "table-rows", "table-row-group"):
                yield from self.rows(element)
            else:
                self.notes.drop("titles of tables", "".join(element.itertext()))

    def inline(self, parent: Any, footnotes: list[str]) -> str:
        """Text of a paragraph, with what floats in it."""
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
                parts.append("\n" + "".join(self.blocks([element])).strip("\n") + "\n")
            elif name in _SKIPPED:
                self.notes.drop(_SKIPPED[name], "".join(element.itertext()))
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
