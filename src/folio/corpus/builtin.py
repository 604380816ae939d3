"""Corpora that Folio knows by name: one is on every machine, one is downloaded once."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from folio.corpus.document import Document, document_from_text, make_document
from folio.corpus.readers import read_pieces
from folio.errors import UserError
from folio.storage import atomic_write, cache_folder, sha256_of

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def python_docs() -> Iterator[Document]:
    """The language reference that ships with CPython, one document per topic.

    Topics such as "if" are repeated inside larger ones such as "compound"; those are left out, or
    validation text would be read in training.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for name, text in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])):
        paragraphs = set(map(_without_underline, text.strip().split("\n\n")))
        if len(paragraphs - seen) > len(paragraphs) / 2:
            seen |= paragraphs
            yield document_from_text(f"python-docs/{name}", text)


def shakespeare() -> Iterator[Document]:
    """40,000 lines of Shakespeare's plays, which the field calls "tiny shakespeare"."""
    path = _shakespeare_file()
    yield make_document("shakespeare", lambda: read_pieces(path, "utf-8"))


BUILTIN: dict[str, Callable[[], Iterator[Document]]] = {
    "python-docs": python_docs,
    "shakespeare": shakespeare,
}


def _without_underline(paragraph: str) -> str:
    # A topic underlines its own title with asterisks; the same heading inside a larger topic is
    # underlined otherwise.
    return re.sub(r"\n(\W)\1+$", "", paragraph.strip())


def _shakespeare_file() -> Path:
    """The plays from `FOLIO_CORPORA`, from the cache, or from the network."""
    cached = cache_folder() / "corpora" / "tinyshakespeare.txt"
    if folder := os.environ.get("FOLIO_CORPORA"):
        given = Path(folder) / cached.name
        if given.exists() and sha256_of(given) == SHAKESPEARE_SHA256:
            return given
    if cached.exists() and sha256_of(cached) == SHAKESPEARE_SHA256:
        return cached
    try:
        with urllib.request.urlopen(SHAKESPEARE_URL, timeout=30) as response:
            data = response.read()
    except OSError as error:
        raise UserError(
            f"shakespeare could not be fetched ({getattr(error, 'reason', error)}). Put "
            f"{cached.name} into a folder and name that folder in FOLIO_CORPORA, or use "
            f"python-docs, which needs no network. The file is at {SHAKESPEARE_URL}."
        ) from None
    with atomic_write(cached, "wb") as file:
        file.write(data)
    if sha256_of(cached) != SHAKESPEARE_SHA256:
        cached.unlink()
        raise UserError(
            f"{SHAKESPEARE_URL} gave another text than expected: its sha256 is not "
            f"{SHAKESPEARE_SHA256}. Nothing was kept; try again."
        )
    return cached
