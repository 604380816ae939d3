from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.errors import UserError
from folio.store.cluster import JoinShards, WriteShard
from folio.store.directory import Store
from folio.tokenizers.character import CharacterTokenizer
from tests.store.making import make, work_inside, write_sources


def test_a_pipeline_makes_the_tokens_that_the_command_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    sources = write_sources(tmp_path / "sources")
    ours, _ = make(tmp_path / "ours", sources)
    found = read_documents([str(sources)], CorpusConfig()).documents
    documents = [Document(text=d.text, id=str(n)) for n, d in enumerate(found)]
    theirs = Store(tmp_path / "theirs")
    step = WriteShard(str(theirs.path), str(ours.tokenizer_file))
    join = JoinShards(str(theirs.path), 3)
    for rank in range(2):
        share = documents[rank * 30 : (rank + 1) * 30]
        assert list(step.run(share, rank, 3)) == share
    with pytest.raises(UserError, match=r"1 of 3 shards .* the first is task-00002-of-00003"):
        list(join.run())
    list(step.run(documents[60:], 2, 3))
    list(join.run())
    for part in ("train", "validation"):
        assert theirs.tokens_file(part).read_bytes() == ours.tokens_file(part).read_bytes()
    assert theirs.index()["documents"] == ours.index()["documents"]


def test_a_folder_of_something_else_is_no_place_for_a_store(tmp_path: Path):
    CharacterTokenizer.train(["abc"]).save(tmp_path / "theirs.json")
    with pytest.raises(UserError, match="is not a store: it has theirs"):
        list(WriteShard(str(tmp_path), str(tmp_path / "theirs.json")).run([]))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.json"]


def test_a_task_that_stops_half_way_leaves_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    ours, _ = make(tmp_path / "ours", write_sources(tmp_path / "sources"))
    theirs = Store(tmp_path / "theirs")
    running = WriteShard(str(theirs.path), str(ours.tokenizer_file)).run(
        [Document(text="One.", id="1"), Document(text="Two.", id="2")]
    )
    next(running)
    running.close()
    assert list(theirs.shards_folder.iterdir()) == []
    other = tmp_path / "other.json"
    CharacterTokenizer.train(["abc"]).save(other)
    with pytest.raises(UserError, match="vocabulary must be that of the store"):
        list(WriteShard(str(theirs.path), str(other)).run([]))
    with pytest.raises(UserError, match=r"tokenizer.sequence must be none, .* got line"):
        list(WriteShard(str(theirs.path), str(ours.tokenizer_file), "line").run([]))
