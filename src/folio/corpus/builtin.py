"""Corpora that Folio knows by name: one is on every machine, one is downloaded once."""

from __future__ import annotations

import hashlib
import http.client
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
    data = fetched(
        SHAKESPEARE_URL,
        SHAKESPEARE_SHA256,
        f"Put {cached.name} into a folder and name that folder in FOLIO_CORPORA, or use "
        f"python-docs, which needs no network.",
    )
    with atomic_write(cached, "wb") as file:
        file.write(data)
    return cached


def fetched(url: str, sha256: str, otherwise: str) -> bytes:
    """The published file at an address.

    Args:
        url: the address.
        sha256: of the file; what a proxy gives in its place is refused.
        otherwise: what to do without a network, as a sentence.

    Raises:
        UserError: it cannot be fetched, or is another file.
    """
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{url} could not be fetched ({getattr(error, 'reason', error)}). {otherwise}"
        ) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"{url} gave another file than expected: its sha256 is not {sha256}. Nothing was "
            f"kept; try again. {otherwise}"
        )
    return data
