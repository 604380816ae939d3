"""Which documents lie in the training text."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.document import Document, Part, Provenance, document_from_text
from folio.corpus.ledger import describe_sources
from folio.records import DamagedError
from folio.run.directory import Run
from folio.run.parts import make_parts, read_parts, write_parts


def document(text: str, path: str = "", name: str = "memory") -> Document:
    from dataclasses import replace

    made = document_from_text(path or name, text)
    return replace(made, provenance=Provenance(path)) if path else made


def test_parts_come_back_as_they_were_written(tmp_path: Path):
    documents = [document("aaaa", "a.txt"), document("bbbb", "b.txt")]
    parts = make_parts(documents, [Part(documents[1], 0, 3), Part(documents[0], 1, 4)], [7, 7])
    write_parts(Run(tmp_path), parts)
    back = read_parts(Run(tmp_path))
    assert back is not None
    assert back.source.tolist() == [1, 0]
    assert (back.start.tolist(), back.stop.tolist()) == ([0, 1], [3, 4])
    assert back.families.tolist() == [7, 7]


@pytest.mark.parametrize("n_bytes", [0, 4, 60, -1])
def test_damaged_parts_are_named(tmp_path: Path, n_bytes: int):
    run = Run(tmp_path)
    of = document("aaaa", "a.txt")
    write_parts(run, make_parts([of], [Part(of, 0, 3)], [7]))
    run.parts_file.write_bytes(run.parts_file.read_bytes()[:n_bytes])
    with pytest.raises(DamagedError, match=r"parts\.safetensors is damaged"):
        read_parts(run)


def test_rows_of_a_table_share_an_entry_and_texts_without_a_file_do_not():
    documents = [document("r1", "t.csv"), document("r2", "t.csv")]
    documents += [document("x", name="x"), document("y", name="y")]
    parts = make_parts(documents, [Part(d, 0, 1) for d in documents], [0, 1, 2, 3])
    assert parts.source.tolist() == [0, 0, 1, 2]
    entries = describe_sources(documents)
    assert [entries[i]["source"] for i in parts.source] == ["t.csv", "t.csv", "x", "y"]
    assert [entry.get("documents", 1) for entry in entries] == [2, 1, 1]


def test_an_older_run_has_none(tmp_path: Path):
    assert read_parts(Run(tmp_path)) is None
