"""DOCX: paragraphs, tables and footnotes of a Word document, as Word shows them.

Paragraphs end with an empty line, rows of a table with a line end, cells with a tab. A footnote
and a box follow the paragraph that they belong to. Tracked insertions are kept, deletions are not;
text hidden directly or by a style is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name, shown_branch
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.slides import drawing_text

_LEFT_OUT = {
    "del": "deleted text",
    "moveFrom": "deleted text",
    "rt": "readings beside characters",
}
_OTHER_TEXT = re.compile(r"^word/(comments|header|footer)\d*\.xml$")
_OTHER_REASONS = {
    "comments": "comments",
    "header": "page headers and footers",
    "footer": "page headers and footers",
}
_CODES = ("instrText", "delInstrText")
_OFF = ("0", "false", "off")
_MATH = {"sup": "^{}", "sub": "_{}", "num": "{}", "den": "/{}", "deg": "[{}]", "rad": "√{}"}
"""How parts of a formula are written in a line of text."""
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def read_docx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The body of a Word document, without deleted text, comments, page headers and footers."""
    package = Package(data)
    main = package.main_part("word/document.xml")
    reader = _Docx(package, main, notes)
    body = package.xml(main)
    yield Passage(reader.flow(body).rstrip("\n") + "\n")
    reader.count_unused()
    for part in sorted(package.names):
        if match := _OTHER_TEXT.search(part):
            notes.drop(_OTHER_REASONS[match[1]], _texts(package.xml(part)))
    package.account(notes)


def _texts(element: Any) -> str:
    """All text inside an element of a Word document."""
    texts = ("t", "delText", *_CODES)
    return "".join(e.text or "" for e in element.iter() if local_name(e) in texts)


class _Docx:
    """Walks a document and keeps what is open at the current position."""

    def __init__(self, package: Package, main: str, notes: Notes) -> None:
        self.package = package
        self.relations = package.relations(main)
        related = package.related(main)
        self.footnotes_of: dict[str, dict[str, Any]] = {}
        for kind in ("footnote", "endnote"):
            parts = related.get(f"{kind}s", [])
            self.footnotes_of[kind] = {
                attribute(note, "id") or "": note for part in parts for note in package.xml(part)
            }
        self.hidden_styles = _hidden_styles([package.xml(p) for p in related.get("styles", [])])
        self.notes = notes
        self.number = 0
        self.pending: list[tuple[str, Any]] = []
        self.used: set[int] = set()
        self.boxes: list[str] = []
        self.begun = ""  # what the next paragraph begins with
        self.fields: list[bool] = []  # whether each open field has reached its result

    def flow(self, parent: Any) -> str:
        """Text of a body, a cell, a note or a box, whose last paragraph ends with it."""
        before, self.begun = self.begun, ""
        text = "".join(self.blocks(parent)) + self.begun
        self.begun = before
        return text

    def blocks(self, parent: Any) -> Iterator[str]:
        """Text of paragraphs and tables, in order."""
        for element in parent:
            name = local_name(element)
            if name == "p":
                text = self.inline(element, self.is_hidden(element, False)).strip("\n")
                self.fields = list(filter(None, self.fields))  # codes end with the paragraph
                if _goes_on(element):
                    self.begun += text
                    continue
                text, self.begun = self.begun + text, ""
                yield text + "\n\n" if text.strip() else ""
                boxes, self.boxes = self.boxes, []
                yield from boxes
                yield from self.footnotes()
            elif name == "tbl":
                text, self.begun = self.begun, ""
                yield text + "\n\n" if text.strip() else ""
                yield from self.rows(element)
                yield "\n"
                yield from self.footnotes()
            elif name in _LEFT_OUT:
                self.notes.drop(_LEFT_OUT[name], _texts(element))
            elif name == "AlternateContent":
                yield from self.blocks(self.shown(element))
            elif name == "altChunk":
                _, part = self.relations.get(attribute(element, "id") or "", ("", "?"))
                self.notes.warnings.append(f"its part {part}, of another format, is not read")
            elif name == "sdt" and _is_placeholder(element):
                self.notes.drop("placeholders of fields", _texts(element))
            elif name != "sectPr":
                yield from self.blocks(element)

    def rows(self, table: Any) -> Iterator[str]:
        """Yield a line for each row; a table inside a cell is put into that line."""
        for row in _children(table, "tr"):
            if reason := _why_no_row(row):
                self.notes.drop(reason, _texts(row))
                continue
            cells = [
                re.sub(r"\s*\n\s*", " ", self.flow(cell)).strip() for cell in _children(row, "tc")
            ]
            yield "\t".join(cells) + "\n"

    def footnotes(self) -> Iterator[str]:
        """Footnotes that were referred to since the last call."""
        waiting, self.pending = self.pending, []
        for mark, note in waiting:
            text = self.flow(note).strip()
            self.package.expansion.add(len(text))  # a note may be referred to repeatedly
            yield f"{mark} {text}\n\n" if text else ""

    def count_unused(self) -> None:
        """Count the footnotes that nothing refers to."""
        for kept in self.footnotes_of.values():
            for note in kept.values():
                if id(note) not in self.used:
                    self.notes.drop("footnotes without a place", _texts(note))

    def inline(self, parent: Any, hidden: bool) -> str:
        """Text of a paragraph; floating boxes wait for its end."""
        parts: list[str] = []
        for element in parent:
            name = local_name(element)
            if name == "t":
                parts.append(self.said(element.text or "", hidden))
            elif name == "fldChar":
                self.field(attribute(element, "fldCharType") or "")
            elif name in _CODES:
                self.notes.drop("codes of fields", element.text)
            elif name in _SIGNS:
                parts.append("" if hidden or self.in_code() else _SIGNS[name])
            elif name in ("footnoteReference", "endnoteReference") and not hidden:
                parts.append(self.refer(name, attribute(element, "id") or ""))
            elif name == "txbxContent":
                self.box(element)
            elif name == "relIds":
                self.diagram(attribute(element, "dm") or "")
            elif name == "sym":  # a character of a symbol font
                code = attribute(element, "char") or ""
                self.notes.drop("characters of symbol fonts", chr(int(code, 16)) if code else "")
            elif name in _LEFT_OUT:
                self.notes.drop(_LEFT_OUT[name], _texts(element))
            elif name == "AlternateContent":
                parts.append(self.inline(self.shown(element), hidden))
            elif name == "sdt" and _is_placeholder(element):
                self.notes.drop("placeholders of fields", _texts(element))
            elif name in _MATH and "/math" in element.tag:
                part = self.inline(element, hidden)
                parts.append(_MATH[name].format(_grouped(part)) if part else "")
            elif name not in ("pPr", "rPr"):
                if name == "fldSimple":
                    self.notes.drop("codes of fields", attribute(element, "instr"))
                inside = self.is_hidden(element, hidden) if name == "r" else hidden
                parts.append(self.inline(element, inside))
        return "".join(parts)

    # ---- what an element means ----

    def said(self, text: str, hidden: bool) -> str:
        """The text if it is visible; hidden text is counted."""
        if self.in_code():
            self.notes.drop("codes of fields", text)
        elif hidden:
            self.notes.drop("hidden text", text)
        else:
            return text
        return ""

    def in_code(self) -> bool:
        """Whether this is inside a field's code, of which only the result is shown."""
        return not all(self.fields)

    def field(self, mark: str) -> None:
        """Handle the begin, separator or end of a field."""
        if mark == "begin":
            self.fields.append(False)
        elif mark == "separate" and self.fields:
            self.fields[-1] = True
        elif mark == "end" and self.fields:
            self.fields.pop()

    def refer(self, name: str, number: str) -> str:
        """The mark of a footnote, which waits for the end of its paragraph."""
        note = self.footnotes_of[name.removesuffix("Reference")].get(number)
        if note is None:
            return ""
        self.used.add(id(note))
        self.number += 1
        self.pending.append((f"[{self.number}]", note))
        return f"[{self.number}]"

    def shown(self, alternatives: Any) -> Any:
        """Choose one of several alternative forms of an element."""
        chosen, others = shown_branch(alternatives, _texts)
        for branch in others:
            self.notes.drop("what stands there in another form", _texts(branch))
        return chosen if chosen is not None else ()

    def box(self, element: Any) -> None:
        """Keep the text of a box until its paragraph ends."""
        before, self.boxes = self.boxes, []
        text = self.flow(element)
        self.boxes = [*before, text]

    def diagram(self, number: str) -> None:
        """Do the same for a diagram, which is stored in a part of its own."""
        kind, part = self.relations.get(number, ("", ""))
        if kind == "diagramData" and part in self.package.names:
            text = drawing_text(self.package.xml(part), self.notes)
            self.boxes.append(f"{text}\n" if text else "")

    def is_hidden(self, element: Any, otherwise: bool) -> bool:
        """Whether a run is hidden, directly or by its style; or a paragraph, by its style."""
        for properties in element:
            if local_name(properties) not in ("rPr", "pPr"):
                continue
            by_style = None
            for setting in properties:
                value = attribute(setting, "val") or ""
                if local_name(setting) == "vanish":
                    return value not in _OFF
                if local_name(setting) in ("rStyle", "pStyle"):
                    by_style = self.hidden_styles.get(value)
            return otherwise if by_style is None else by_style
        return otherwise


def _grouped(formula: str) -> str:
    """A part of a formula, in brackets unless it is a single sign or number."""
    return formula if formula.isalnum() or len(formula) < 2 else f"({formula})"


def _hidden_styles(roots: list[Any]) -> dict[str, bool]:
    """Styles that hide or show text, themselves or through the styles they are based on."""
    own: dict[str, bool] = {}
    based: dict[str, str] = {}
    for style in (e for root in roots for e in root if local_name(e) == "style"):
        name = attribute(style, "styleId") or ""
        for element in style.iter():
            value = attribute(element, "val") or ""
            if local_name(element) == "vanish":
                own[name] = value not in _OFF
            elif local_name(element) == "basedOn":
                based[name] = value
    found: dict[str, bool] = dict(own)
    for name in based:
        ancestor, seen = name, set()
        while ancestor not in own and ancestor in based and ancestor not in seen:
            seen.add(ancestor)
            ancestor = based[ancestor]
        if ancestor in own:
            found[name] = own[ancestor]
    return found


def _goes_on(paragraph: Any) -> bool:
    """Whether the next paragraph continues this one: it is only the large first letter of that one,
    or its end is deleted.
    """
    settings = [e for p in paragraph if local_name(p) == "pPr" for e in p]
    is_drop_cap = any((attribute(e, "dropCap") or "none") != "none" for e in settings)
    of_its_end = (e for p in settings if local_name(p) == "rPr" for e in p)
    return is_drop_cap or any(local_name(e) in ("del", "moveFrom") for e in of_its_end)


def _is_placeholder(control: Any) -> bool:
    """Whether a content control only prompts for a text."""
    return any(
        local_name(setting) == "showingPlcHdr" and attribute(setting, "val") not in _OFF
        for properties in control
        if local_name(properties) == "sdtPr"
        for setting in properties
    )


def _why_no_row(row: Any) -> str:
    """Why a table row is not shown; empty if it is."""
    settings = (local_name(s) for e in row if local_name(e) == "trPr" for s in e)
    reasons = {"del": "deleted text", "hidden": "hidden text"}
    return next((reasons[name] for name in settings if name in reasons), "")


def _children(parent: Any, name: str) -> Iterator[Any]:
    """Rows of a table or cells of a row, including those inside content controls and insertions."""
    for element in parent:
        found = local_name(element)
        if found == name:
            yield element
        elif found in ("sdt", "sdtContent", "ins", "customXml", "smartTag", "moveTo"):
            yield from _children(element, name)
