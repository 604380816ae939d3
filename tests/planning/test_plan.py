"""Which size suits a text, a machine and a budget."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from folio.cli.main import main
from folio.cli.plan import parse_bytes
from folio.errors import UserError
from folio.planning.plan import Plan, Row, measure_anchors
from folio.recipe.expected_loss import RULE
from folio.recipe.presets import SIZES, Size
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.sizing import Candidate
from folio.recipe.speed import Throughput
from tests.recipe.test_conversations import write_chats


def row(size: str, tokens_per_second: float, memory_bytes: int = 10**9, n: int = 10**6) -> Row:
    """For 60 minutes on n tokens of text."""
    recipe = make_recipe({"size": size, "model": {"vocab_size": 100}})
    per_step = recipe.training.batch_size * recipe.model.context_length
    speed = Throughput(per_step / tokens_per_second, 0.0)
    return Row(Candidate(recipe, speed, True, 60, n, n // 10, memory_bytes, 8 * 10**9), None)


def plan(*rows: Row) -> Plan:
    return Plan(60, 10**6, 10**5, 8 * 10**9, list(rows))


def test_the_verdict_names_the_best_size_and_what_speaks_against_each_larger_one():
    # Ten epochs of a million tokens; at 1,000 a second that is two hours and 47 minutes.
    found = plan(row("nano", 9000), row("mini", 3000), row("baby", 1000), row("small", 100))
    assert found.best.recipe.size == "mini"
    assert found.verdict().startswith("mini is best for 60 minutes; baby needs about 2 h 47 min;")
    assert found.verdict().endswith("small starves: 85 parameters for each token you have.")


def test_little_time_does_not_speak_against_the_smallest_size():
    assert plan(row("nano", 100)).verdict() == "nano is best for 60 minutes."


def test_a_size_that_does_not_fit_is_not_best_however_fast_it_is():
    found = plan(row("nano", 9000), row("mini", 9000, memory_bytes=9 * 10**9))
    assert found.verdict() == "nano is best for 60 minutes; mini needs 9.0 GB of memory."


def test_the_smallest_size_is_best_even_where_much_speaks_against_it():
    found = plan(row("nano", 9000, n=10_000), row("micro", 9000, n=10_000))
    assert found.verdict() == (
        "nano is best for 60 minutes, although it starves: 82 parameters for each token you have; "
        "micro starves: 179 parameters for each token you have."
    )


def test_a_size_starves_of_the_tokens_that_count():
    candidate = row("mini", 9000).candidate
    assert candidate.unfit == ""
    talks = replace(candidate, n_counted=10**4)
    assert talks.parameters_per_token == candidate.recipe.model.n_parameters / 10**4
    assert talks.unfit.endswith("parameters for each token that counts")


SHAPE = "--model.n-layers 1 --model.d-model 16 --model.n-heads 2 --model.context-length 16"
DEVICE = "--training.batch-size 4 --device.kind cpu --device.precision float32"
SMALL = f"{SHAPE} {DEVICE}".split()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that takes 10 ms a step, and anchors of two and four steps; counts measurements."""
    measured: list[int] = []

    def measure(recipe: Recipe, *_: object) -> Throughput:
        measured.append(recipe.model.n_parameters)
        return Throughput(0.01, 0.1)

    monkeypatch.setattr("folio.recipe.sizing.measure", measure)
    monkeypatch.setattr("folio.planning.plan.ANCHOR_STEPS", (2, 4))
    monkeypatch.setitem(SIZES, "nano", Size(1, 2, 16, 64, 16, 16))  # of the anchors
    return measured


def test_the_command_prints_a_table_a_verdict_and_what_to_type(
    book: Path, quick: list[int], capfd: pytest.CaptureFixture[str]
):
    main(["plan", str(book), "--minutes", "2", "--memory", "8GB", *SMALL])
    out = capfd.readouterr().out
    assert "is best for 2 minutes" in out and "8.0 GB of memory" in out
    assert f"try  folio train {book} --minutes 2 --model.n-layers 1" in out
    assert out.strip().endswith("--device.memory-gigabytes 8")
    assert len(quick) == 6


def test_json_has_the_same_numbers_and_the_anchor_is_measured_once(
    book: Path, quick: list[int], capfd: pytest.CaptureFixture[str]
):
    outs = []
    for _ in range(2):
        main(["plan", str(book), "--json", *SMALL])
        captured = capfd.readouterr()
        outs.append(captured.err)
        found = json.loads(captured.out)
    assert "steps of nano" in outs[0] and "steps of nano" not in outs[1]
    first = found["sizes"][0]
    assert first["size"] == "nano" and found["best"] in found["verdict"]
    # 60 minutes at 10 ms a step and at most 20 evaluations of 0.1 s.
    assert first["steps"] == pytest.approx(360_000, rel=0.001)
    assert first["tokens"] == first["steps"] * 4 * 16
    assert first["tokens_per_second"] == pytest.approx(6400)
    assert first["loss_band"] == pytest.approx(RULE.band * first["loss"])


def test_of_conversations_the_tokens_that_count_are_told_and_starvation_is_refused(
    tmp_path: Path, quick: list[int], capfd: pytest.CaptureFixture[str]
):
    chats = write_chats(tmp_path)
    main(["plan", str(chats), "--json", *SMALL])
    captured = capfd.readouterr()
    size, record = json.loads(captured.out)["sizes"][0], captured.err
    (counted,) = re.findall(r"conversations: ([\d,]+) of", record)
    per_token = size["parameters"] / int(counted.replace(",", ""))
    assert size["parameters_per_token"] == pytest.approx(per_token, rel=1e-3)
    n_measured = len(quick)
    with pytest.raises(SystemExit):
        main(["plan", str(chats), "--starvation", *SMALL])
    err = capfd.readouterr().err
    assert "--starvation trains on all tokens" in err and len(quick) == n_measured


def test_large_sizes_are_not_tried_but_follow_from_the_one_before(
    book: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("folio.planning.plan.trial_loss", lambda *_: 3.0)
    # So slow that no larger size comes near to the tokens that it needs.
    monkeypatch.setattr("folio.recipe.sizing.measure", lambda *_: Throughput(100.0, 1.0))
    main(["plan", str(book), "--json", "--minutes", "1000", "--optimizer.kind", "adamw"])
    sizes = json.loads(capfd.readouterr().out)["sizes"]
    assert [size["measured"] for size in sizes] == [True] + [False] * 5
    rates = [size["tokens_per_second"] for size in sizes]
    assert rates == sorted(rates, reverse=True)
    # Six operations a weight and attention: about as many times slower as it is larger.
    assert rates[0] / rates[2] == pytest.approx(4.85 / 0.82, rel=0.25)
    assert sizes[0]["loss"] is not None and sizes[5]["loss"] is None, "few steps predict nothing"
    assert sizes[5]["loss_band"] is None


def test_sizes_are_measured_with_the_windows_that_a_training_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text, measured = tmp_path / "text.txt", list[Recipe]()
    text.write_text("".join(f"{n} times {n} is {n * n}.\n" for n in range(5000)))

    def measure(recipe: Recipe, *_: object) -> Throughput:
        measured.append(recipe)
        return Throughput(100.0, 1.0)

    monkeypatch.setattr("folio.planning.plan.trial_loss", lambda *_: 3.0)
    monkeypatch.setattr("folio.recipe.sizing.measure", measure)
    main(["plan", str(text), "--minutes", "2"])
    nano = measured[0]
    assert (nano.model.context_length, nano.training.batch_size) == (512, 2)
    assert nano.schedule.short_fraction == 0.7


@pytest.mark.parametrize(
    ("flag", "left_out", "size"),
    [
        (["--model.n-kv-heads", "4"], ["micro", "baby"], True),
        (["--model.context-length", "64"], [], False),
    ],
)
def test_what_to_try_is_the_size_that_was_best(
    flag: list[str],
    left_out: list[str],
    size: bool,
    book: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("folio.planning.plan.trial_loss", lambda *_: 3.0)
    monkeypatch.setattr("folio.recipe.sizing.measure", lambda *_: Throughput(0.01, 0.1))
    main(["plan", str(book), "--minutes", "2", *flag])
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in err.splitlines() if "is left out: " in line] == left_out
    best = out.rpartition("is best")[0].split()[-1]
    assert (f"--size {best}" in out.splitlines()[-1]) is size


def test_a_text_that_is_too_short_for_anchors_is_told_and_they_are_not_measured(tmp_path: Path):
    prepared: Any = SimpleNamespace(
        files={"train": tmp_path / "train.bin"},
        tokenizer=SimpleNamespace(vocab_size=50),
        training=lambda: range(3000),
    )
    told: list[str] = []
    assert measure_anchors(prepared, cast(Any, None), told.append) == []
    assert told == ["no loss is predicted: 3,000 tokens are too few to see how it falls"]


@pytest.mark.parametrize("text", ["8", "GB", "8 apples", ""])
def test_a_memory_that_is_no_size_is_a_mistake(text: str):
    with pytest.raises(UserError, match="must be a size such as 8GB"):
        parse_bytes(text)


def test_a_size_is_a_mistake_since_all_are_compared(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["plan", "--size", "mini"])
    assert end.value.code == 2 and "Leave --size out" in capfd.readouterr().err


def test_a_recipe_is_not_planned_for_as_if_it_were_text(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["plan", "recipes/shakespeare-1min.toml"])
    assert end.value.code == 2 and "a recipe has its size" in capfd.readouterr().err


def test_no_time_is_a_mistake(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["plan", "--minutes", "0"])
    assert end.value.code == 2 and "--minutes must be above 0, got 0" in capfd.readouterr().err


@pytest.mark.parametrize("budget", ["--training.max-steps", "--training.minutes"])
def test_a_budget_other_than_minutes_is_a_mistake_since_it_would_change_nothing(
    book: Path, budget: str, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as end:
        main(["plan", str(book), budget, "100"])
    assert end.value.code == 2 and f"Leave {budget} out" in capfd.readouterr().err
