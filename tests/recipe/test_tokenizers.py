"""Runs on every kind of vocabulary, from text to bits per byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folio.config import merge, read_toml
from folio.errors import UserError
from folio.evaluation.score import bits_per_byte
from folio.recipe.prepare import prepare
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.opening import open_run
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.config import AUTO_CHARACTERS, TokenizerConfig, resolve
from tests.recipe.test_resume import recipe_of, stop_at, weights_of

BPE = {"tokenizer": {"kind": "bpe", "vocab_size": 280}}


def test_a_run_on_bpe_resumes_exactly_samples_and_has_bits_per_byte(book: Path):
    whole = train_recipe(recipe_of(book, **BPE), "whole", Watcher()).run
    parts = train_recipe(recipe_of(book, **BPE), "parts", *stop_at(17)).run
    assert resume_run(parts, {}, Watcher()) is not None
    assert weights_of(parts, 40) == weights_of(whole, 40)

    opened = open_run(whole)
    assert isinstance(opened.tokenizer, BPETokenizer) and opened.tokenizer.vocab_size == 280
    text = opened.generate("The ", max_tokens=20, seed=1)
    assert isinstance(text, str) and text
    held_out = opened.validation()
    (exact, _) = opened.evaluate(held_out)
    n_bytes = len(opened.tokenizer.decode_bytes(held_out[1:]))
    record = exact.record(opened.tokenizer)
    assert record["bits_per_byte"] == pytest.approx(bits_per_byte(exact.nats, n_bytes))
    recipe = read_toml(whole.recipe_file)
    assert recipe["tokenizer"]["kind"] == "bpe" and recipe["tokenizer"]["vocab_size"] == 280


def test_the_choice_of_auto_is_told_and_written_into_the_recipe(book: Path):
    told: list[str] = []

    class Listener(Watcher):
        def tell(self, line: str) -> None:
            told.append(line)

    run = train_recipe(recipe_of(book, training={"max_steps": 1}), "auto", Listener()).run
    assert read_toml(run.recipe_file)["tokenizer"]["kind"] == "character"
    assert any(line.startswith("tokenizer: characters, since") for line in told)


@pytest.mark.parametrize(
    ("given", "n_characters", "kind", "vocab_size"),
    [
        ({}, AUTO_CHARACTERS - 1, "character", 0),
        ({}, AUTO_CHARACTERS, "bpe", 2048),
        ({}, 10**9, "bpe", 32_768),
        ({"kind": "bpe"}, 1000, "bpe", 1024),
        ({}, 4_500_000, "bpe", 4096),
        ({"kind": "word"}, 9_000_000, "word", 8192),
        ({"vocab_size": 300}, 1000, "bpe", 300),
        ({"pattern": "llama3"}, 1000, "bpe", 1024),
        ({"sequence": "line"}, 1000, "bpe", 1024),
        ({"kind": "bpe", "vocab_size": 300}, 10**9, "bpe", 300),
    ],
)
def test_what_is_open_goes_by_the_size_of_the_text(
    given: dict[str, Any], n_characters: int, kind: str, vocab_size: int
):
    resolved, _ = resolve(TokenizerConfig(**given), n_characters)
    assert (resolved.kind, resolved.vocab_size) == (kind, vocab_size)
    assert resolve(resolved, n_characters) == (resolved, "")


@pytest.mark.parametrize(
    ("minutes", "n_characters", "vocab_size"),
    [
        (5.0, 10**9, 8192),
        (5.0, 4_500_000, 4096),
        (1.0, 10**9, 4096),
        (40.0, 10**9, 16_384),
        (1e-9, 10**9, 1024),
        (1e4, 10**9, 32_768),
        (0.0, 10**9, 32_768),
    ],
)
def test_on_a_processor_the_time_limits_the_vocabulary(
    minutes: float, n_characters: int, vocab_size: int
):
    resolved, words = resolve(TokenizerConfig(kind="bpe"), n_characters, minutes)
    assert resolved.vocab_size == vocab_size
    assert ("minutes" in words) == (vocab_size < 32_768 and n_characters == 10**9)


@pytest.mark.parametrize(
    ("training", "device", "has_gpu", "expected"),
    [
        ({}, {}, False, 5.0),
        ({"minutes": 2}, {"kind": "cpu"}, True, 2.0),
        ({"minutes": 2}, {}, True, 0.0),
        ({"minutes": 2}, {"kind": "cuda"}, True, 0.0),
        ({"max_steps": 9}, {}, False, 0.0),
    ],
)
def test_a_vocabulary_is_limited_by_minutes_of_a_processor_alone(
    training: dict[str, Any],
    device: dict[str, Any],
    has_gpu: bool,
    expected: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    given = list[float]()

    def resolving(config: TokenizerConfig, n_characters: int, minutes: float) -> Any:
        given.append(minutes)
        return resolve(config, n_characters)

    monkeypatch.setattr("folio.recipe.prepare.resolve", resolving)
    monkeypatch.setattr("folio.accelerator.available", lambda kind: has_gpu)
    path = tmp_path / "a.txt"
    path.write_text("ab " * 3000)
    recipe = make_recipe(
        {"corpus": {"sources": [str(path)]}, "training": training, "device": device}
    )
    prepare(recipe, lambda line: None)
    assert given == [expected]


def test_merges_are_learned_from_the_training_part_alone(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("ab " * 300 + "xyz " * 25)
    recipe = recipe_of(path, tokenizer=BPE["tokenizer"], corpus={"validation_fraction": 0.1})
    tokenizer = prepare(recipe, lambda line: None).tokenizer
    assert isinstance(tokenizer, BPETokenizer)
    assert b"ab" in tokenizer.pieces and b"xyz" not in tokenizer.pieces
    assert "has 21 ids fewer" in tokenizer.note


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("none", "One. Two!\nThree<|endoftext|>Four"),
        ("document", "<bos>One. Two!\nThree<eos><|endoftext|><bos>Four<eos>"),
        ("line", "<bos>One. Two!\n<eos><bos>Three<eos><|endoftext|><bos>Four<eos>"),
        (
            "sentence",
            "<bos>One. <eos><bos>Two!\n<eos><bos>Three<eos><|endoftext|><bos>Four<eos>",
        ),
    ],
)
def test_begin_and_end_stand_around_what_was_asked_for(
    tmp_path: Path, sequence: str, expected: str
):
    for name, text in (("a", "One. Two!\nThree"), ("b", "Four"), ("v", "One")):
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = {
        "sources": [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")],
        "validation": [str(tmp_path / "v.txt")],
        "validation_fraction": 0,
    }
    tokenizer = {"kind": "bpe", "vocab_size": 262, "sequence": sequence}
    prepared = prepare(make_recipe({"corpus": corpus, "tokenizer": tokenizer}), lambda line: None)
    assert prepared.tokenizer.decode(prepared.training()) == expected


def test_a_run_with_sequences_begins_its_samples_with_bos(book: Path):
    changes = merge(BPE, {"tokenizer": {"sequence": "line"}}, {"training": {"max_steps": 2}})
    opened = open_run(train_recipe(recipe_of(book, **changes), "lines", Watcher()).run)
    assert opened.start_token == opened.tokenizer.special_tokens["<bos>"]
    assert opened.prompt_ids("The")[0] == opened.tokenizer.special_tokens["<bos>"]


def test_words_have_a_share_of_unknown_ones_instead_of_bits_per_byte(book: Path):
    words = {"tokenizer": {"kind": "word", "vocab_size": 12}, "training": {"max_steps": 2}}
    told: list[str] = []
    warnings = prepare(recipe_of(book, **words), told.append).warnings
    assert any("validation tokens are unknown (" in warning for warning in warnings)
    opened = open_run(train_recipe(recipe_of(book, **words), "words", Watcher()).run)
    record = opened.evaluate(opened.validation())[0].record(opened.tokenizer)
    assert 0 < record["unknown_share"] < 1 and "bits_per_byte" not in record


def test_a_tokenizer_file_is_used_as_it_is(book: Path, tmp_path: Path):
    tokenizer = BPETokenizer.train([book.read_text()], 290, special_tokens=())
    tokenizer.save(tmp_path / "mine.json")
    recipe = recipe_of(book, tokenizer={"path": str(tmp_path / "mine.json")})
    prepared = prepare(recipe, lambda line: None)
    assert prepared.tokenizer.fingerprint == tokenizer.fingerprint
    assert prepared.tokenizer_config.kind == "file"
    text = book.read_text()[: int(20_000 * 0.98)]
    assert np.array_equal(prepared.training(), tokenizer.encode(text))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "bpe", "vocab_size": 256}, "at least 257, .*, got 256"),
        (
            {"kind": "bpe", "vocab_size": 258, "sequence": "line"},
            "at least 259, .*, got 258",
        ),
        ({"kind": "character", "vocab_size": 300}, "means nothing for kind character"),
        ({"kind": "gpt2", "pattern": "llama3"}, "pattern is llama3.*kind gpt2.*take kind bpe"),
        ({"path": "x", "vocab_size": 300}, "means nothing for kind file"),
        ({"kind": "word", "pattern": "llama3"}, "pattern is llama3.*kind word"),
        ({"kind": "bpe", "min_count": 2}, "min_count is 2.*kind bpe.*take kind word"),
        ({"kind": "character", "punctuation": "drop"}, "take kind word"),
        ({"lowercase": True}, "lowercase is True.*kind auto.*take kind word"),
        ({"vocab_size": -1}, "0 or more"),
        ({"kind": "word", "sequence": "line"}, "take kind bpe"),
        ({"kind": "file"}, "Name the file"),
        ({"kind": "bpe", "path": "x"}, "Leave one of them out"),
        ({"min_count": 0}, "at least 1"),
        ({"pattern": "gpt4"}, "one of gpt2, llama3, qwen2"),
        ({"kind": "bbpe"}, "Did you mean 'bpe'"),
    ],
)
def test_bad_settings_are_refused_before_any_text_is_read(given: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        make_recipe({"tokenizer": given})
