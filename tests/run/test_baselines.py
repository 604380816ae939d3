"""What simpler things make of a text, and the sentence about it."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from folio.cli.main import main
from folio.evaluation.compressors import has_ppmd, ppmd_bits, ppmd_bits_apart, xz_bits
from folio.evaluation.score import Score
from folio.jit import available
from folio.run import adaptive, baselines
from folio.run.adaptive import evaluate_adaptive
from folio.run.baselines import (
    Baseline,
    compare,
    compare_reading,
    measure_baselines,
    measure_ppmd,
)
from folio.run.model import Model
from folio.tokenizers.base import TokenIds
from folio.tokens.text import Bytes
from tests.recall.making import go_on, prose, train_on, write_documents

NEEDS_PPMD = pytest.mark.skipif(not has_ppmd(), reason="the extra baselines is not installed")


def test_xz_of_tiny_shakespeare_is_what_xz_makes_of_it(shakespeare: Path):
    data = np.fromfile(shakespeare, np.uint8)
    cut = len(data) * 9 // 10
    nats = xz_bits(data[:cut], data[cut:]) * math.log(2) / (len(data) - cut)
    assert round(nats, 3) == 1.746  # measured with the program, on the same split


@NEEDS_PPMD
def test_ppmd_of_tiny_shakespeare_is_what_others_measured(shakespeare: Path):
    data = np.fromfile(shakespeare, np.uint8)
    cut = len(data) * 9 // 10
    nats = ppmd_bits(data[:cut], data[cut:]) * math.log(2) / (len(data) - cut)
    assert round(nats, 3) == 1.406


@NEEDS_PPMD
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_ppmd_apart_learns_from_the_first_text_alone():
    import pyppmd

    texts = [np.frombuffer(prose(n, seed).encode(), np.uint8) for n, seed in ((300, 1), (40, 2))]
    before, piece = texts
    known, text = piece[:5], piece[5:]

    def size(*texts: Bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(16, 1 << 20)
        return sum(len(encoder.encode(x.tobytes())) for x in texts) + len(encoder.flush())

    once = 8 * (size(before, known, text) - size(before, known))
    assert ppmd_bits_apart(before, [(known, text)]) == once
    assert ppmd_bits_apart(before, [(known, text)] * 3) == 3 * once
    assert ppmd_bits(before, np.tile(piece, 3), order=16) < 3 * once  # which knows it then


@NEEDS_PPMD
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_ppmd_apart_reads_the_windows_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "text.txt"
    path.write_text(prose(900, 1), encoding="utf-8")
    opened = train_on(path, "short", steps=1)
    given: list[list[str]] = []
    (real,) = [b for b in measure_baselines(opened) if "windows" in b.name]
    assert 0.5 < real.bits_per_byte < 8

    def bits(before: Bytes, pieces: Sequence[tuple[Bytes, Bytes]], goes_on: object) -> int:
        given.append([x.tobytes().decode() for piece in pieces for x in piece])
        return 8

    monkeypatch.setattr(baselines, "ppmd_bits_apart", bits)
    found = [b for b in measure_baselines(opened) if "windows" in b.name]
    text, length = opened.tokenizer.decode(opened.validation()), opened.model.config.context_length
    starts = range(0, len(text) - 1, length)
    assert given == [[x for i in starts for x in (text[i], text[i + 1 : i + 1 + length])]]
    (one,) = found
    assert one.kind == "static" and one.bits_per_byte == pytest.approx(8 / (len(text) - 1))
    monkeypatch.setattr(baselines, "WINDOWS_APART", 2)
    (sampled,) = [b for b in measure_baselines(opened) if "windows" in b.name]
    assert given[1] == [*given[0][:2], *given[0][-2:]]
    assert sampled.nats_per_token == pytest.approx(8 * math.log(2) / len(given[1][1] + given[1][3]))


def test_each_is_on_the_same_text_and_the_frequencies_are_those_of_the_characters(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(prose(900, 1) + "é" * 30 + prose(100, 2), encoding="utf-8")
    opened = train_on(path, "short", steps=5)
    found = {(b.name.split(",")[0], b.kind): b for b in measure_baselines(opened)}
    text = opened.tokenizer.decode(opened.validation())
    training = opened.tokenizer.decode(opened.training())
    chances = {c: training.count(c) / (len(training) + 1) for c in set(text)}
    nats = -sum(math.log(chances[c] or 1 / (len(training) + 1)) for c in text)
    frequencies = found["character frequencies", "static"]
    assert frequencies.nats_per_character == pytest.approx(nats / len(text))
    n_bytes = len(text.encode("utf-8"))
    assert frequencies.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes)
    uniform = found["every character as likely", "static"]
    assert uniform.nats_per_character == pytest.approx(math.log(len(set(training)) + 1))
    tables = [b for (name, _), b in found.items() if name.startswith("n-grams")]
    assert [b.kind for b in tables] == ["static", "adaptive"]
    assert all(b.nats_per_character < frequencies.nats_per_character for b in tables)


def test_baselines_of_a_run_that_began_with_another_read_what_its_model_read(tmp_path: Path):
    for name, seed in (("old", 1), ("new", 2)):
        (tmp_path / f"{name}.txt").write_text(prose(900, seed))
    first = train_on(tmp_path / "old.txt", "old", steps=1)
    opened = go_on(first, tmp_path / "new.txt", "new")
    text = opened.tokenizer.decode(opened.validation())
    old, new = (of.tokenizer.decode(of.training()) for of in (first, opened))
    both = f"{old}<|endoftext|>{new}"
    assert opened.tokenizer.decode(opened.all_learned()) == both
    assert opened.tokenizer.decode(opened.all_learned(len(new) + 5)) == both[-len(new) - 17 :]
    # Of the place between the documents, and of a new character, one each.
    chances = {c: (old + new).count(c) / (len(old + new) + 2) for c in set(text)}
    found = measure_baselines(opened, quick=True)
    (frequencies,) = [b for b in found if b.name == "character frequencies"]
    nats = -sum(math.log(chances[c]) for c in text) / len(text)
    assert frequencies.nats_per_character == pytest.approx(nats)


def test_beside_what_did_not_read_all_that_the_model_did_nothing_is_said_of_learning():
    missing = "the text of /runs/old"
    for loss, gap in ((1.35, "4% below PPMd, order 6"), (1.45, "3% below n-grams of 6")):
        words = f"Your model is {gap}, which did not read {missing}."
        assert compare(some_score(loss), OTHERS, missing) == words
    assert "6% above character frequencies, which" in compare(some_score(3.6), OTHERS, missing)
    assert compare_reading(some_score(1.35), OTHERS[3:], missing).endswith(f"not read {missing}.")


def test_what_reads_only_the_end_of_a_long_text_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(900, 1))
    opened = train_on(path, "short", steps=1)
    monkeypatch.setattr(baselines, "CHOOSING", 1000)
    monkeypatch.setattr(baselines, "XZ_READS", 1)
    names = [b.name for b in measure_baselines(opened)]
    assert any(re.fullmatch(r"n-grams of \d+, chosen on the last 0 MB", name) for name in names)
    assert "xz -9e, after the last 0 MB" in names
    assert {"PPMd, order 6", "PPMd, order 16"} <= {*names}


def test_an_error_beside_the_n_grams_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "text.txt"
    path.write_text(prose(900, 1))
    opened = train_on(path, "short", steps=1)
    monkeypatch.setattr(baselines, "xz_bits", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_baselines(opened)


def some_score(loss: float, error: float = 0.01) -> Score:
    return Score("exact", 1000, 1000 * loss, 0.0, np.zeros(1), error)


def baseline(name: str, kind: str, loss: float) -> Baseline:
    return Baseline(name, kind, loss, loss / math.log(2), loss)


OTHERS = [
    baseline("character frequencies", "static", 3.4),
    baseline("n-grams of 6", "static", 1.5),
    baseline("n-grams of 6", "adaptive", 1.3),
    baseline("PPMd, order 6", "adaptive", 1.406),
]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            1.35,
            "4% below PPMd, order 6, which learns from the text as it reads it: it learned more",
        ),
        (1.45, "3% below n-grams of 6: it learned more than a table of spellings knows, and is 3%"),
        (2.5, "26% below character frequencies: it learned what tends to follow what. It is 67% a"),
        (
            3.6,
            "6% above character frequencies: nothing shows yet that it learned more than counting",
        ),
    ],
)
def test_the_sentence_compares_with_what_is_fair(loss: float, words: str):
    assert words in compare(some_score(loss), OTHERS)


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        (1.40, 0.004, "is not told apart from PPMd"),
        (1.40, 0.002, "0% below PPMd, order 6, which learns from the text as it reads it: it"),
        (1.40, 0.1, "is not told apart from n-grams of 6 by this text, a table of spellings"),
        (3.35, 0.1, "is not told apart from character frequencies by this text: nothing shows"),
        (1.30, math.inf, "is not told apart from character frequencies"),  # of a single text
    ],
)
def test_a_difference_within_two_standard_errors_is_none(loss: float, error: float, words: str):
    assert words in compare(some_score(loss, error), OTHERS)


def test_what_counts_best_is_the_table_of_spellings():
    apart = baseline("PPMd, order 16, in the model's windows", "static", 1.44)
    words = "1% above PPMd, order 16, in the model's windows, a table of spellings"
    assert words in compare(some_score(1.45, 0.001), [*OTHERS, apart])


def test_a_compressor_that_learns_is_the_better_of_two():
    longer = baseline("PPMd, order 16", "adaptive", 1.30)
    words = "4% below PPMd, order 16, which learns from the text"
    assert words in compare(some_score(1.25, 0.001), [*OTHERS, longer])


def test_a_few_characters_decide_nothing():
    others = [baseline("n-grams of 6", "static", 5.0), baseline("PPMd, order 6", "adaptive", 5.5)]
    few = Score("exact", 3, 9.0, 0.0, np.zeros(1))
    assert "has 3 characters, fewer than 300" in compare(few, others)


def test_the_verb_prints_and_keeps_them_and_reads_the_text_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(900, 1))
    opened, real, read = train_on(path, "short", steps=5), Model.scores, list[int]()

    def scores(self: Model, tokens: TokenIds, *how: Any) -> Any:
        read.append(len(tokens))
        return real(self, tokens, *how)

    monkeypatch.setattr(Model, "scores", scores)
    main(["evaluate", "short", "--baselines"])
    assert read == [len(opened.validation())]
    out = capsys.readouterr().out
    assert "character frequencies" in out and "Your model is" in out
    main(["evaluate", "short", "--baselines", "--json"])
    records = json.loads(capsys.readouterr().out)
    kept = json.loads(opened.run.baselines_file.read_text())
    assert [r["name"] for r in records if "name" in r] == [b["name"] for b in kept]
    assert records[0]["protocol"] == "exact"


@pytest.mark.skipif(not available(), reason="needs numba")
@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_an_adaptive_loss_is_named_as_one_and_comes_after_the_exact_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    size = {"vocab_size": 290} if kind == "bpe" else {}
    train_on(path, "short", steps=5, tokenizer={"kind": kind, **size})
    main(["evaluate", "short", "--adaptive", "--json"])
    records = [r for r in json.loads(capsys.readouterr().out) if "perplexity" in r]
    protocols = [record["protocol"] for record in records]
    assert protocols[0] == "exact"
    assert protocols[-2:] == ["adaptive", "adaptive, with n-grams"]
    exact, adaptive, mixed = records[0], *records[-2:]
    assert mixed["targets"] == adaptive["targets"] == exact["targets"]
    assert mixed["nats_per_token"] < adaptive["nats_per_token"] < exact["nats_per_token"]


def test_without_kernels_nothing_is_mixed_in_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened, said = train_on(path, "short", steps=1), list[str]()
    monkeypatch.setenv("FOLIO_JIT", "off")
    scores = evaluate_adaptive(opened, tell=said.append)
    assert [score.protocol for score in scores] == ["adaptive"]
    assert "no n-grams are mixed in" in said[-1]


def test_of_a_long_training_text_the_end_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened, said, given = train_on(path, "short", steps=1), list[str](), list[int]()

    def mixed(training: TokenIds, text: TokenIds, *_: object) -> NDArray[np.float64]:
        given.append(len(training))
        assert (training == opened.training()[-len(training) :]).all()
        return np.ones(len(text))

    module = pytest.importorskip("folio.evaluation.context_mixing")
    monkeypatch.setattr(module, "read_with_counts", mixed)
    for counted, words in ((100, "the last 100 of "), (1 << 21, "counting all tokens")):
        monkeypatch.setattr(adaptive, "COUNTED", counted)
        evaluate_adaptive(opened, tell=said.append)
        assert words in said[-1]
    assert given == [100, len(opened.training())]


def test_of_a_long_validation_text_the_beginning_is_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FOLIO_JIT", "off")
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened, said = train_on(path, "short", steps=1), list[str]()
    (score,) = evaluate_adaptive(opened, tell=said.append, most=100.5)
    assert score.targets == 99
    assert said[0].startswith(f"reading the first 100 of {len(opened.validation()):,} tokens by 9")
    assert (
        score.counts == np.bincount(opened.validation()[1:100], minlength=len(score.counts))
    ).all()
    (score,) = evaluate_adaptive(opened, tell=said.append, most=1e9)
    assert score.targets == len(opened.validation()) - 1


@pytest.mark.parametrize(
    ("n_documents", "most"), [(1, math.inf), (1, 200), (60, math.inf), (60, 900)]
)
def test_the_error_of_an_adaptive_loss_is_over_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_documents: int, most: float
):
    monkeypatch.setattr(adaptive, "available", lambda: False)
    texts = [prose(1200 // n_documents, seed) for seed in range(n_documents)]
    opened = train_on(
        write_documents(tmp_path / "texts", texts), "short", 1, corpus={"validation_fraction": 0.5}
    )
    given, real = list[NDArray[np.int64]](), Score.of

    def of(*what: Any) -> Score:
        given.append(what[-1])
        return real(*what)

    monkeypatch.setattr(Score, "of", of)
    (score,) = evaluate_adaptive(opened, most=most)
    assert score.error_over_texts is not None and 0 < score.error_over_texts < math.inf
    tokens = opened.validation()[: score.targets + 1]
    families = np.array(opened.run.families("validation"))
    documents = np.cumsum(tokens == opened.tokenizer.end_of_document)
    if len(set(documents[:-1].tolist())) >= 16:
        assert (given[0] == families[documents[:-1]]).all(), "a separator belongs to what it ends"
    else:
        assert 16 <= len(set(given[0].tolist())) <= 34


@NEEDS_PPMD
def test_ppmd_is_measured_on_what_an_adaptive_model_reads(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened = train_on(path, "short", steps=1)
    training, text = (opened.tokenizer.decode(x) for x in (opened.training(), opened.validation()))
    before, beginning = (np.frombuffer(x.encode(), np.uint8) for x in (training, text[:100]))
    found = measure_ppmd(opened, 100)
    for order, one in zip((6, 16), found, strict=True):
        assert one.name == f"PPMd, order {order}, the first 100 tokens"
        assert one.kind == "adaptive"
        bits = ppmd_bits(before, beginning, order=order)
        assert one.bits_per_byte == pytest.approx(bits / 100)
        assert one.nats_per_token == pytest.approx(bits * math.log(2) / 99)
    assert [one.name for one in measure_ppmd(opened, len(text))] == [
        "PPMd, order 6",
        "PPMd, order 16",
    ]


@NEEDS_PPMD
def test_what_ppmd_was_measured_on_already_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened, orders = train_on(path, "short", steps=1), list[int]()
    known = measure_ppmd(opened, len(opened.validation()))

    def bits(before: Bytes, text: Bytes, goes_on: object, order: int) -> int:
        orders.append(order)
        return 8

    monkeypatch.setattr(baselines, "ppmd_bits", bits)
    found = measure_ppmd(opened, len(opened.validation()), known=known[:1])
    assert found[0] is known[0] and orders == [16]
    measure_ppmd(opened, 100, known=known)  # another text
    assert orders == [16, 6, 16]


def test_without_ppmd_an_adaptive_loss_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened, said = train_on(path, "short", steps=1), list[str]()
    monkeypatch.setattr(baselines, "has_ppmd", lambda: False)
    assert measure_ppmd(opened, 100, said.append) == []
    assert "pip install 'foliolm[baselines]'" in said[0]
    assert compare_reading(some_score(1.0), []) == ""


def test_an_adaptive_loss_is_compared_with_the_better_compressor():
    others = [
        baseline("PPMd, order 6", "adaptive", 2.0),
        baseline("PPMd, order 16", "adaptive", 1.6),
    ]
    assert "is 25% below PPMd, order 16." in compare_reading(some_score(1.2), others)
    assert "is 25% above PPMd, order 16." in compare_reading(some_score(2.0), others)
    nothing = baseline("PPMd, order 16", "adaptive", 0.0)  # of two bytes that it expected
    assert "is far above PPMd, order 16." in compare_reading(some_score(2.0), [nothing])


@NEEDS_PPMD
@pytest.mark.skipif(not available(), reason="needs numba")
def test_the_verb_compares_an_adaptive_loss_with_ppmd_and_reads_all_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "text.txt"
    path.write_text(prose(300, 1))
    opened = train_on(path, "short", steps=1)
    work = 600 * opened.model.config.n_parameters
    monkeypatch.setattr("folio.run.model.MOST_WORK", work)
    main(["evaluate", "short", "--adaptive"])
    out = capsys.readouterr().out
    assert "PPMd, order 16, the first 100 tokens" in out and "Learning as it reads" in out
    main(["evaluate", "short", "--adaptive", "--baselines", "--whole", "--json"])
    records = json.loads(capsys.readouterr().out)
    names = [record["name"] for record in records if "name" in record]
    assert names.count("PPMd, order 6") == names.count("PPMd, order 16") == 1
    learning = [record for record in records if record["protocol"] == "adaptive, with n-grams"]
    assert learning[0]["targets"] == len(opened.validation()) - 1


@NEEDS_PPMD
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_what_ends_a_document_is_no_character(tmp_path: Path):
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(prose(3, number))
    for each in measure_baselines(train_on(tmp_path, "documents", steps=1)):
        assert each.nats_per_character == pytest.approx(each.bits_per_byte * math.log(2)), each
