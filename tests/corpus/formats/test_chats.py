from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.errors import UserError
from tests.corpus.making import write


def texts(path: Path, **settings: str) -> list[str]:
    documents = read_documents([str(path)], CorpusConfig(**settings)).documents  # type: ignore[arg-type]
    return [document.text for document in documents]


TELEGRAM = {
    "name": "Ben",
    "messages": [
        {"id": 1, "type": "service", "date": "2026-01-01", "actor": "Ben"},
        {"id": 2, "type": "message", "date": "2026-01-01", "from": "Ben", "text": "Grüße"},
        {"id": 3, "type": "message", "date": "2026-01-01", "from": "Anna",
         "text": ["See ", {"type": "link", "text": "this"}, "."]},
    ],
}  # fmt: skip
DISCORD = {
    "guild": {"name": "g"},
    "messages": [
        {"id": "1", "type": "Default", "timestamp": "2026", "content": "Hi.",
         "author": {"name": "ben1", "nickname": "Ben"}},
    ],
}  # fmt: skip
SLACK = [
    {"type": "message", "user": "U1", "text": "Morning.", "ts": "1.0"},
    {"type": "message", "subtype": "channel_join", "user": "U1", "text": "joined", "ts": "2.0"},
]


@pytest.mark.parametrize(
    ("export", "text"),
    [
        (TELEGRAM, "Ben: Grüße\nAnna: See this.\n"),
        ({"chats": {"list": [TELEGRAM]}}, "Ben: Grüße\nAnna: See this.\n"),
        (DISCORD, "Ben: Hi.\n"),
        (SLACK, "U1: Morning.\n"),
    ],
    ids=["telegram", "all of telegram", "discord", "slack"],
)
def test_an_export_of_a_chat_gives_who_said_what(tmp_path: Path, export: object, text: str):
    assert texts(write(tmp_path, "a.json", json.dumps(export))) == [text]


def test_a_list_of_records_gives_their_texts(tmp_path: Path):
    records = [{"id": 1, "text": "One."}, {"id": 2, "text": "Two."}]
    assert texts(write(tmp_path, "a.json", json.dumps({"data": records}))) == ["One.", "Two."]


def test_json_of_no_known_kind_is_refused_in_words(tmp_path: Path):
    with pytest.raises(UserError, match=r"--corpus\.text-column"):
        texts(write(tmp_path, "a.json", json.dumps({"name": "x", "version": "1"})))


def test_parquet_and_arrow_give_a_document_for_each_row(tmp_path: Path):
    table = pyarrow.table({"id": [1, 2], "text": ["Eins.", "Zwei."]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with (
        pyarrow.OSFile(str(tmp_path / "b.arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert texts(tmp_path / "a.parquet") == texts(tmp_path / "b.arrow") == ["Eins.", "Zwei."]
    with pytest.raises(UserError, match="it has id, text"):
        texts(tmp_path / "a.parquet", text_column="body")


def test_damaged_tables_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="damaged"):
        texts(write(tmp_path, "a.parquet", b"PAR1 and then nothing"))
