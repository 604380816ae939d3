"""A document: where a text came from, and the text itself, read anew on each request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from folio.errors import UserError

Pieces = Callable[[], Iterator[str]]
"""Reads a text from its start, in pieces that fit into memory."""


@dataclass(frozen=True)
class Provenance:
    """Which file a document was taken from, and how."""

    path: str
    """Members of an archive are named archive.zip/member."""
    extractor: str = "text as it lies there"
    """The reader and its version."""
    sha256: str = ""
    """Hash of the file; empty if the text is the file."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A text that is never held as a whole, so that it may be larger than memory."""

    source: str
    """What the user calls it: a path, or a built-in corpus and the part of it."""
    pieces: Pieces
    sha256: str
    """Hash of the text in UTF-8: documents with equal content agree, whatever their files."""
    n_characters: int
    n_bytes: int
    """Size of the text in UTF-8."""
    provenance: Provenance | None = None
    places: tuple[tuple[int, str], ...] = ()
    """Character positions at which its pages or chapters begin, with their names."""
    is_conversation: bool = False
    """Whether its text consists of turns with marks between them; see turns.py."""

    @property
    def text(self) -> str:
        """The whole text, for documents known to be small."""
        return "".join(self.pieces())


@dataclass(frozen=True)
class Part:
    """The characters start ... stop - 1 of a document."""

    document: Document
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def n_bytes(self) -> int:
        """Length of its UTF-8 encoding in bytes."""
        if len(self) == self.document.n_characters:
            return self.document.n_bytes
        if self.stop == self.document.n_characters:  # a tail: everything but the head
            return self.document.n_bytes - Part(self.document, 0, self.start).n_bytes
        return sum(len(piece.encode("utf-8")) for piece in self.pieces())

    def pieces(self) -> Iterator[str]:
        """Read the text of this part.

        Raises:
            UserError: the file has become shorter since it was counted.
        """
        position = 0
        for piece in self.document.pieces():
            begin, end = max(self.start - position, 0), min(self.stop - position, len(piece))
            if begin < end:
                yield piece[begin:end]
            position += len(piece)
            if position >= self.stop:
                return
        if position < self.stop:
            raise UserError(
                f"{self.document.source} changed while it was read: it had "
                f"{self.document.n_characters} characters and now has {position}. Start again."
            )


def make_document(source: str, pieces: Pieces, first: Iterable[str] | None = None) -> Document:
    """Read a text once, to count and hash it; `first` may be the iterator of that reading."""
    digest, n_characters, n_bytes = hashlib.sha256(), 0, 0
    for piece in pieces() if first is None else first:
        encoded = piece.encode("utf-8")
        digest.update(encoded)
        n_characters += len(piece)
        n_bytes += len(encoded)
    return Document(source, pieces, digest.hexdigest(), n_characters, n_bytes)


def document_from_text(source: str, text: str) -> Document:
    """A document whose text is in memory."""
    return make_document(source, lambda: iter((text,)))
