"""folio tokenizer, as a user meets it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import tokenizers as hf

from folio.run.directory import Run, runs_folder
from folio.tokenizers import load
from tests.cli.test_cli import TRAIN, folio

__all__ = ["folio"]


@pytest.fixture
def saved(folio, book: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tok.json"
    outcome = folio("tokenizer", "train", str(book), "--vocab-size", "280", "--out", str(path))
    assert outcome.code == 0, outcome.err
    return path


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_a_vocabulary_is_learned_saved_and_told(folio, book: Path, tmp_path: Path):
    path = tmp_path / "tok.json"
    words = ("--vocab-size", "260", "--out", str(path), "--merges")
    outcome = folio("tokenizer", "train", str(book), *words)
    first, *merges = outcome.out.splitlines()
    assert first.startswith(f"{path}: 260 ids, learned from 18,000 bytes in ")
    assert first.endswith("MB/s")
    assert [line.split("  ")[0] for line in merges] == ["256", "257", "258"]
    left_and_right, token = merges[0].split("  ")[1].split(" = ")
    assert left_and_right.replace(" + ", "") == token
    assert hf.Tokenizer.from_file(str(path)).get_vocab_size() == 260


def test_ids_and_text_go_through_pipes_unharmed(folio, saved: Path, monkeypatch):
    text = "The 3th line, naïve 🌍"
    ids = folio("tokenizer", "encode", str(saved), "--text", text).out
    assert [int(word) for word in ids.split()] == load(saved).encode(text).tolist()
    assert folio("tokenizer", "decode", str(saved), *ids.split()).out == f"{text}\n"
    give(monkeypatch, text.encode())
    as_json = folio("tokenizer", "encode", str(saved), "--json").out
    assert json.loads(as_json) == [int(word) for word in ids.split()]
    for printed in (ids, as_json):
        give(monkeypatch, printed.encode())
        assert folio("tokenizer", "decode", str(saved)).out == f"{text}\n"


def test_files_are_encoded_and_pieces_shown(folio, saved: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a\tb c")
    outcome = folio("tokenizer", "encode", str(saved), str(tmp_path / "a.txt"), "--pieces")
    assert outcome.out == "a|\\t|b|␣|c\n"


def test_vocabularies_are_compared_and_one_is_recommended(folio, book: Path, tmp_path, saved):
    page = tmp_path / "page.html"
    words = ("--vocab-sizes", "260,270,5000", "--also", str(saved), "--html", str(page))
    answer = json.loads(folio("tokenizer", "compare", str(book), *words, "--json").out)
    by_name = {record["name"]: record for record in answer["tokenizers"]}
    assert list(by_name)[:3] == ["character", "bpe 260", "bpe 270"] and str(saved) in by_name
    character, learned = by_name["character"], by_name["bpe 270"]
    assert character["tokens"] == 2000 and character["bytes_per_token"] == 1.0
    assert learned["bytes_per_token"] == pytest.approx(2000 / learned["tokens"])
    assert learned["embedding_parameters"] == 270 * 128
    assert answer["recommended"] in by_name and answer["reason"]
    assert page.read_text().count("<span") > 100
    outcome = folio("tokenizer", "compare", str(book), "--vocab-sizes", "260")
    assert "recommended: " in outcome.out and "bytes/token" in outcome.out


def test_a_model_is_trained_on_bpe_sampled_and_evaluated(folio, book: Path):
    flags = ("--name", "pairs", "--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "280")
    outcome = folio("train", str(book), *flags, *TRAIN)
    assert outcome.code == 0, outcome.err
    run = Run(runs_folder() / "pairs")
    records = json.loads(folio("evaluate", "pairs", "--json").out)
    assert 0 < records[0]["bits_per_byte"] < 8
    same = json.loads(folio("evaluate", "pairs", str(book), "--json").out)
    assert same[0]["targets"] == len(load(run.path).encode(book.read_text())) - 1
    flags = ("--prompt", "The ", "--seed", "3", "--max-tokens", "20", "--no-stop")
    one, two = folio("sample", "pairs", *flags), folio("sample", "pairs", *flags)
    assert one.out == two.out and one.out.startswith("The ")
    assert folio("resume", "pairs", "--training.max-steps", "40").code == 0


def test_a_file_is_evaluated_with_the_sequences_of_the_run(folio, book: Path, tmp_path: Path):
    flags = ("--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "280")
    flags += ("--tokenizer.sequence", "line", "--name", "lines")
    assert folio("train", str(book), *flags, *TRAIN).code == 0
    other = tmp_path / "other.txt"
    other.write_text("The 1th line\nThe 2th line\n")
    tokenizer = load(runs_folder() / "lines")
    n_ids = len(tokenizer.encode("The 1th line\n")) + len(tokenizer.encode("The 2th line\n"))
    records = json.loads(folio("evaluate", "lines", str(other), "--json").out)
    assert records[0]["targets"] == n_ids + 4 - 1  # <bos> and <eos> around each line


def test_words_are_learned_as_asked(folio, tmp_path: Path):
    (tmp_path / "a.txt").write_text("The cat, the dog. " * 20)
    words = f"--kind word --vocab-size 9 --punctuation drop --lowercase --out {tmp_path}/w.json"
    assert folio("tokenizer", "train", str(tmp_path / "a.txt"), *words.split()).code == 0
    assert load(tmp_path / "w.json").pieces[:3] == [b"the", b"cat", b"dog"]


def test_a_tokenizer_that_was_learned_before_is_trained_on(folio, book: Path, saved: Path):
    outcome = folio("train", str(book), "--name", "x", "--tokenizer.path", str(saved), *TRAIN)
    assert outcome.code == 0, outcome.err
    run = Run(runs_folder() / "x")
    assert load(run.tokenizer_file).fingerprint == load(saved).fingerprint


def test_samples_of_words_have_spaces_between_them(folio, book: Path):
    flags = ("--tokenizer.kind", "word", "--tokenizer.vocab-size", "200")
    assert folio("train", str(book), "--name", "words", *flags, *TRAIN).code == 0
    written = folio("sample", "words", "--prompt", "The", "--max-tokens", "5", "--seed", "1").out
    assert written.startswith("The ") and len(written.split()) == 6
    several = folio("sample", "words", "--prompt", "The", "--max-tokens", "5", "--samples", "2").out
    assert len(several.splitlines()[1].split()) == 6


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("train BOOK --vocab-size 100", "257 at least"),
        ("train BOOK --pattern gpt4", "one of gpt2, llama3, qwen2"),
        ("train BOOK --kind words", "Did you mean 'word'"),
        ("train BOOK --kind word --merges", "no merges"),
        ("train nowhere.txt", "no file, folder"),
        ("encode nowhere.json --text x", "There is no file nowhere.json"),
        ("encode SAVED nowhere.txt", "There is no file nowhere.txt"),
        ("encode SAVED BOOK --text x", "Give one of them"),
        ("encode BOOK --text x", "damaged"),
        ("decode SAVED 280", "0 to 279"),
        ("decode SAVED 100000000000000000000000000", "0 to 279"),
        ("decode SAVED x", "x"),
        ("compare BOOK --vocab-sizes 1k", "whole numbers"),
        ("compare BOOK --vocab-sizes 100", "257 at least"),
        ("compare BOOK --also nowhere.json", "no file nowhere.json"),
        ("compare BOOK --pattern gpt4 --vocab-sizes 300", "gpt2, llama3, qwen2"),
        ("nothing", "nothing"),
    ],
)
def test_a_mistake_gets_one_line(folio, book: Path, saved: Path, mistake: str, words: str):
    named = mistake.replace("BOOK", str(book)).replace("SAVED", str(saved))
    outcome = folio("tokenizer", *named.split())
    assert outcome.code == 2 and words in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in outcome.err


def test_a_text_with_too_few_pairs_stops_and_says_so(folio, tmp_path: Path):
    (tmp_path / "a.txt").write_text("ab " * 100)
    out = ("--out", str(tmp_path / "t.json"))
    outcome = folio("tokenizer", "train", str(tmp_path / "a.txt"), "--vocab-size", "999", *out)
    assert outcome.code == 0 and "instead of 999" in outcome.err
