"""What is looked up of a run that began with a run that began with another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import folio
from folio.explain.page import copied_pieces
from folio.recall import measure as measure_module
from folio.recall.config import RecallConfig
from folio.recall.measure import measure_recall
from folio.recall.page import recall_page
from folio.recall.record import record_of
from folio.recall.words import lines_of
from folio.run.model import Model
from folio.serving.copied import CopyFinder
from folio.tokens.text import TokenText, to_text
from tests.recall.making import go_on, prose, train_on, write_documents

SMALL = RecallConfig(samples=6, passages=200, length=20)


@pytest.fixture
def first(tmp_path: Path) -> Model:
    texts = [prose(120, seed) for seed in range(20)]
    return train_on(write_documents(tmp_path / "first", texts), "first", steps=2)


def gone_on_twice(first: Model, folder: Path, keep: float) -> Model:
    """A run from a run from the first one, each with a text of its own."""
    own = first
    for name, seed in (("second", 100), ("third", 200)):
        texts = [prose(120, seed + number) for number in range(20)]
        own = go_on(own, write_documents(folder / name, texts), name, keep)
    return own


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_the_texts_of_all_runs_before_are_a_part_of_what_is_looked_up(
    keep: float, first: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own, path_of_first = gone_on_twice(first, tmp_path, keep), first.run.path.resolve()
    second, old = folio.load("second"), TokenText(first.training(), first.tokenizer)
    written = [old.between(start, start + 300) for start in range(500, 6500, 1000)]
    monkeypatch.setattr(measure_module, "write_samples", lambda *_: written)
    texts = [TokenText(of.training(), of.tokenizer) for of in (own, second, first)]
    recall = measure_recall(own, SMALL)
    assert recall.run == str(own.run.path) and record_of(recall)["not_looked_in"] is None
    assert recall.model.copied.value > 0.95
    assert recall.training_characters == sum(text.n_characters for text in texts)
    at = len(texts[0]) + 1
    for text, path in zip(texts[1:], (second.run.path.resolve(), path_of_first)):
        source = recall.sources.locate(at + 2500)
        assert source.document == f"the text of {path}"
        assert source.offset == text.characters_before(2500)
        at += len(text) + 1

    shutil.rmtree(path_of_first)
    recall = measure_recall(own, SMALL)
    missing = (
        f"what {path_of_first} may have begun with" if keep else f"the text of {path_of_first}"
    )
    assert record_of(recall)["not_looked_in"] == missing
    told = f"Not looked in: {missing}, which is not there any more."
    assert told in "\n".join(lines_of(recall)) and told in recall_page(recall)
    assert (recall.model.copied.value > 0.95) == (keep > 0)


def test_the_pages_mark_what_stands_in_the_texts_of_runs_before(first: Model, tmp_path: Path):
    own = gone_on_twice(first, tmp_path, 0.0)
    passage = to_text(TokenText(first.training(), first.tokenizer).between(500, 600))
    *_, spans = CopyFinder(own).steps(passage)
    assert spans is not None and [(span.start, span.end) for span in spans] == [(0, len(passage))]
    assert spans[0].source.startswith("first, character ")
    token_ids = own.tokenizer.encode(passage).tolist()
    assert copied_pieces(own, token_ids) == [len(passage)] * len(token_ids)
