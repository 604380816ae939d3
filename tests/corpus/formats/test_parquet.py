"""Tables of text: which column is read, and what is not a table."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.errors import UserError
from tests.corpus.making import write

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def texts(path: Path, **settings: object) -> list[str]:
    config = CorpusConfig(conversations="text", **settings)  # type: ignore[arg-type]
    documents = read_documents([str(path)], config).documents
    return [document.text for document in documents]


def in_each_kind(folder: Path, table: pyarrow.Table) -> list[list[str]]:
    """The texts of a table, kept as Parquet, as an Arrow file and as an Arrow stream."""
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    pyarrow.feather.write_feather(table, str(folder / "b.feather"))
    with (
        pyarrow.OSFile(str(folder / "c.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    return [texts(folder / name) for name in ("a.parquet", "b.feather", "c.arrow")]


def test_a_column_of_conversations_is_read_turn_by_turn(tmp_path: Path):
    table = pyarrow.table({"id": ["x1", "x2"], "messages": [TURNS, TURNS[:1]]})
    assert in_each_kind(tmp_path, table) == [["user: Why?\nassistant: So.\n", "user: Why?\n"]] * 3


def test_a_conversation_beside_a_name_is_the_text(tmp_path: Path):
    lines = "".join(json.dumps({"id": f"x{i}", "messages": TURNS}) + "\n" for i in range(3))
    assert texts(write(tmp_path, "a.jsonl", lines)) == ["user: Why?\nassistant: So.\n"] * 3


def test_instructions_are_read_from_their_columns(tmp_path: Path):
    table = pyarrow.table({"instruction": ["Add."], "input": [None], "output": ["2"], "n": [1]})
    table = table.set_column(1, "input", pyarrow.array([None], pyarrow.string()))
    assert in_each_kind(tmp_path, table) == [["Add.\n\n2\n"]] * 3


def test_text_may_be_kept_as_bytes_or_by_a_dictionary(tmp_path: Path):
    words = pyarrow.array(["One.", "Zwölf.", "One.", None])
    as_bytes = pyarrow.table({"n": [1, 2, 3, 4], "text": words.cast(pyarrow.binary())})
    by_words = pyarrow.table({"n": [1, 2, 3, 4], "text": words.dictionary_encode()})
    expected = [["One.", "Zwölf.", "One."]] * 3
    assert in_each_kind(tmp_path, as_bytes) == in_each_kind(tmp_path, by_words) == expected


def test_a_bad_byte_is_replaced_and_counted(tmp_path: Path):
    table = pyarrow.table({"text": pyarrow.array([b"It\x92s.", b"Two."], pyarrow.binary())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    reading = read_documents([str(tmp_path / "a.parquet")], CorpusConfig())
    assert [document.text for document in reading.documents] == ["It\ufffds.", "Two."]
    assert reading.tally.dropped["bytes that are not UTF-8"] == 1


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"FEA1\0\0", "a Feather table of version 1"),
        (b"ORC\n\x03\0", "an ORC table"),
        (b"Obj\x01\x04\x14avro.codec", "an Avro table"),
        (b"PARE\x15\0", "an encrypted Parquet table"),
    ],
)
@pytest.mark.parametrize("name", ["a.feather", "a.orc"])
def test_other_tables_are_named_for_what_they_are(
    tmp_path: Path, name: str, head: bytes, kind: str
):
    with pytest.raises(UserError, match=kind):
        texts(write(tmp_path, name, head + bytes(100)))


def test_damaged_tables_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="damaged"):
        texts(write(tmp_path, "a.parquet", b"PAR1 and then nothing"))
