"""Which size suits a text, a machine and a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.cli.main import main
from folio.cli.plan import parse_bytes
from folio.errors import UserError
from folio.planning.plan import Plan, Row
from folio.recipe.build import Speed
from folio.recipe.expected_loss import RULE


def row(size: str, losses: list[float], **changes: object) -> Row:
    values: dict[str, object] = {
        "size": size,
        "parameters": 12_000_000,
        "memory_bytes": 2 * 10**9,
        "fits": True,
        "measured": True,
        "tokens_per_second": 1000.0,
        "steps": 3000,
        "tokens": 3_000_000,
        "epochs": 3.0,
        "losses": losses,
        "parameters_per_token": 12.0,
    }
    return Row(**(values | changes))  # type: ignore[arg-type]


def plan(*rows: Row) -> Plan:
    return Plan(60, 8 * 10**9, "cpu", 10**6, 10**5, list(rows))


def test_the_lowest_loss_that_fits_is_best():
    found = plan(row("S", [1.9]), row("M", [1.6]), row("L", [1.5], fits=False))
    assert found.best is not None and found.best.size == "M"
    assert found.verdict() == "M is best for 60 minutes; L needs 2.0 GB of memory."


def test_of_equally_good_sizes_the_smallest_is_taken():
    found = plan(row("S", [1.605]), row("M", [1.6]), row("L", [1.7]))
    assert found.verdict() == (
        "S is best for 60 minutes (M would be as good); L starves: 12 parameters for each token "
        "you have."
    )


def test_a_size_that_only_needs_time_does_not_starve():
    found = plan(row("M", [1.6]), row("L", [1.9, 1.7, 1.59]))
    assert found.verdict().endswith("L would need about 4 h 0 min to be better.")


def test_too_few_steps_are_no_prediction():
    found = plan(row("S", [2.0]), row("M", [1.0, 0.9], steps=20))
    assert found.best is not None and found.best.size == "S"
    assert found.rows[1].record()["loss"] is None


def test_when_nothing_fits_the_verdict_says_so():
    found = plan(row("S", [2.0], fits=False))
    assert found.best is None and "Give more --minutes or --memory" in found.verdict()


SMALL = ["--model.n-layers", "1", "--model.d-model", "16", "--model.n-heads", "2"]
SMALL += ["--model.context-length", "16", "--training.batch-size", "4", "--device.kind", "cpu"]
SMALL += ["--device.precision", "float32"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that takes 10 ms a step, and anchors of two and four steps; counts measurements."""
    measured: list[int] = []

    def measure(recipe, *_: object) -> Speed:
        measured.append(recipe.model.n_parameters)
        return Speed(0.01, 0.1)

    monkeypatch.setattr("folio.planning.plan.measure", measure)
    monkeypatch.setattr("folio.planning.plan.ANCHOR_STEPS", (2, 4))
    return measured


def test_the_command_prints_a_table_a_verdict_and_what_to_type(
    book: Path, quick: list[int], capfd: pytest.CaptureFixture[str]
):
    main(["plan", str(book), "--minutes", "2", "--memory", "8GB", *SMALL])
    out = capfd.readouterr().out
    assert "nano is best for 2 minutes" in out
    assert f"try  folio train {book} --size nano --minutes 2" in out
    assert "8.0 GB of memory" in out and len(quick) == 6


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
    assert found["best"] == first["size"] == "nano"
    # 60 minutes at 10 ms a step and at most 20 evaluations of 0.1 s.
    assert first["steps"] == pytest.approx(360_000, rel=0.001)
    assert first["tokens"] == first["steps"] * 4 * 16
    assert first["tokens_per_second"] == pytest.approx(6400)
    assert first["loss_band"] == pytest.approx(RULE.band * first["loss"])


def test_large_sizes_are_not_tried_but_follow_from_the_one_before(
    book: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("folio.planning.plan.ANCHOR_STEPS", (2, 4))
    # So slow that not a single window of the next size can be tried.
    monkeypatch.setattr("folio.planning.plan.measure", lambda *_: Speed(100.0, 1.0))
    main(["plan", str(book), "--json", "--minutes", "1000"])
    sizes = json.loads(capfd.readouterr().out)["sizes"]
    assert [size["measured"] for size in sizes] == [True] + [False] * 5
    rates = [size["tokens_per_second"] for size in sizes]
    assert rates == sorted(rates, reverse=True)
    # Six operations a weight and attention: about as many times slower as it is larger.
    assert rates[0] / rates[2] == pytest.approx(4.85 / 0.82, rel=0.25)


@pytest.mark.parametrize("text", ["8", "GB", "8 apples", ""])
def test_a_memory_that_is_no_size_is_a_mistake(text: str):
    with pytest.raises(UserError, match="expected a size such as 8GB"):
        parse_bytes(text)


def test_no_time_is_a_mistake(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["plan", "--minutes", "0"])
    assert end.value.code == 2 and "--minutes is 0" in capfd.readouterr().err
