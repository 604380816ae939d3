"""PPTX: paragraphs of a presentation's slides, in the order in which they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.package import Package, attribute, local_name, shown_branch
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

_FURNITURE = ("sldNum", "dt", "ftr", "hdr")
"""Placeholders for numbers and dates, which each slide repeats."""


def read_pptx(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read one passage per visible slide, followed by its notes."""
    package = Package(data)
    slides = listed(package, "ppt/presentation.xml", "sldId") or numbered(
        package, r"^ppt/slides/slide(\d+)\.xml$"
    )
    if not slides:
        raise UserError("it has no slides: it is not a presentation")
    for number, (_, part) in enumerate(slides, 1):
        root = package.xml(part)
        related = package.related(part)
        shown = [root, *(package.xml(p) for p in related.get("diagramData", []))]
        shown += [package.xml(p) for p in related.get("notesSlide", [])]
        if attribute(root, "show") in ("0", "false"):
            for element in shown:
                notes.drop("hidden slides", "".join(element.itertext()))
            continue
        text = "".join(drawing_text(element, notes) for element in shown)
        if text:
            yield Passage(text + "\n", f"slide {number}")
    for part in sorted(package.names - package.opened):
        for name, reason in _OTHER_TEXT.items():
            if re.match(name, part):
                notes.drop(reason, "".join(package.xml(part).itertext()))
    package.account(notes)


_OTHER_TEXT = {
    r"ppt/comments/.*\.xml$": "comments",
    r"ppt/slides/slide\d+\.xml$": "slides that are not in the presentation",
    r"ppt/notesSlides/notesSlide\d+\.xml$": "notes of no slide",
    r"ppt/charts/chart\d+\.xml$": "charts",
}


def listed(package: Package, main: str, name: str) -> list[tuple[dict[str, str], str]]:
    """The parts that the main part lists, in its order, with their attributes."""
    main = package.main_part(main)
    if main not in package.names:
        return []
    relations = package.relations(main)
    found = []
    for element in (e for e in package.xml(main).iter() if local_name(e) == name):
        ids = [value for key, value in element.attrib.items() if key.endswith("}id")]
        part = relations.get(ids[-1] if ids else "", ("", ""))[1]
        if part in package.names:
            found.append((element.attrib, part))
    return found


def numbered(package: Package, pattern: str) -> list[tuple[dict[str, str], str]]:
    """Parts in the order of the numbers in their names, if nothing lists them."""
    found = ((re.match(pattern, name), name) for name in package.names)
    parts = sorted((int(match[1]), name) for match, name in found if match)
    return [({}, name) for _, name in parts]


def drawing_text(root: Any, notes: Notes) -> str:
    """The paragraphs of a drawing, one per line; cells of a table are separated by tabs."""
    return "".join(_blocks(root, notes))


def _blocks(parent: Any, notes: Notes) -> Iterator[str]:
    notes.drop("text outside of paragraphs", parent.text)
    for element in parent:
        name = local_name(element)
        if reason := _why_unseen(element):
            notes.drop(reason, "".join(element.itertext()))
        elif name == "p":
            text = _inline(element, notes).strip()
            yield text + "\n" if text else ""
        elif name == "tr":
            cells = ("".join(_blocks(cell, notes)).strip().replace("\n", " ") for cell in element)
            line = "\t".join(cells)
            yield line + "\n" if line.strip() else ""
        elif name == "AlternateContent":
            yield from _blocks(_shown(element, notes), notes)
        else:
            yield from _blocks(element, notes)


def _inline(parent: Any, notes: Notes) -> str:
    parts = []
    for element in parent:
        name = local_name(element)
        if name == "t":
            parts.append(element.text or "")
        elif name == "br":
            parts.append("\n")
        elif name == "fld" and attribute(element, "type") == "slidenum":
            notes.drop("page headers and footers", "".join(element.itertext()))
        elif name == "AlternateContent":
            parts.append(_inline(_shown(element, notes), notes))
        else:
            notes.drop("text outside of paragraphs", element.text)
            parts.append(_inline(element, notes))
    return "".join(parts)


def _shown(alternatives: Any, notes: Notes) -> Any:
    chosen, others = shown_branch(alternatives, lambda branch: "".join(branch.itertext()))
    for branch in others:
        notes.drop("what stands there in another form", "".join(branch.itertext()))
    return alternatives if chosen is None else chosen


def _why_unseen(shape: Any) -> str:
    """Why a shape is skipped; empty if it is not."""
    if local_name(shape) not in ("sp", "graphicFrame", "grpSp", "cxnSp", "pic"):
        return ""
    for about in shape:
        if not local_name(about).startswith("nv"):
            continue
        for element in about.iter():
            if local_name(element) == "cNvPr" and attribute(element, "hidden") in ("1", "true"):
                return "hidden text"
            if local_name(element) == "ph" and attribute(element, "type") in _FURNITURE:
                return "page headers and footers"
    return ""
