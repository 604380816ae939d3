"""What reading changes is told apart from what anybody could guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folio
from folio.cli.main import main
from folio.errors import UserError
from folio.evaluation.passages import Passages
from folio.evaluation.uncertainty import text_families
from folio.model.gpt import GPT
from folio.recall import twin as twin_module
from folio.recall.config import RecallConfig
from folio.recall.measure import measure_recall
from folio.recall.sources import Sources
from folio.recall.twin import check_twin, compare, halve
from folio.recipe.recipe import Recipe
from folio.run.directory import Run
from folio.run.model import Model
from folio.tokenizers.base import TokenIds
from folio.tokens.text import TokenText
from tests.conftest import copied
from tests.recall.making import prose, train_on, write_documents

SMALL = RecallConfig(samples=2, passages=400, length=12, twin=True)
RULE = "=-" * 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty documents, six of which are nothing but a rule that the others have, too."""
    folder = tmp_path_factory.mktemp("made")
    texts = [f"{RULE}{seed}" if seed % 5 == 0 else prose(50, seed) for seed in range(30)]
    source = write_documents(folder / "texts", texts)
    apart = {"threshold": 1.0, "contained": 1.01}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        return train_on(source, "twins", 150, corpus={"duplicates": apart}).run.path


@pytest.fixture
def opened(made: Path) -> Model:
    """Of a copy of a run that is trained once for all tests here."""
    return folio.load(copied(made).path)


def read_by(bits: list[float]) -> Passages:
    n = np.zeros(len(bits), np.int64)
    return Passages(n, 4, n, np.array(bits), n > 0)


def test_the_gain_is_the_bits_of_who_did_not_read_less_those_of_who_did():
    one, other = read_by([2.0, 5.0, 9.0, 1.0]), read_by([12.0, 5.0, 3.0, 2.0])
    halves, families = np.array([0, 0, 1, 1], np.int8), np.array([0, 1, 2, 3])
    found = compare([one, other], halves, families, np.zeros(4, np.int64), (7, 8))
    # 12 - 2, 5 - 5, 9 - 3, 1 - 2
    assert found.gain.bits == pytest.approx((10 + 0 + 6 - 1) / 4)
    assert found.gain.error == pytest.approx(np.std([10, 0, 6, -1], ddof=1) / 2)
    # 100 tries are 6.6 bits: the first and the third come from their reader alone.
    assert (found.by_reading.count, found.anyway.count) == (2, 2)
    assert found.documents == []  # four passages are too few for a name


def test_a_document_that_gains_more_than_the_others_stands_out():
    bits = np.full(60, 20.0)
    bits[50:] = 1.0
    documents = np.arange(60) // 10
    found = compare(
        [read_by(bits.tolist()), read_by([22.0] * 60)],
        np.zeros(60, np.int8), documents, documents, (1, 1),
    )  # fmt: skip
    assert found.documents[0][0] == 5
    assert found.documents[0][1].bits == 21.0
    # The others are as equal as can be, so that the overall error is that of the one alone.
    assert found.standing_out(errors=2.0) and found.standing_out(errors=1e9) == []


def test_halves_are_whole_families_of_equal_size(opened: Model):
    end = opened.tokenizer.end_of_document
    n_documents = 1 + int((opened.training() == end).sum())
    families = [document * 9 // 10 for document in range(n_documents)]  # some of two documents
    of = text_families(opened.training(), end, families)
    halves = halve(opened, families, seed=1)
    assert all(len(set(halves[of == family].tolist())) == 1 for family in families)
    assert abs(halves.mean() - 0.5) < 0.05
    assert (halves != halve(opened, families, seed=2)).any()


def test_few_families_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Cut in stretches of a sixteenth of the text, five documents are twenty pieces.
    texts = [prose(60, seed) for seed in range(5)]
    apart = {"threshold": 1.0, "contained": 1.01}
    held_out = {"validation_fraction": 0.01, "split": "tail"}
    source = write_documents(tmp_path / "five", texts)
    run = train_on(source, "five", 1, corpus={"duplicates": apart} | held_out)
    assert len(set(Sources(run.run, TokenText(run.training(), run.tokenizer)).families)) == 5
    monkeypatch.setattr("folio.recall.measure.write_samples", lambda *_: pytest.fail("too late"))
    with pytest.raises(UserError, match="fewer than 20 clusters of documents"):
        measure_recall(run, SMALL)


def test_who_read_a_text_finds_it_less_surprising_and_a_rule_as_unsurprising(
    opened: Model, monkeypatch: pytest.MonkeyPatch
):
    trained = []
    of_half = twin_module.train_half

    def train_half(recipe: Recipe, tokens: TokenIds, *rest: Any) -> GPT:
        trained.append(tokens)
        return of_half(recipe, tokens, *rest)

    monkeypatch.setattr(twin_module, "train_half", train_half)
    recall = measure_recall(opened, SMALL)
    twin = recall.twin
    assert twin is not None and sum(twin.steps) == opened.checkpoint.step
    both = np.sort(np.concatenate(trained))
    assert both.tolist() == np.sort(opened.training()).tolist(), "each token by one of the two"
    assert twin.gain.bits > 2 * twin.gain.error > 0
    names = {recall.sources.name(document): gain for document, gain in twin.documents}
    rules = [gain.bits for name, gain in names.items() if int(Path(name).stem[3:]) % 5 == 0]
    assert rules and max(map(abs, rules)) < twin.gain.bits


def test_the_verb_says_it_and_writes_it(opened: Model, capsys: pytest.CaptureFixture[str]):
    main(["recall", "twins", "--samples", "2", "--passages", "200", "--length", "12", "--twin"])
    assert "less surprising; " in capsys.readouterr().out
    record = json.loads(opened.run.recall_file.read_text())["twin"]
    assert sum(record["steps"]) == 150 and record["documents"][0]["passages"] >= 5
    assert "What reading a document changes" in opened.run.recall_page.read_text()


def test_a_run_that_no_half_can_repeat_has_no_twin(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for path, why in (
        (run.start_file, "began with weights that had learned another text"),
        (run.tokens_file("train.mask"), "learned the answers of conversations"),
    ):
        check_twin(run)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        with pytest.raises(UserError, match=why):
            check_twin(run)
        path.unlink()
