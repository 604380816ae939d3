"""The corpus of a run: what the user named, read, split and accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folio.corpus.builtin import BUILTIN
from folio.corpus.document import Document
from folio.corpus.readers import read_path, read_stdin
from folio.corpus.split import Split, SplitKind, split_by_files, split_documents
from folio.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which text, and what is held out of it."""

    sources: tuple[str, ...] = ("python-docs",)
    """Files, folders of .txt and .md, `-` for standard input, or built-in: python-docs,
    shakespeare."""

    validation: tuple[str, ...] = ()
    """Files to hold out, instead of a part of the sources."""

    encoding: str = "auto"
    """Of the files. `auto` is UTF-8, or what a byte-order mark says."""

    split: SplitKind = "auto"
    """What is held out: the tail of each document, or whole documents by their sha256.
    `auto` takes documents where there are enough of them."""

    validation_fraction: float = 0.1
    """Share of the characters to hold out."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("corpus.sources is empty. Name a file, a folder or python-docs.")
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                f"corpus.validation_fraction is {self.validation_fraction}; "
                f"it is a share between 0 and 1."
            )


@dataclass(frozen=True)
class Corpus:
    """Documents and their split."""

    documents: list[Document]
    split: Split

    def record(self) -> dict[str, Any]:
        """What corpus.json keeps: sources, counts, the split and the ledger."""
        training = sum(map(len, self.split.training))
        validation = sum(map(len, self.split.validation))
        dropped = self.split.dropped
        everything = {id(d): d for d in self.documents}
        for part in (*self.split.training, *self.split.validation):
            everything.setdefault(id(part.document), part.document)
        characters_in = sum(d.n_characters for d in everything.values())
        assert characters_in == training + validation + sum(dropped.values())
        return {
            "sources": [
                {
                    "source": d.source,
                    "sha256": d.sha256,
                    "characters": d.n_characters,
                    "bytes": d.n_bytes,
                }
                for d in everything.values()
            ],
            "split": self.split.kind,
            "ledger": {
                "characters_in": characters_in,
                "training": training,
                "validation": validation,
                "dropped": dropped,
            },
        }


def read_corpus(config: CorpusConfig) -> Corpus:
    """Read everything that the config names.

    Raises:
        UserError: a source that does not exist, cannot be read, or has no text.
    """
    documents = list(_documents(config.sources, config.encoding))
    if config.validation:
        held_out = list(_documents(config.validation, config.encoding))
        split = split_by_files(documents, held_out)
    else:
        split = split_documents(documents, config.split, config.validation_fraction)
    return Corpus(documents, split)


def _documents(sources: Iterable[str], encoding: str) -> Iterator[Document]:
    empty = True
    for source in sources:
        for document in _open(source, encoding):
            if document.n_characters:
                empty = False
                yield document
    if empty:
        raise UserError(f"There is no text in {', '.join(sources)}: 0 characters were read.")


def _open(source: str, encoding: str) -> Iterable[Document]:
    if source == "-":
        return [read_stdin(encoding)]
    path = Path(source).expanduser()
    if path.exists():
        return read_path(path, encoding)
    if source in BUILTIN:
        return BUILTIN[source]()
    raise UserError(_no_such_source(source, path))


def _no_such_source(source: str, path: Path) -> str:
    siblings = []
    if path.parent.is_dir():
        siblings = [str(p.relative_to(path.parent)) for p in path.parent.iterdir()]
        siblings = [str(path.parent / s) if path.parent != Path() else s for s in siblings]
    nearest = next(iter(difflib.get_close_matches(source, [*BUILTIN, *siblings], n=1)), None)
    hint = f"Did you mean '{nearest}'?" if nearest else f"Built in are {', '.join(BUILTIN)}."
    return f"There is no file, folder or built-in corpus '{source}'. {hint}"
