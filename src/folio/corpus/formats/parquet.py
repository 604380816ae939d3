"""Parquet and Arrow: the column that holds text, a document for each row, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.tables import choose_column
from folio.errors import UserError

BATCH_ROWS = 1024


def read_parquet(path: Path, settings: dict[str, Any], notes: Notes) -> Iterator[Passage]:
    """The text of each row.

    Raises:
        UserError: damaged, or without a column of text.
    """
    import pyarrow

    try:
        yield from _rows(_batches(path, settings["text_column"]), notes)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"it is damaged, or no such table ({str(error)[:100]})") from None


def _batches(path: Path, column: str) -> Iterator[Any]:
    """Batches of one column."""
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        table = pyarrow.parquet.ParquetFile(path)
        chosen = _column(table.schema_arrow, column)
        for batch in table.iter_batches(BATCH_ROWS, columns=[chosen]):
            yield batch.column(0)
        return
    with pyarrow.memory_map(str(path)) as source:
        if magic == b"ARROW1":
            reader = pyarrow.ipc.open_file(source)
            chosen = _column(reader.schema, column)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i).column(chosen)
        else:
            stream = pyarrow.ipc.open_stream(source)
            chosen = _column(stream.schema, column)
            for batch in stream:
                yield batch.column(chosen)


def _column(schema: Any, column: str) -> str:
    import pyarrow

    texts = [
        f.name
        for f in schema
        if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)
    ]
    chosen = column or choose_column(texts) or (texts[0] if len(texts) == 1 else "")
    if chosen not in texts:
        raise UserError(
            f"it has no column of text '{chosen or 'text'}'; it has {', '.join(schema.names)}. "
            f"Name one with --corpus.text-column"
        )
    return chosen


def _rows(batches: Iterator[Any], notes: Notes) -> Iterator[Passage]:
    number = 0
    for batch in batches:
        for value in batch:
            number += 1
            text = value.as_py()
            if text:
                yield Passage(text, f"row {number}", document=True)
