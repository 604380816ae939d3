"""Which characters are trained on and which are held out. The two never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from folio.corpus.document import Document, Part
from folio.errors import UserError

SplitKind = Literal["auto", "tail", "documents"]


@dataclass(frozen=True)
class Split:
    """Parts of documents; every character of the input is in one of them or was dropped."""

    kind: str
    training: list[Part]
    validation: list[Part]
    dropped: dict[str, int]
    """Characters by reason."""


def split_documents(documents: Sequence[Document], kind: SplitKind, fraction: float) -> Split:
    """Hold out about `fraction` of the characters.

    Args:
        documents: the corpus.
        kind: `tail`, the end of each document; `documents`, whole ones in the order of
            their sha256, so that neither file names nor their order matter; `auto` is
            `documents` where that comes near the fraction.
        fraction: share of the characters.
    """
    if kind != "tail" and len(documents) > 1:
        held_out = _whole_documents(documents, fraction)
        share = _characters(documents, held_out) / max(_characters(documents), 1)
        if kind == "documents" or fraction / 2 <= share <= fraction * 2:
            training = [_whole(d) for d in documents if d.sha256 not in held_out]
            validation = [_whole(d) for d in documents if d.sha256 in held_out]
            return Split("documents", training, validation, {})
    elif kind == "documents":
        raise UserError(
            "corpus.split is 'documents', but there is one document. "
            "Give several, or --corpus.split tail."
        )
    training, validation = [], []
    repeated = 0
    seen: set[str] = set()
    for document in documents:
        if document.sha256 in seen:  # a copy's head would teach the other's tail
            repeated += document.n_characters
            continue
        seen.add(document.sha256)
        cut = int(document.n_characters * (1 - fraction))
        training.append(Part(document, 0, cut))
        validation.append(Part(document, cut, document.n_characters))
    dropped = {"copy of another document": repeated} if repeated else {}
    return Split("tail", training, validation, dropped)


def split_by_files(documents: Sequence[Document], validation: Sequence[Document]) -> Split:
    """Hold out what the user names; a training document of equal content is dropped."""
    held_out = {document.sha256 for document in validation}
    training = [_whole(d) for d in documents if d.sha256 not in held_out]
    overlap = _characters(documents, held_out)
    if not training:
        raise UserError(
            "Every document is named in --validation too, so nothing is left to train on. "
            "Give other files for one of the two."
        )
    dropped = {"also in validation": overlap} if overlap else {}
    return Split("files", training, [_whole(d) for d in validation], dropped)


def _whole_documents(documents: Sequence[Document], fraction: float) -> set[str]:
    """Contents to hold out: in order of sha256, each that still fits; else the smallest.

    Documents of equal content go together.
    """
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.sha256] = sizes.get(document.sha256, 0) + document.n_characters
    if len(sizes) < 2:
        return set()
    target = fraction * sum(sizes.values())
    chosen: set[str] = set()
    total = 0
    for content in sorted(sizes):
        if total + sizes[content] <= target:
            chosen.add(content)
            total += sizes[content]
    return chosen or {min(sizes, key=lambda content: (sizes[content], content))}


def _whole(document: Document) -> Part:
    return Part(document, 0, document.n_characters)


def _characters(documents: Sequence[Document], contents: set[str] | None = None) -> int:
    return sum(d.n_characters for d in documents if contents is None or d.sha256 in contents)
