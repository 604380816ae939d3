"""A document that is a zip of XML files, opened with hardened tools: DOCX, ODT and EPUB."""

from __future__ import annotations

import io
import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from folio.corpus.limits import Expansion
from folio.errors import UserError

READ_BYTES = 1 << 20


class Package:
    """Parts of a zip, by name."""

    def __init__(self, data: bytes) -> None:
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError):
            raise UserError("it is damaged, or no zip") from None
        self.expansion = Expansion(len(data))
        self.names = set(self.zip.namelist())

    def read(self, name: str) -> bytes:
        """A part.

        Raises:
            UserError: not there, encrypted, damaged, or far larger than the file that holds it.
        """
        parts = []
        try:
            with self.zip.open(name) as file:
                while block := file.read(READ_BYTES):
                    self.expansion.add(len(block))
                    parts.append(block)
        except KeyError:
            raise UserError(f"it has no part {name}") from None
        except RuntimeError:
            raise UserError("it is encrypted; save it without a password") from None
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"its part {name} is damaged") from None
        return b"".join(parts)

    def xml(self, name: str) -> Any:
        """The root element of an XML part; no entity is ever resolved."""
        return parse_xml(self.read(name), name)

    def resolve(self, base: str, target: str) -> str:
        """The part that a part `base` means by `target`."""
        target = unquote(target.partition("#")[0])
        if target.startswith("/"):
            return target.lstrip("/")
        return posixpath.normpath(posixpath.join(posixpath.dirname(base), target))


def parse_xml(data: bytes, name: str) -> Any:
    """The root element of an XML text.

    Raises:
        UserError: not well-formed, or with entities, of which bombs and thefts of files are made.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(data)
    except DefusedXmlException:
        raise UserError(f"its part {name} declares XML entities, which are refused") from None
    except (ParseError, ValueError, LookupError):
        raise UserError(f"its part {name} is no well-formed XML") from None


def local_name(element: Any) -> str:
    """The tag without its namespace; empty for comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: Any, name: str) -> str | None:
    """An attribute by its name without its namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None
