"""Parquet and Arrow: the text column, one document per row, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folio.corpus.formats.conversations import CONVERSATION_KEYS, instruction
from folio.corpus.formats.jsonl import Record, strings, texts_of_records
from folio.corpus.formats.magic import HEAD_BYTES, what_is
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.tables import choose_column
from folio.corpus.limits import Expansion
from folio.errors import UserError

BATCH_ROWS = 256
"""Small, since a long text shared by all rows is stored once in a file but once per row in
memory."""


def read_parquet(path: Path, settings: dict[str, Any], notes: Notes) -> Iterator[Passage]:
    """Read the text of each row; a row may also be a conversation, or an instruction with its
    answer.

    Raises:
        UserError: damaged, a bomb, or without a text column.
    """
    import pyarrow

    try:
        named, conversations = settings["text_column"], settings.get("conversations", "text")
        batches = _batches(path, named, conversations)
        expansion = Expansion(_size(path))
        yield from _texts(batches, expansion, notes, "text" if named else conversations)
    except MemoryError:
        raise
    except (pyarrow.ArrowException, OSError, IndexError) as error:
        raise UserError(f"it is damaged, or not such a table ({str(error)[:100]})") from None


def _batches(path: Path, column: str, conversations: str) -> Iterator[Any]:
    """Batches of the columns that hold the text."""
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PAR1"):
        table = pyarrow.parquet.ParquetFile(path)
        columns = _columns(table.schema_arrow, column, conversations)
        _expect(table.metadata, columns, _size(path))
        yield from table.iter_batches(BATCH_ROWS, columns=columns)
        return
    if (kind := what_is(head)) and not head.startswith(b"ARROW1"):
        raise UserError(f"it is {kind}")
    # Not mapped, since a map of all of it would count as memory of a process that may use so much.
    with pyarrow.OSFile(str(path)) as source:
        if head.startswith(b"ARROW1"):
            opened = pyarrow.ipc.open_file(source)
            batches = map(opened.get_batch, range(opened.num_record_batches))
        else:
            opened = pyarrow.ipc.open_stream(source)
            batches = iter(opened)
        columns = _columns(opened.schema, column, conversations)
        for batch in batches:
            yield batch.select(columns)


def _expect(metadata: Any, columns: list[str], n_bytes: int) -> None:
    """Raise a UserError if the file's own metadata says that its columns unpack to far too much."""
    expansion = Expansion(n_bytes)
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        expansion.add(group.num_rows)
        for j in range(group.num_columns):
            chunk = group.column(j)
            if chunk.path_in_schema.partition(".")[0] in columns:
                expansion.add(chunk.total_uncompressed_size)


def _columns(schema: Any, column: str, conversations: str) -> list[str]:
    """The columns to read; several only for instructions and conversations."""
    texts = [field.name for field in schema if _is_text(field.type)]
    lists = [field.name for field in schema if _is_list(field.type)]
    talks = [key for key in CONVERSATION_KEYS if key in lists]
    both = [name for name in schema.names if name in ("prompt", "completion")]
    if conversations == "turns" and not column and ("messages" in lists or len(both) == 2):
        found = ["messages"] if "messages" in lists else both
    elif column:
        found = [name for name in (*texts, *lists) if name == column]
    elif chosen := choose_column(texts):
        found = [chosen]
    else:
        _, pair = instruction(dict.fromkeys(texts, "text"))
        found = talks[:1] or [name for name in texts if name in pair]
        found = found or (texts if len(texts) == 1 else [])
    if not found:
        raise UserError(
            f"it has no column of text '{column or 'text'}'; it has {', '.join(schema.names)}. "
            f"Name one with --corpus.text-column"
        )
    return found


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind)


def _is_text(kind: Any) -> bool:
    """Whether a column holds text; older programs write it as bytes."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
        )
    )


def _texts(
    batches: Iterator[Any], expansion: Expansion, notes: Notes, conversations: str
) -> Iterator[Passage]:
    number = 0
    for batch in batches:
        if batch.num_columns > 1 or _is_list(batch.schema.field(0).type):
            rest = _records(batch, batches, expansion)
            yield from texts_of_records(rest, "", notes, conversations)
            return
        if batch.column(0).null_count == batch.num_rows:
            number += batch.num_rows
            expansion.add(batch.num_rows)
            continue
        for data in _values(batch.column(0)):
            number += 1
            expansion.add(len(data) + 1)
            text = _decoded(data, notes)
            if text:
                yield Passage(text, f"row {number}", document=True)


def _values(column: Any) -> Iterator[bytes]:
    """The bytes of each row; a value shared by all rows is held once."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        words = column.dictionary.cast(pyarrow.large_binary())
        words.validate(full=True)
        for index in column.indices:
            yield (words[index.as_py()].as_py() or b"") if index.is_valid else b""
        return
    column = column.cast(pyarrow.large_binary())
    column.validate(full=True)  # otherwise offsets outside the file would be followed
    for value in column:
        yield value.as_py() or b""


def _decoded(data: bytes, notes: Notes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        notes.dropped["bytes that are not UTF-8"] += text.count("\ufffd")
        return text


def _records(first: Any, others: Iterator[Any], expansion: Expansion) -> Iterator[Record]:
    number = 0
    for batch in itertools.chain([first], others):
        batch.validate(full=True)
        for i in range(batch.num_rows):
            number += 1
            value = {name: batch.column(name)[i].as_py() for name in batch.schema.names}
            n_bytes = sum(len(text.encode("utf-8", "replace")) for text in strings(value))
            expansion.add(n_bytes + 1)
            yield Record(f"row {number}", value, n_bytes)


def _size(path: Path) -> int:
    return path.stat().st_size
