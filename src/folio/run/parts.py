"""The documents in a run's training text (tokens/parts.safetensors), and what was planted in it
(canaries.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folio.corpus.canaries import Canary
from folio.corpus.document import Document, Part
from folio.corpus.ledger import entry_numbers
from folio.records import DamagedError, made_of
from folio.run.directory import Run
from folio.storage import read_arrays, read_json, write_arrays


@dataclass(frozen=True)
class Parts:
    """P parts of documents, in the order of the text."""

    source: NDArray[np.int64]
    """(P,) index in `sources` of corpus.json."""
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    """(P,) end of the part, characters start ... stop - 1 of the document."""
    families: NDArray[np.int64]
    """(P,) family numbers; similar documents have equal numbers."""

    def __len__(self) -> int:
        return len(self.source)


def make_parts(
    documents: Sequence[Document], parts: Sequence[Part], families: Sequence[int]
) -> Parts:
    """Record the parts of a text.

    Args:
        documents: all documents of the corpus, in the order of corpus.json.
        parts: the parts in this text.
        families: family of each part.
    """
    entry_of = dict(zip(map(id, documents), entry_numbers(documents)))
    rows = [(entry_of[id(part.document)], part.start, part.stop) for part in parts]
    source, start, stop = np.array(rows, np.int64).reshape(-1, 3).T
    return Parts(source, start, stop, np.array(families, np.int64))


def write_parts(run: Run, parts: Parts) -> None:
    """Write the parts into the run."""
    table = np.stack([parts.source, parts.start, parts.stop], axis=1)
    write_arrays(run.parts_file, {"parts": table, "families": parts.families})


def read_parts(run: Run) -> Parts | None:
    """Read the parts of a run; None if it is too old to have them."""
    if not run.parts_file.exists():
        return None
    arrays = read_arrays(run.parts_file)
    try:
        source, start, stop = arrays["parts"].T
        return Parts(source, start, stop, arrays["families"])
    except (KeyError, ValueError) as error:
        raise DamagedError(run.parts_file, str(error)) from None


def read_canaries(run: Run) -> list[Canary]:
    """Read the planted canaries; empty for most runs."""
    file = run.canaries_file
    if not file.exists():
        return []
    return [made_of(Canary, record, file) for record in read_json(file, list)]
