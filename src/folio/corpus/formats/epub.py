"""EPUB: the chapters of a book, in the order of its spine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from folio.corpus.formats.html import decode_page, html_text
from folio.corpus.formats.package import Package, attribute, local_name
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

READABLE = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read a passage for each chapter."""
    package = Package(data)
    if "META-INF/encryption.xml" in package.names:
        for element in package.xml("META-INF/encryption.xml").iter():
            algorithm = attribute(element, "Algorithm")
            if local_name(element) == "EncryptionMethod" and algorithm not in FONT_ALGORITHMS:
                raise UserError("it is encrypted (DRM)")
    container = package.xml("META-INF/container.xml")
    roots = [e for e in container.iter() if local_name(e) == "rootfile"]
    if not roots:
        raise UserError("its META-INF/container.xml names no book")
    book = attribute(roots[0], "full-path") or ""
    root = package.xml(book)
    items = {
        attribute(e, "id"): (attribute(e, "href") or "", attribute(e, "media-type"))
        for e in root.iter()
        if local_name(e) == "item"
    }
    for element in root:
        if local_name(element) == "metadata":
            notes.drop("what is said about the book", "".join(element.itertext()))
    for reference in (e for e in root.iter() if local_name(e) == "itemref"):
        href, kind = items.get(attribute(reference, "idref"), ("", None))
        name = package.resolve(book, href)
        if kind not in READABLE:
            if name in package.names:
                notes.warnings.append(f"its part {name}, {kind}, is not text that is read here")
            continue
        if name in package.opened:
            continue
        if name not in package.names:
            notes.warnings.append(f"its chapter {name} is missing")
            continue
        chapter = package.read(name)
        if re.search(rb"<!ENTITY", chapter[:10_000]):
            raise UserError(f"its part {name} declares XML entities, which are refused")
        text = html_text(decode_page(chapter, notes), notes)
        if text:
            title = text.partition("\n")[0][:60]
            yield Passage(text + "\n", f"chapter {title}")
    for href, kind in items.values():
        part = package.resolve(book, href)
        if kind in READABLE and part in package.names - package.opened:
            notes.dropped["chapters outside the order of reading"] += len(package.read(part))
    package.account(notes)
