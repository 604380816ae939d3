"""Two models are told apart where their losses on the same texts differ, and not elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folio
from folio.blocks import draw_blocks
from folio.console import columns
from folio.curves import Series
from folio.run import opening, paired
from folio.run.comparison import differences, validation_series, write_comparison
from folio.run.directory import Run
from folio.run.model import Model
from folio.run.paired import Paired, Reading, compare
from tests.conftest import write_book
from tests.test_api import TINY
from tests.test_report import Reader


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs on one text, one on another, and one with another vocabulary."""
    folder = tmp_path_factory.mktemp("compared")
    book, other = write_book(folder), folder / "other.txt"
    other.write_text(book.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    bpe: dict[str, Any] = {"tokenizer": {"kind": "bpe", "vocab_size": 300}}
    short: dict[str, Any] = {"training": TINY["training"] | {"max_steps": 2}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder / "runs"))
        return {
            "one": folio.train(book, name="one", **TINY).run,
            "again": folio.train(book, name="again", **TINY).run,
            "short": folio.train(book, name="short", **TINY | short).run,
            "bpe": folio.train(book, name="bpe", **TINY | bpe).run,
            "other": folio.train(other, name="other", **TINY).run,
        }


def test_a_model_is_not_told_apart_from_itself(made: dict[str, Run]):
    found = compare(*(Reading(folio.load(made[name].path)) for name in ("one", "again")))
    assert found is not None and found.difference == 0 and not found.differ
    assert "one and again cannot be told apart" in found.in_words("one", "again")


def test_the_difference_is_that_of_the_losses_with_the_error_of_pairs(made: dict[str, Run]):
    first, second = folio.load(made["short"].path), folio.load(made["one"].path)
    found = compare(Reading(first), Reading(second))
    assert found is not None and found.unit == "nats per token"
    scores = [opened.evaluate(opened.validation())[0] for opened in (first, second)]
    expected = scores[1].nats_per_token - scores[0].nats_per_token
    assert found.difference == pytest.approx(expected, rel=1e-5) and expected < 0
    assert found.texts >= 16
    # Slowly and by hand: the difference of each sixteenth of the text, around their mean.
    nll = [opened.score(opened.validation())[1].astype(float) for opened in (first, second)]
    length = len(nll[0]) + 1
    stretch = (np.arange(length) * 16 // length)[1:]
    each = [(nll[1] - nll[0])[stretch == i].mean() for i in range(16)]
    assert found.standard_error == pytest.approx(np.std(each, ddof=1) / 4, rel=0.05)
    assert found.differ
    assert "one is better than short by" in found.in_words("short", "one")


def test_of_a_long_text_two_models_read_the_same_windows(
    made: dict[str, Run], monkeypatch: pytest.MonkeyPatch
):
    first, second = folio.load(made["short"].path), folio.load(made["one"].path)
    context_length, n = first.config.context_length, len(first.validation())
    monkeypatch.setattr("folio.run.model.MOST_WORK", first.config.n_parameters * (n // 2))
    found = compare(Reading(first), Reading(second))
    nll = [opened.nats(opened.validation(), sample=n // 2) for opened in (first, second)]
    read = ~np.isnan(nll[0])
    assert n // 2 - context_length <= read.sum() <= n // 2 + context_length
    expected = float((nll[1] - nll[0])[read].mean())
    assert found is not None and found.difference == pytest.approx(expected, rel=1e-5)
    assert expected < 0 and 0 < found.standard_error < 0.2
    # Other tokens have no windows in common, so that all of the text is read.
    other = folio.load(made["bpe"].path)
    found = compare(Reading(first), Reading(other))
    whole = [
        opened.evaluate(opened.validation())[0].record(opened.tokenizer)["bits_per_byte"]
        for opened in (first, other)
    ]
    assert found is not None and found.difference == pytest.approx(whole[1] - whole[0], abs=0.01)


def test_models_with_different_vocabularies_are_compared_by_byte(made: dict[str, Run]):
    first, second = folio.load(made["one"].path), folio.load(made["bpe"].path)
    found = compare(Reading(first), Reading(second))
    assert found is not None and found.unit == "bits per byte"
    per_byte = [
        opened.evaluate(opened.validation())[0].record(opened.tokenizer)["bits_per_byte"]
        for opened in (first, second)
    ]
    assert found.difference == pytest.approx(per_byte[1] - per_byte[0], abs=0.01)
    back = compare(Reading(second), Reading(first))
    assert back is not None and back.difference == pytest.approx(-found.difference)


def test_a_text_that_only_one_vocabulary_reads_apart_ends_no_comparison(
    made: dict[str, Run], monkeypatch: pytest.MonkeyPatch
):
    blocks, ends = paired._blocks, iter((1000, 999))  # pyright: ignore[reportPrivateUsage]

    def edged(*given: Any) -> Any:
        found = blocks(*given)
        found[-1] = next(ends)
        return found

    monkeypatch.setattr(paired, "_blocks", edged)
    first, second = (Reading(folio.load(made[name].path)) for name in ("one", "bpe"))
    assert compare(first, second) is not None


def test_what_cannot_be_compared_is_said(made: dict[str, Run], monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    (found,) = differences([made["one"], made["other"]], told.append)
    assert found.record() is None and "hold out different texts" in found.sentence
    assert told == ["reading the held-out text with one and other"]

    def refuse(*_: object) -> None:
        raise folio.UserError("There is no checkpoint.")

    monkeypatch.setattr(paired, "compare", refuse)
    (found,) = differences([made["one"], made["again"]], told.append)
    assert found.sentence == "one and again cannot be compared. There is no checkpoint"


def test_the_first_of_several_runs_is_opened_and_read_once(
    made: dict[str, Run], monkeypatch: pytest.MonkeyPatch
):
    opened, read, told = list[str](), list[str](), list[str]()
    open_run, nats = opening.open_run, Model.nats

    def counted_open(run: Run) -> Model:
        opened.append(run.name)
        return open_run(run)

    def counted_nats(self: Model, *arguments: Any, **named: Any) -> Any:
        read.append(self.run.name)
        return nats(self, *arguments, **named)

    names = ["one", "again", "other", "bpe", "short"]
    pairs = [differences([made["one"], made[name]], told.append)[0] for name in names[1:]]
    monkeypatch.setattr(opening, "open_run", counted_open)
    monkeypatch.setattr(Model, "nats", counted_nats)
    assert differences([made[name] for name in names], told.append) == pairs
    assert sorted(opened) == sorted(names) and sorted(read) == ["again", "bpe", "one", "short"]


@pytest.mark.parametrize(
    ("difference", "words"),
    [(-0.3, "B is better than A by 0.3000 ± 0.1000"), (0.3, "A is better than B by 0.3000")],
)
def test_the_lower_loss_is_better(difference: float, words: str):
    assert Paired(difference, 0.1, 20, "nats per token").in_words("A", "B").startswith(words)


def test_the_page_has_the_curves_the_table_and_what_can_be_said(
    made: dict[str, Run], tmp_path: Path
):
    path = tmp_path / "compare.html"
    compared = [made["one"], made["short"]]
    series = validation_series(compared, [run.events() for run in compared])
    write_comparison(path, series, (["run"], [["<one>"]]), ["A & B"])
    page = path.read_text(encoding="utf-8")
    read = Reader(page)
    assert not read.open and read.text["td"] == ["<one>"] and "A & B." in read.text["p"]
    assert read.text["li"] == ["one", "short"] and "<polygon" in page
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", None])
def test_curves_fit_the_terminal_and_its_encoding(width: int, encoding: str | None):
    name = "a" * 60 if encoding != "utf-8" else "aaa" + "漢" * 60
    series = [Series(name, [0, 100], [3.0, 1.0]), Series("b", [0, 50, 100], [3.0, 2.5, 2.0])]
    drawn = draw_blocks(series, width, encoding=encoding)
    lines = drawn.splitlines()
    assert max(map(columns, lines)) == width
    drawn.encode(encoding or "ascii")
    marks = ("█", "░") if encoding == "utf-8" else ("#", "o")
    assert all(any(mark in line for line in lines[:12]) for mark in marks)
    assert lines[-2].startswith(f"{marks[0]} aaa") and lines[-1] == f"{marks[1]} b"


def test_the_lower_curve_is_drawn_lower():
    series = [Series("high", [0, 10], [3.0, 3.0]), Series("low", [0, 10], [1.0, 1.0])]
    lines = draw_blocks(series, 40, height=5, encoding="ascii").splitlines()
    assert "#" in lines[0] and "o" in lines[4]
    assert not any(mark in line for mark in "#o" for line in lines[1:4])


def test_what_is_cropped_is_not_drawn_at_the_edge():
    series = [Series("a", range(41), [9.0, 9.0, *[2.0] * 39])]
    lines = draw_blocks(series, 60, height=9, encoding="ascii").splitlines()
    begin = lines[0].index("|") + 1
    assert {line[begin : begin + 1] for line in lines[:9]} <= {"", " "}
    assert any("#" in line for line in lines[:9])


def test_a_run_without_evaluations_has_no_curve(made: dict[str, Run]):
    series = validation_series([made["one"], made["short"]], [made["one"].events(), []])
    assert [one.label for one in series] == ["one"]
