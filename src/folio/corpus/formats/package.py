"""Documents that are zips of XML files (DOCX, ODT, EPUB and others), opened with hardened tools."""

from __future__ import annotations

import io
import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from folio.corpus.formats.magic import what_is
from folio.corpus.formats.passage import Notes
from folio.corpus.limits import Expansion
from folio.errors import UserError

READ_BYTES = 1 << 20
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
    NotImplementedError,
)  # fmt: skip
"""What `zipfile` raises for a zip that is damaged, or packed in an unknown way."""
DESCRIBING = frozenset((
    "descr", "title", "alt", "string", "string-value", "prompt", "promptTitle", "error",
    "errorTitle",
))  # fmt: skip
"""Attributes whose values were written for readers, such as the description of a picture."""


class Package:
    """Parts of a zip, by name."""

    def __init__(self, data: bytes) -> None:
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
        except DAMAGED:
            kind = what_is(data[:512])
            raise UserError(f"it is {kind or 'damaged, or not a zip'}") from None
        self.expansion = Expansion(len(data))
        self.n_bytes = len(data)
        self.names = set(self.zip.namelist())
        self.opened: set[str] = set()
        self.described: list[str] = []

    def read(self, name: str) -> bytes:
        """Read a part.

        Raises:
            UserError: not there, encrypted, damaged, or far larger than the file that holds it.
        """
        parts = []
        self.opened.add(name)
        try:
            with self.zip.open(name) as file:
                while block := file.read(READ_BYTES):
                    self.expansion.add(len(block))
                    parts.append(block)
        except KeyError:
            raise UserError(f"it has no part {name}") from None
        except UserError:
            raise
        except NotImplementedError as error:
            raise UserError(f"its part {name} cannot be unpacked: {error}") from None
        except RuntimeError:
            raise UserError("it is encrypted; save it without a password") from None
        except DAMAGED:
            raise UserError(f"its part {name} is damaged") from None
        return b"".join(parts)

    def xml(self, name: str) -> Any:
        """The root element of an XML part; entities are never resolved."""
        root = parse_xml(self.read(name), name)
        for element in root.iter():
            for key, value in element.attrib.items():
                if key.rpartition("}")[2] in DESCRIBING:
                    self.described.append(value)
        return root

    def account(self, notes: Notes) -> None:
        """After reading, count what unpacking added and the parts that were not opened."""
        for text in self.described:
            notes.drop("descriptions of pictures and fields", text)
        unpacked = 0
        for info in self.zip.infolist():
            unpacked += info.file_size
            if info.filename not in self.opened:
                notes.dropped["pictures, styles and other parts"] += info.file_size
        notes.rewritten["unpacking"] = self.n_bytes - unpacked

    def main_part(self, default: str) -> str:
        """The part that holds the document, or lists its sheets or slides."""
        return self.related("").get("officeDocument", [default])[0]

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """The references of a part, by id: the last word of the type, and the part's name."""
        folder, _, name = part.rpartition("/")
        relations = posixpath.join(folder, "_rels", f"{name}.rels")
        if relations not in self.names:
            return {}
        return {
            attribute(e, "Id") or "": (
                (attribute(e, "Type") or "").rpartition("/")[2],
                self.resolve(part, attribute(e, "Target") or ""),
            )
            for e in self.xml(relations)
            if attribute(e, "TargetMode") != "External"
        }

    def related(self, part: str) -> dict[str, list[str]]:
        """The parts that a part refers to, by the last word of their type."""
        found: dict[str, list[str]] = {}
        for kind, target in self.relations(part).values():
            if target in self.names:
                found.setdefault(kind, []).append(target)
        return found

    def resolve(self, base: str, target: str) -> str:
        """The part that `target` means, relative to `base`."""
        target = unquote(target.partition("#")[0])
        if target.startswith("/"):
            return target.lstrip("/")
        return posixpath.normpath(posixpath.join(posixpath.dirname(base), target))


class NotWellFormedError(UserError):
    """Raised by what is not well-formed XML."""


def parse_xml(data: bytes, name: str, comments: bool = False) -> Any:
    """The root element of an XML text.

    Args:
        data: the text.
        name: what errors call it; empty for the file itself.
        comments: whether comments and instructions become elements, whose tag is not a string.

    Raises:
        NotWellFormedError: not well-formed XML.
        UserError: it declares entities, which are used for bombs and to steal files.
    """
    from xml.etree.ElementTree import ParseError, TreeBuilder

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    subject = f"its part {name}" if name else "it"
    try:
        parser = DefusedXMLParser(target=TreeBuilder(insert_comments=comments, insert_pis=comments))
        parser.feed(data)
        return parser.close()
    except DefusedXmlException:
        raise UserError(f"{subject} declares XML entities, which are refused") from None
    except (ParseError, ValueError, LookupError):
        raise NotWellFormedError(f"{subject} is not well-formed XML") from None


def shown_branch(alternatives: Any, texts: Callable[[Any], str]) -> tuple[Any, list[Any]]:
    """Choose one form of `mc:AlternateContent`; returns it and the others.

    The first with text is chosen, since the fallback for older programs has the same text or a
    picture of it.
    """
    branches = list(alternatives)
    chosen = next((b for b in branches if texts(b).strip()), branches[0] if branches else None)
    return chosen, [branch for branch in branches if branch is not chosen]


def local_name(element: Any) -> str:
    """The tag without its namespace; empty for comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: Any, name: str) -> str | None:
    """An attribute by its name without its namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None
