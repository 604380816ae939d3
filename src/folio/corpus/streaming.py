"""Files -> texts, one after the other, of which nothing is kept: for more text than memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from folio.corpus.archives import unpacked_into
from folio.corpus.cleaning import clean
from folio.corpus.extraction_worker import passages_of, why_refused
from folio.corpus.files import Findings, SourceFile, find_files
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.readers import read_text_file
from folio.corpus.reading import ReadingOptions, reader_of, require_no_rtf, settings_of
from folio.errors import UserError
from folio.storage import StorageError

T = TypeVar("T")


class RefusedError(UserError):
    """Raised where a file cannot be read to its end."""


def unpacked_files(path: str, findings: Findings, folder: Path) -> Iterator[SourceFile]:
    """A file, or the files that are packed in it, one at a time.

    Args:
        path: a file that was found before.
        findings: records what is refused.
        folder: where they are unpacked, and deleted as soon as the next one is asked for.
    """
    with unpacked_into(folder):
        for file in find_files(path, findings, everything=False):
            yield file
            if file.path.parent == folder and file.path != Path(path):
                file.path.unlink(missing_ok=True)


def texts_of(
    file: SourceFile, options: ReadingOptions, notes: Notes | None = None
) -> Iterator[Iterator[str]]:
    """The documents of a file, each in pieces, which have to be read before the next one.

    They are those that `read_documents` makes of it, except that lines which recur in many files
    are not searched for. `notes` receives what is to be said of the file.

    Raises:
        RefusedError: it cannot be read, or has conversations, also after some of its documents.
    """
    for laid_out, pieces in _refusing(_found(file, options, notes or Notes())):
        chosen = laid_out and options.cleaning.apply_to == "extracted"
        if chosen or options.cleaning.apply_to == "all":
            yield _refusing(clean(pieces, options.cleaning))
        else:
            yield _refusing(pieces)


def _found(
    file: SourceFile, options: ReadingOptions, notes: Notes
) -> Iterator[tuple[bool, Iterable[str]]]:
    """Whether it was extracted from a layout, and its pieces, for each document."""
    known = reader_of(file, options)
    if known is None:
        require_no_rtf(file)
        yield False, read_text_file(file.path, file.name, options.encoding, notes).pieces()
        return
    settings = settings_of(known, options)
    passages = passages_of(file.path, known, settings, options.time_limit_seconds, notes)
    for alone, group in groupby(passages, lambda passage: passage.document):
        if alone:
            for passage in group:
                yield known.laid_out, [_spoken_by_one(passage)]
        else:
            yield known.laid_out, (_encodable(passage.text) for passage in group)


def _spoken_by_one(passage: Passage) -> str:
    if passage.conversation:
        raise UserError(
            f"{passage.place} is a conversation, of which a store of tokens knows nothing. Train "
            f"from the file itself, or read it as text: --corpus.conversations text"
        )
    return _encodable(passage.text)


def _encodable(text: str) -> str:
    """The text without the halves of characters that JSON may have."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _refusing(items: Iterable[T]) -> Iterator[T]:
    """Tell what a reader raises from what is raised where its texts are used."""
    try:
        yield from items
    except StorageError:
        raise
    except Exception as error:  # any failure of a reader
        raise RefusedError(why_refused(error)) from error
