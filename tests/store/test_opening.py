from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import folio
from folio.cli.main import main
from folio.corpus.corpus import CorpusConfig, read_documents
from folio.errors import UserError
from folio.recipe.prepare import prepare
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.watcher import Watcher
from folio.run.checkpoint import newest_checkpoint
from folio.run.directory import Run
from folio.store.directory import Store
from folio.store.making import make_store
from folio.tokenizers.base import END_OF_DOCUMENT
from folio.tokenizers.bpe.standard_json import byte_characters
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.config import TokenizerConfig
from tests.store.making import make, quiet, work_inside, write_sources

SETTINGS: dict[str, Any] = {
    "model": {"n_layers": 1, "d_model": 16, "n_heads": 2, "context_length": 16},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        work_inside(patch)
        return make(folder / "store", write_sources(folder / "sources"))[0]


def train(store: Store, name: str, steps: int) -> Run:
    training = {"max_steps": steps, "batch_size": 2, "evaluation_interval": 2, "save_interval": 2}
    return folio.train(str(store.path), name=name, training=training, **SETTINGS).run


def weights(run: Run) -> str:
    checkpoint, _ = newest_checkpoint(run.checkpoints_folder)
    assert checkpoint is not None
    return checkpoint.weights_sha256


def test_a_run_from_a_store_goes_on_bit_for_bit_without_the_store(store: Store, tmp_path: Path):
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.path, copy.path)
    whole, begun = train(store, "whole", 4), train(copy, "begun", 2)
    shutil.rmtree(copy.path)
    table = {"max_steps": 4}
    assert resume_run(begun, {"training": table}, Watcher()) is not None
    assert (begun.path / "tokens" / "train.bin").read_bytes() == (
        store.tokens_file("train").read_bytes()
    )
    recipe = make_recipe({"corpus": {"sources": [str(store.path)]}})
    assert recipe.corpus.sources == (str(store.path),)
    again = folio.train(str(whole.recipe_file), name="again").run
    assert weights(again) == weights(whole)
    assert len(folio.load(str(begun.path)).generate("Text", max_tokens=3, seed=1, stop=False)) > 0


def test_what_a_run_notes_of_a_store_adds_up(store: Store):
    record = train(store, "noted", 1).corpus()
    ledger = record["ledger"]
    assert ledger["characters_in"] == ledger["training"] + ledger["validation"]
    assert ledger["characters_in"] == sum(s["characters"] for s in record["sources"])
    assert record["documents"] == 80 and record["split"] == "documents"
    assert 2 < record["frequency_loss"] < 6


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"corpus": {"split": "tail"}}, "Settings of corpus must be left out"),
        ({"tokenizer": {"kind": "character"}}, "Settings of tokenizer must be left out"),
        (
            {"tokenizer": {"path": "tokenizer.json", "sequence": "line"}},
            "tokenizer.sequence must be none, .* got line",
        ),
    ],
)
def test_settings_of_the_text_belong_to_the_store(
    store: Store, settings: dict[str, Any], match: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(store.path)
    with pytest.raises(UserError, match=match):
        folio.train(str(store.path), name="refused", **settings)


def test_a_store_stands_alone_and_is_no_text(store: Store, tmp_path: Path):
    with pytest.raises(UserError, match="A store of tokens stands alone, but 2 sources"):
        folio.train(str(store.path), "python-docs", name="refused")
    around = store.path.parent / "around"
    around.mkdir()
    (around / "a.txt").write_text("A text.")
    shutil.copytree(store.path, around / "store")
    assert [d.text for d in read_documents([str(around)], CorpusConfig()).documents] == ["A text."]


def test_a_store_that_is_not_whole_is_named(store: Store, tmp_path: Path):
    copy = Store(tmp_path / "a copy")
    shutil.copytree(store.path, copy.path)
    train_file = copy.tokens_file("train")
    shutil.copy(copy.tokens_file("validation"), train_file)
    with pytest.raises(UserError, match=r"train.bin is damaged: it must have [\d,]+ tokens"):
        folio.train(str(copy.path), name="refused")
    copy.index_file.unlink()
    with pytest.raises(UserError, match=r"a copy is not finished: .* --into '/.*/a copy'$"):
        folio.train(str(copy.path), name="refused")


def test_a_run_goes_on_with_a_store_of_its_own_vocabulary_only(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    sources = tmp_path / "sources"
    write_sources(sources)
    other = Store(tmp_path / "other")
    config = CorpusConfig(sources=(str(sources),))
    make_store(other, config, TokenizerConfig(vocab_size=280), 1, quiet)
    run = train(store, "first", 1)
    start = {"run": str(run.path), "keep": 0.0}
    with pytest.raises(UserError, match="vocabulary must be that of the store"):
        folio.train(str(other.path), name="second", start=start, training={"max_steps": 1})
    own = replace(TokenizerConfig(), kind="file", path=str(run.tokenizer_file))
    same = Store(tmp_path / "same")
    make_store(same, config, own, 1, quiet)
    assert folio.train(str(same.path), name="third", start=start, training={"max_steps": 1}).run


def other_vocabulary(folder: Path, kind: str) -> Path:
    """A vocabulary of a text without umlauts: of characters, or byte pairs without other bytes."""
    texts, path = ["a text of 0123456789 " * 9], folder / f"{kind}.json"
    if kind == "character":
        CharacterTokenizer.train(texts).save(path)
        return path
    table = BPETokenizer.train(texts, 280, special_tokens=(END_OF_DOCUMENT,)).to_json()
    for value in range(0x80, 256):
        del table["model"]["vocab"][byte_characters()[value]]
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("character", [r"14 of 307 training tokens", r"1 of 21 validation tokens are unknown"]),
        ("bpe", [r"30 of 330 bytes of the text \(9.1%\) are not in the vocabulary of .*store"]),
    ],
)
def test_a_store_and_its_trainings_say_what_the_vocabulary_lacks(
    kind: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    for number in range(15):
        (tmp_path / f"{number}.txt").write_text(f"a text of {number:02} a text ä")
    path = other_vocabulary(tmp_path, kind)
    store, told = Store(tmp_path / "store"), list[str]()
    config = CorpusConfig(sources=tuple(map(str, tmp_path.glob("*.txt"))))
    make_store(store, config, TokenizerConfig(path=str(path)), 1, told.append)
    recipe = make_recipe({"corpus": {"sources": [str(store.path)]}})
    for lines in (told, prepare(recipe, quiet).warnings):
        for expected in found:
            assert any(re.search(expected, line) for line in lines), lines


def test_no_store_is_made_of_a_text_of_which_the_vocabulary_knows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work_inside(monkeypatch)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("ЖЩЯ" * (number + 1))
    config = TokenizerConfig(path=str(other_vocabulary(tmp_path, "character")))
    sources = tuple(tmp_path.glob("*.txt"))
    for _ in range(2):
        with pytest.raises(UserError, match="nothing left to learn"):
            make(tmp_path / "store", *sources, tokenizer=config)


def test_the_command_line_makes_a_store_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work_inside(monkeypatch)
    sources, into = write_sources(tmp_path / "sources"), str(tmp_path / "store")
    command = ["tokens", str(sources), "--into", into]
    main([*command, "--tokenizer.vocab-size", "300"])
    out = capsys.readouterr().out
    assert "shards made, 0 found" in out and "to validate on" in out
    for words, match in (
        (["tokens", "--into", into], "Name the text and the store"),
        (["tokens", str(sources)], "Name the text and the store"),
        (
            [*command, "--model.n-layers", "2"],
            "takes settings of corpus and tokenizer, got --model",
        ),
        ([*command, "--workers", "-1"], "--workers must be at least 1"),
        ([*command, "--part", "3/2"], "--part must be I/N"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2 and match in capsys.readouterr().err
