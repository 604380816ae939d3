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
from folio.tokenizers.base import END_OF_DOCUMENT
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.word import WordTokenizer
from tests.cli.conftest import Folio
from tests.cli.test_cli import TRAIN


@pytest.fixture
def saved(folio: Folio, book: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tok.json"
    outcome = folio("tokenizer", "train", str(book), "--vocab-size", "280", "--out", str(path))
    assert outcome.code == 0, outcome.err
    return path


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_a_vocabulary_is_learned_saved_and_told(folio: Folio, book: Path, tmp_path: Path):
    path = tmp_path / "tok.json"
    words = ("--vocab-size", "260", "--out", str(path))
    (line,) = folio("tokenizer", "train", str(book), *words).out.splitlines()
    assert line.startswith(f"{path}: 260 ids, learned from 18,000 bytes in ")
    assert line.endswith("MB/s")
    assert hf.Tokenizer.from_file(str(path)).get_vocab_size() == 260


def test_a_file_that_is_held_out_is_held_out_beside_the_end_of_the_text(
    folio: Folio, book: Path, tmp_path: Path
):
    (tmp_path / "held.txt").write_text("other")
    words = ("--vocab-size", "260", "--validation", str(tmp_path / "held.txt"))
    outcome = folio("tokenizer", "train", str(book), *words, "--out", str(tmp_path / "t.json"))
    assert "learned from 18,000 bytes" in outcome.out  # as folio train does


def test_merges_are_shown_one_by_one_in_the_order_learned(folio: Folio, tmp_path: Path):
    path, text = tmp_path / "t.json", "hug hug pug hugs " * 6
    BPETokenizer.train([text], 260, special_tokens=(END_OF_DOCUMENT,)).save(path)
    header, *lines = folio("tokenizer", "merges", str(path)).out.splitlines()
    assert header.split() == ["merge", "left", "right", "token", "id", "count"]
    # of each line of the text: ug 4 times, then hug 3 times, then the space before it
    # (but for the first one of all)
    assert [line.split() for line in lines] == [
        ["0", "u", "g", "ug", "256", "24"],
        ["1", "h", "ug", "hug", "257", "18"],
        ["2", "␣", "hug", "␣hug", "258", "17"],
    ]
    outcome = folio("tokenizer", "merges", str(path), "--skip", "1", "--limit", "1")
    assert outcome.out.splitlines()[1:] == [lines[1]]
    assert outcome.err == "1 more: --skip 2, or --limit 0 for all\n"
    last = json.loads(folio("tokenizer", "merges", str(path), "--skip", "2", "--json").out)
    expected = {"rank": 2, "left": 32, "right": 257, "token": 258, "occurrences": 17}
    assert last == [{**expected, "text": "␣hug"}]


def test_special_tokens_are_found_in_text_where_they_are_allowed(folio: Folio, saved: Path):
    end = load(saved).end_of_document
    words = ("tokenizer", "encode", str(saved), "--text", "a<|endoftext|>", "--json")
    assert end not in json.loads(folio(*words).out)
    for allowed in ("<|endoftext|>", "all"):
        assert json.loads(folio(*words, "--allow-special", allowed).out) == [97, end]


def test_the_share_of_unknown_words_is_told_of_both_parts(folio: Folio, tmp_path: Path):
    (tmp_path / "a.txt").write_text("the the the cat dog " * 9 + "the" + " off" * 4)
    (tmp_path / "held.txt").write_text("the bird flies off")
    words = f"--kind word --vocab-size 4 --out {tmp_path}/w.json --validation {tmp_path}/held.txt"
    outcome = folio("tokenizer", "train", str(tmp_path / "a.txt"), *words.split())
    assert "20.00% of the words of the training text are <unk>." in outcome.err
    # four of the five words at the end, and three of the four of the file
    assert "<unk>: 77.78% of the tokens of the text that is held out" in outcome.out


def test_ids_and_text_go_through_pipes_unharmed(
    folio: Folio, saved: Path, monkeypatch: pytest.MonkeyPatch
):
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


def test_text_comes_from_standard_input_and_in_other_encodings(
    folio: Folio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = ("--out", str(tmp_path / "t.json"), "--vocab-size", "258")
    give(monkeypatch, b"ab" * 50)
    assert "learned from 90 bytes" in folio("tokenizer", "train", "-", *out).out
    give(monkeypatch, b"ab")
    assert folio("tokenizer", "encode", str(tmp_path / "t.json"), "-").out == "256\n"
    (tmp_path / "latin.txt").write_bytes("grün".encode("latin-1") * 50)
    for flag in ("--encoding", "--corpus.encoding"):
        words = ("tokenizer", "train", str(tmp_path / "latin.txt"), flag, "latin-1", *out)
        assert "learned from 225 bytes" in folio(*words).out


def test_files_are_encoded_and_pieces_shown(folio: Folio, saved: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("a\tb c")
    outcome = folio("tokenizer", "encode", str(saved), str(tmp_path / "a.txt"), "--pieces")
    assert outcome.out == "a|\\t|b|␣|c\n"


def test_vocabularies_are_compared_and_one_is_recommended(
    folio: Folio, book: Path, tmp_path: Path, saved: Path
):
    page = tmp_path / "page.html"
    words = ("--vocab-sizes", "260,270,5000", "--also", str(saved), "--html", str(page))
    answer = json.loads(folio("tokenizer", "compare", str(book), *words, "--json").out)
    by_name = {record["name"]: record for record in answer["tokenizers"]}
    assert list(by_name)[:3] == ["character", "bpe 260", "bpe 270"] and str(saved) in by_name
    character, learned = by_name["character"], by_name["bpe 270"]
    assert character["tokens"] == 2000 and character["bytes_per_token"] == 1.0
    assert learned["bytes_per_token"] == pytest.approx(2000 / learned["tokens"])
    assert learned["embedding_parameters"] == 270 * 128  # the width of nano
    assert answer["recommended"] in by_name and answer["reason"]
    assert page.read_text().count("<span") > 100
    outcome = folio("tokenizer", "compare", str(book), "--vocab-sizes", "260")
    assert "recommended: " in outcome.out and "bytes/token" in outcome.out


def test_a_model_is_trained_on_bpe_sampled_and_evaluated(folio: Folio, book: Path):
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


def test_a_file_is_evaluated_with_the_sequences_of_the_run(
    folio: Folio, book: Path, tmp_path: Path
):
    flags = ("--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "280")
    flags += ("--tokenizer.sequence", "line", "--name", "lines")
    assert folio("train", str(book), *flags, *TRAIN).code == 0
    other = tmp_path / "other.txt"
    other.write_text("The 1th line\nThe 2th line\n")
    tokenizer = load(runs_folder() / "lines")
    n_ids = len(tokenizer.encode("The 1th line\n")) + len(tokenizer.encode("The 2th line\n"))
    records = json.loads(folio("evaluate", "lines", str(other), "--json").out)
    assert records[0]["targets"] == n_ids + 4 - 1  # <bos> and <eos> around each line


def test_words_are_learned_as_asked(folio: Folio, tmp_path: Path):
    (tmp_path / "a.txt").write_text("The cat, the dog. " * 20)
    words = f"--kind word --vocab-size 9 --punctuation drop --lowercase --out {tmp_path}/w.json"
    assert folio("tokenizer", "train", str(tmp_path / "a.txt"), *words.split()).code == 0
    assert load(tmp_path / "w.json").pieces[:3] == [b"the", b"cat", b"dog"]


def test_a_tokenizer_that_was_learned_before_is_trained_on(folio: Folio, book: Path, saved: Path):
    outcome = folio("train", str(book), "--name", "x", "--tokenizer.path", str(saved), *TRAIN)
    assert outcome.code == 0, outcome.err
    run = Run(runs_folder() / "x")
    assert load(run.tokenizer_file).fingerprint == load(saved).fingerprint


def test_samples_of_words_have_spaces_between_them(folio: Folio, book: Path):
    flags = ("--tokenizer.kind", "word", "--tokenizer.vocab-size", "200")
    assert folio("train", str(book), "--name", "words", *flags, *TRAIN).code == 0
    # The likeliest words, so that no text ends early.
    words = ("sample", "words", "--prompt", "The", "--max-tokens", "5", "--temperature", "0")
    written = folio(*words).out
    assert written.startswith("The ") and len(written.split()) == 6
    several = folio(*words, "--samples", "2").out
    assert several.splitlines()[1] == written.rstrip("\n")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("train BOOK --vocab-size 100", "at least 257"),
        ("train BOOK --pattern gpt4", "one of gpt2, llama3, qwen2"),
        ("train BOOK --kind words", "Did you mean 'word'"),
        ("train BOOK --kind word --pattern llama3", "means nothing for kind word"),
        ("train BOOK --lowercase", "means nothing for kind bpe"),
        ("train BOOK --kind gpt2", "not learned from text"),
        ("train BOOK --validation nowhere.txt", "no file, folder"),
        ("merges WORDS", "has no merges"),
        ("merges SAVED --skip -1", "0 or more"),
        ("merges nowhere.json", "There is no file nowhere.json"),
        ("train BOOK --vocab-sise 300", "Unknown option '--vocab-sise'"),
        ("compare BOOK --d-model 3", "Unknown option '--d-model'"),
        ("encode SAVED --textt x", "Unknown option '--textt'"),
        ("encode SAVED --text x --allow-special <pad>", "no special token <pad>"),
        ("train nowhere.txt", "no file, folder"),
        ("encode nowhere.json --text x", "There is no file nowhere.json"),
        ("encode SAVED nowhere.txt", "There is no file nowhere.txt"),
        ("encode SAVED BOOK --text x", "Give one of them"),
        ("encode BOOK --text x", "damaged"),
        ("decode SAVED 280", "0 to 279"),
        ("decode SAVED 100000000000000000000000000", "0 to 279"),
        ("decode SAVED x", "x"),
        ("compare BOOK --size tiny", "Unknown size 'tiny'"),
        ("compare BOOK --vocab-sizes 1k", "whole numbers"),
        ("compare BOOK --vocab-sizes 100", "at least 257"),
        ("compare BOOK --vocab-sizes 99999999999999999999", "at most 16,777,216"),
        ("train BOOK --vocab-size 99999999", "at most 16,777,216"),
        ("compare BOOK --characters 0", "--characters must be at least 1"),
        ("compare BOOK --also nowhere.json", "no file nowhere.json"),
        ("compare BOOK --pattern gpt4 --vocab-sizes 300", "gpt2, llama3, qwen2"),
        ("nothing", "nothing"),
    ],
)
def test_a_mistake_gets_one_line(folio: Folio, book: Path, saved: Path, mistake: str, words: str):
    WordTokenizer(["a"]).save(words_path := saved.parent / "words.json")
    named = mistake.replace("BOOK", str(book)).replace("SAVED", str(saved))
    named = named.replace("WORDS", str(words_path))
    outcome = folio("tokenizer", *named.split())
    assert outcome.code == 2 and words in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in outcome.err


def test_a_text_with_too_few_pairs_stops_and_says_so(folio: Folio, tmp_path: Path):
    (tmp_path / "a.txt").write_text("ab " * 100)
    out = ("--out", str(tmp_path / "t.json"))
    outcome = folio("tokenizer", "train", str(tmp_path / "a.txt"), "--vocab-size", "999", *out)
    assert outcome.code == 0 and "has 740 ids fewer" in outcome.err
