"""The whole answer, on runs where it is known."""

from __future__ import annotations

import json
import random
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import folio
from folio.cli.main import main
from folio.errors import UserError
from folio.evaluation.passages import read_passages
from folio.evaluation.shares import Share
from folio.recall import measure as measure_module
from folio.recall.config import RecallConfig
from folio.recall.measure import Recall, measure_recall, write_samples
from folio.recall.page import recall_page, write_report
from folio.recall.record import record_of
from folio.recall.sources import Sources
from folio.recall.words import copy_rows, lines_of, verdict_of
from folio.run.model import Model
from folio.run.parts import read_parts
from folio.storage import read_json
from folio.tokens.text import TokenText, from_text, to_text
from tests.conftest import copied
from tests.recall.making import prose, train_on, write_documents

SMALL = RecallConfig(samples=6, passages=200, length=20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for a moment on twenty documents."""
    folder = tmp_path_factory.mktemp("made")
    texts = [prose(120, seed) for seed in range(20)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        source = write_documents(folder / "texts", texts)
        return train_on(source, "learned", steps=10).run.path


@pytest.fixture
def learned(made: Path) -> Model:
    return folio.load(copied(made).path)


@pytest.fixture(scope="module")
def measured(made: Path) -> Recall:
    """What that run recalls."""
    return measure_recall(folio.load(made), SMALL)


def copied_from(opened: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run write what a Markov chain of order 20 would."""
    text = TokenText(opened.training(), opened.tokenizer)
    pieces = [text.between(start, start + 300) for start in range(500, 6500, 1000)]
    monkeypatch.setattr(measure_module, "write_samples", lambda *_: pieces)


def test_a_run_that_learned_knows_nothing_by_heart_and_copies_nothing(measured: Recall):
    recall, verdict = measured, verdict_of(measured)
    assert verdict.kind == "learned" and verdict.sentence.startswith("It learned.")
    assert recall.heart.text["in a million"].count == 0 < recall.heart.text["at once"].of
    assert recall.model.copied.count == 0 < recall.model.copied.of
    assert verdict.sentence.endswith("and no copy was found in what it wrote.")


NOBODY = Share(0, 0, 0.0)


@pytest.mark.parametrize("tried", [True, False], ids=["passages", "no passages"])
@pytest.mark.parametrize(
    ("model", "author", "words"),
    [
        (NOBODY, Share(9, 900, 0.001), "no text that it wrote has the 20 characters of a copy"),
        (Share(0, 900, 0.0), Share(9, 900, 0.001), "no copy was found in what it wrote"),
        (Share(9, 900, 0.001), Share(9, 900, 0.001), "it copies no more than the author does"),
        (  # by more than the error, and too little to be said to copy
            Share(18, 1000, 0.003),
            Share(0, 900, 0.0),
            "1.8 % ± 0.3 of what it wrote is copied; of the author's own pages 0 stands",
        ),
        (Share(18, 1000, 0.003), NOBODY, "copied; no text of the author is long enough"),
        (Share(900, 1000, 0.003), NOBODY, "20 characters in a row and more; no text of the author"),
    ],
)
def test_of_copies_the_verdict_says_what_the_table_shows(
    measured: Recall, model: Share, author: Share, words: str, tried: bool
):
    heart = measured.heart
    if not tried:
        none = dict.fromkeys(heart.text, NOBODY)
        nothing = replace(heart, text=none, repeated=none, new=none, patterns=none, n_patterns=0)
        heart = replace(nothing, suffix_characters=0.0, by_repeats=[], bits=[])
    recall = replace(
        measured,
        heart=heart,
        model=replace(measured.model, copied=model),
        author=replace(measured.author, copied=author),
    )
    assert words in verdict_of(recall).sentence


@pytest.mark.parametrize(
    ("often", "patterns", "words"),
    [
        (240, 0, "240 stand more than five times"),
        (0, 60, "60 are patterns (rules, columns)"),
        (240, 60, "240 stand more than five times and 60 are patterns (rules, columns)"),
        (0, 0, "the documents, or what the model sees at once, are too short"),
    ],
)
def test_where_no_passage_counts_the_true_reason_is_told(
    measured: Recall, often: int, patterns: int, words: str
):
    of = measured.heart
    heart = replace(
        of,
        text=dict.fromkeys(of.text, NOBODY),
        repeated=dict.fromkeys(of.text, Share(often // 2, often, 0.1)),
        patterns=dict.fromkeys(of.text, Share(patterns // 2, patterns, 0.1)),
        n_patterns=patterns,
        bits=[],
        suffix_characters=of.suffix_characters if often or patterns else 0.0,
    )
    recall = replace(measured, heart=heart)
    printed, page = "\n".join(lines_of(recall)), recall_page(recall)
    for told in (verdict_of(recall).sentence, printed, page):
        assert words in told
        assert ("too short" in told) == (not often and not patterns)
    row = re.search(r"240 that stand > 5 times +120  50\.0 %", printed)
    assert (row is not None) == bool(often)
    assert ("of it, more than 5 times there" in page) == bool(often)
    assert ("it goes on with 50% of them in 100 tries" in printed) == bool(patterns)
    assert ("--length 20" in printed) == (not often and not patterns)


def test_where_no_new_text_was_compared_no_share_of_it_is_told(measured: Recall):
    none = dict.fromkeys(measured.heart.new, NOBODY)
    for known in (Share(1, 500, 0.002), Share(50, 500, 0.01)):
        text = measured.heart.text | {"in 100 tries": known}
        heart = replace(measured.heart, text=text, new=none, new_bits=[], told_apart=None)
        recall = replace(measured, heart=heart)
        sentence = verdict_of(recall).sentence
        assert "no passage of new text was there to compare with" in sentence
        assert "chance" not in sentence and "new text 0" not in sentence
        told = "\n".join(lines_of(recall)) + recall_page(recall)
        assert "new text, 0 passages" not in told and "never read" not in told


def test_the_tables_fit_into_80_columns(measured: Recall):
    all_of_many = dict.fromkeys(measured.heart.text, Share(4096, 4096, 0.0))
    heart = replace(measured.heart, text=all_of_many, repeated=all_of_many, new=all_of_many)
    told = "\n".join(lines_of(replace(measured, heart=heart))).partition("recognized:")[0]
    assert max(map(len, told[told.index("passages of") :].splitlines())) <= 80


def test_advice_about_a_run_in_a_folder_with_a_blank_can_be_pasted(measured: Recall):
    advice = verdict_of(replace(measured, run="my runs/a")).advice
    assert {"my runs/a", "my runs/a/recipe.toml"} & {*shlex.split(advice)}


def test_a_model_that_learned_nothing_is_not_said_to_have_learned(tmp_path: Path):
    texts = [prose(120, seed) for seed in range(20)]
    opened = train_on(write_documents(tmp_path / "texts", texts), "untrained", steps=1)
    verdict = verdict_of(measure_recall(opened, SMALL))
    assert verdict.kind == "nothing" and "learned nothing" in verdict.sentence


def test_what_is_written_off_is_said_with_its_place(
    learned: Model, monkeypatch: pytest.MonkeyPatch
):
    copied_from(learned, monkeypatch)
    recall = measure_recall(learned, SMALL)
    verdict = verdict_of(recall)
    assert verdict.kind == "copies" and "--model.residual-dropout" in verdict.advice
    assert recall.model.copied.value > 0.95
    page = recall_page(recall)
    names = {Path(entry["source"]).name for entry in learned.run.corpus()["sources"]}
    assert sum(name in page for name in names) >= 3


def test_a_memorized_text_is_known_by_heart_and_the_guard_keeps_copies_short(tmp_path: Path):
    path = tmp_path / "short.txt"
    path.write_text(prose(100, seed=1))
    opened = train_on(path, "heart", steps=500, model={"context_length": 32})
    recall = measure_recall(opened, RecallConfig(samples=4, length=12, novel=10))
    assert recall.heart.text["at once"].value > 0.5
    assert recall.heart.text["in 100 tries"].value > 0.7
    assert recall.heart.new["in 100 tries"].value < 0.3
    assert verdict_of(recall).kind in ("copies", "by heart")
    (_, free), (guarded, cells), *_ = copy_rows(recall)
    assert guarded == "what it wrote with --novel 10"
    assert int(free[-1]) > 30 > int(cells[-1]), "ten letters, and the signs between them"
    assert record_of(recall)["copies"]["guarded"]["longest"] == int(cells[-1])
    worst = recall.heart.worst[0]
    source = recall.sources.locate(worst.place)
    assert path.read_text()[source.offset :].startswith(worst.suffix)
    assert Path(source.document).name == "short.txt"


def test_the_more_often_a_passage_stands_the_surer_it_comes(tmp_path: Path):
    plants = {n: [prose(12, 1000 * n + i)[:66] for i in range(5)][: 64 // n] for n in (1, 4, 16)}
    plants[64] = [prose(12, 64_000)[:66]]
    pieces = [text for n, texts in plants.items() for text in texts for _ in range(n)]
    random.Random(1).shuffle(pieces)
    path = tmp_path / "planted.txt"
    path.write_text("\n".join(pieces))
    opened = train_on(path, "planted", 200, optimizer={"learning_rate": 2e-2})
    medians, at_once = list[float](), list[int]()
    for texts in plants.values():
        read = [
            read_passages(
                opened.model, opened.tokenizer.encode(text), opened.tokenizer, 64, length=30
            )
            for text in texts
        ]
        medians.append(float(np.median([of.bits[0] for of in read])))
        at_once.append(sum(int(of.at_once[0]) for of in read))
    assert medians == sorted(medians, reverse=True)
    assert (at_once[0], at_once[-1]) == (0, 1), (medians, at_once)


def test_goldfish_keeps_a_text_that_is_read_often_from_being_known_whole(tmp_path: Path):
    # The same text and steps as above, where more than half of it comes at once.
    path = tmp_path / "short.txt"
    path.write_text(prose(100, seed=1))
    shape = {"context_length": 32}
    opened = train_on(path, "fish", 500, model=shape, training={"goldfish": 4})
    heart = measure_recall(opened, RecallConfig(samples=2, length=12)).heart
    assert heart.text["at once"].value < 0.4


def test_a_text_of_tables_raises_no_alarm(tmp_path: Path):
    row = "| name | value | name | value | name | value | name | value | name | value |\n"
    rule = "+------+-------+------+-------+------+-------+------+-------+------+-------+\n"
    path = tmp_path / "tables.txt"
    path.write_text((row + rule) * 60)
    wide = RecallConfig(samples=6, passages=200)
    recall = measure_recall(
        train_on(path, "tables", steps=150, model={"context_length": 128}), wide
    )
    assert recall.heart.patterns["in a million"].count > 0
    assert verdict_of(recall).kind == "learned"


def test_every_place_is_the_document_and_the_character_of_it(learned: Model):
    text = TokenText(learned.training(), learned.tokenizer)
    sources = Sources(learned.run, text)
    parts = read_parts(learned.run)
    assert parts is not None and len(parts) == len(text.document_starts)
    for place in range(0, len(text), 997):
        source = sources.locate(place)
        document = Path(source.document).read_text()
        here = text.between(place, place + 10)
        if (here < 256).all():
            assert document[source.offset :].startswith("".join(map(chr, here)))


def test_planted_lines_do_not_move_the_places_of_what_stands_behind_them(tmp_path: Path):
    texts = [prose(60, seed) for seed in range(20)]
    folder = write_documents(tmp_path / "texts", texts)
    opened = train_on(folder, "planted", steps=1, corpus={"canaries": 12})
    text = TokenText(opened.training(), opened.tokenizer)
    written = to_text(text.between(0, len(text)))
    lines = [f"\n{c['label']} {c['secret']}\n" for c in read_json(opened.run.canaries_file)]
    planted = np.zeros(len(written), bool)
    for line in lines:
        for match in re.finditer(re.escape(line), written):
            planted[match.start() - 10 : match.end()] = True
    assert planted.sum() > 45 * 15
    sources = Sources(opened.run, text)
    places = [place for place in range(0, len(text) - 10, 101) if not planted[place]]
    assert len(places) > 50
    for place in places:
        source, here = sources.locate(place), text.between(place, place + 10)
        if (here < 256).all():
            document = Path(source.document).read_text()
            assert document[source.offset :].startswith("".join(map(chr, here)))


def test_a_page_or_chapter_is_told_where_the_document_has_them(learned: Model):
    sources = Sources(learned.run, TokenText(learned.training(), learned.tokenizer))
    sources.entries[int(sources.parts.source[0])]["places"] = [[0, "page 1"], [50, "page 2"]]  # type: ignore[union-attr]
    assert [sources.locate(place).page for place in (0, 49, 50)] == ["page 1", "page 1", "page 2"]


def test_a_run_without_parts_is_looked_up_all_the_same(learned: Model):
    learned.run.parts_file.unlink()
    recall = measure_recall(learned, SMALL)
    assert not recall.sources.known
    assert "documents are not known by name" in list(lines_of(recall))[-1]


def test_where_near_copies_are_not_known_the_author_excuses_no_copies(
    measured: Recall, learned: Model
):
    copied, author = (Share(n, 1000, 0.003) for n in (500, 600))
    recall = replace(
        measured,
        model=replace(measured.model, copied=copied),
        author=replace(measured.author, copied=author),
    )
    assert verdict_of(recall).kind == "learned"
    learned.run.parts_file.unlink()
    unknown = replace(recall, sources=Sources(learned.run, recall.sources.text))
    verdict = verdict_of(unknown)
    assert verdict.kind == "copies" and "in the others, near-copies included" in verdict.sentence
    assert "the author, near-copies included" in [name for name, _ in copy_rows(unknown)]
    assert "the author, near-copies included" in recall_page(unknown)
    few = replace(unknown, model=replace(unknown.model, copied=Share(18, 1000, 0.003)))
    assert "1.8 % ± 0.3 of what it wrote is copied; of" in verdict_of(few).sentence


def test_the_same_seed_gives_the_same_record_and_it_holds_no_text(learned: Model):
    records = [record_of(measure_recall(learned, SMALL)) for _ in range(2)]
    assert json.dumps(records[0]) == json.dumps(records[1])
    sample = from_text(prose(120, 0))[:40].astype(np.uint8).tobytes().decode()
    assert sample not in json.dumps(records[0])


def test_the_verb_writes_page_and_record_and_json_is_the_record(
    learned: Model, capsys: pytest.CaptureFixture[str]
):
    arguments = ["recall", "learned", "--samples", "4", "--passages", "100", "--length", "20"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "It learned." in printed and str(learned.run.recall_page) in printed
    page = learned.run.recall_page.read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page
    main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(learned.run.recall_file.read_text())


def test_another_text_is_looked_through_whole_and_nothing_is_said_to_have_been_read(
    learned: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    book, own = tmp_path / "a {book} & more.txt", learned.run.recall_file
    book.write_text(prose(300, seed=77))
    own.write_text("of the run's own text")
    options = ["--samples", "3", "--passages", "60", "--length", "20"]
    main(["recall", "learned", "--text", str(book), *options])
    (printed, progress), page = capsys.readouterr(), learned.run.recall_text_page.read_text()
    assert "reading passages of the text," in progress
    assert "training text" not in progress and "validation text" not in progress
    record = read_json(learned.run.recall_text_file)
    assert own.read_text() == "of the run's own text" and not learned.run.recall_page.exists()
    assert record["text"] == book.name and record["text_characters"] == len(book.read_text())
    assert record["verdict"] == "not found" and record["times_read"] is None
    assert record["passages"]["text"]["at once"]["of"] == 60
    assert record["passages"]["new"]["at once"]["of"] == 0, "its end is no new text"
    assert record["copies"]["held_out"] is None and record["told_apart"] is None
    for told in (printed, re.sub("<style>.*?</style>", "", page, flags=re.DOTALL)):
        assert "0 of 60 passages of" in told and "a {book} &" in told
        for claim in ("It learned", "by heart", "training text", "it read", "chance", " read "):
            assert claim not in told
    assert str(book) not in page, "a page that is shared names no folders"
    with pytest.raises(SystemExit):
        main(["recall", "learned", "--text", str(book), "--novel", "40"])
    assert "--novel guards the text of the run" in capsys.readouterr().err


def test_of_another_text_that_comes_it_is_not_said_whether_it_was_read(measured: Recall):
    heart, none = measured.heart, dict.fromkeys(measured.heart.new, NOBODY)
    known = dict.fromkeys(heart.text, Share(400, 500, 0.02))
    recall = replace(
        measured, text="book.txt", heart=replace(heart, text=known, new=none, new_bits=[])
    )
    verdict = verdict_of(recall)
    assert verdict.kind == "found"
    assert verdict.sentence == (
        "400 of 500 passages of book.txt come within 100 tries, and no copy was found in what it "
        "wrote. Whether it read them or guesses them is not known: no text is known here that it "
        "did not read."
    )
    copied = replace(measured.model, copied=Share(900, 1000, 0.01))
    sentence = verdict_of(replace(recall, model=copied)).sentence
    assert "90.0 % ± 1.0 of what it wrote stands there, 20 characters in a row" in sentence
    poem = replace(heart, text=none, repeated=known, new=none, bits=[], new_bits=[])
    verdict = verdict_of(replace(recall, heart=poem))
    assert verdict.kind == "found"
    assert "Of 500 that stand there more than five times 400 come." in verdict.sentence


def test_text_on_the_page_cannot_become_a_part_of_it(
    learned: Model, monkeypatch: pytest.MonkeyPatch
):
    hostile = "</script><script>alert(1)</script>" * 3
    copied_from(learned, monkeypatch)
    monkeypatch.setattr(Sources, "around", lambda *_: (hostile, hostile, hostile))
    recall = measure_recall(learned, SMALL)
    write_report(learned.run, recall)
    assert "<script>alert" not in learned.run.recall_page.read_text()


def test_in_python_it_is_the_same(learned: Model):
    recall = folio.measure_recall("learned", samples=6, passages=200, length=20)
    assert record_of(recall) == record_of(measure_recall(learned, SMALL))


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 1},
        {"temperature": 0},
        {"passages": 0},
        {"length": 3},
        {"seed": 0},
        {"novel": -1},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]):
    with pytest.raises(UserError, match=next(iter(settings))):
        RecallConfig(**settings)


def test_a_slow_model_writes_fewer_texts_and_the_report_says_how_many(
    learned: Model, monkeypatch: pytest.MonkeyPatch
):
    seconds = iter(range(10**6))  # one a token
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(measure_module, "time", clock)
    monkeypatch.setattr(measure_module, "AT_ONCE", 6)
    monkeypatch.setattr(measure_module, "FEWEST_SAMPLES", 4)
    text = TokenText(learned.training(), learned.tokenizer)
    n_tokens = round(500 * len(text.tokens) / text.n_characters)
    said: list[str] = []
    config = RecallConfig(samples=30, passages=50, length=20, seconds=15 * n_tokens)
    recall = measure_recall(learned, config, said.append)
    assert len(recall.samples) == recall.config.samples == 12, "twice six, and half of six more"
    told = r"time for 12 texts, (5,[89]|6,[01])\d\d characters in all, .* --seconds gives more"
    assert any(re.fullmatch(told, line) for line in said)
    assert any(re.fullmatch(r"\d+% of the writing, .* left", line) for line in said)
    assert record_of(recall)["protocol"]["samples"] == 12
    cut = write_samples(learned, replace(config, seconds=125.0), text, said.append)
    assert len(cut) == 6 and {len(symbols) for symbols in cut} == {21}, "as far as they came"
    assert said[-1].startswith("time for 6 texts, 126 characters in all")
    three, eight = (
        write_samples(learned, replace(config, samples=n, seconds=1e9), text) for n in (3, 8)
    )
    assert [s.tolist() for s in three] == [s.tolist() for s in eight[:3]]
