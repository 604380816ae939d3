"""The short look at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.evaluation.shares import Share
from folio.run import look_back
from folio.run.baselines import Baseline, read_baselines, write_baselines
from folio.run.card import diagnose_run, last_look
from folio.run.diagnosis import diagnose
from folio.run.look_back import AtOnce, look_for_passages
from folio.storage import write_json
from tests.recall.making import prose, train_on

EVENTS = [  # of a run with one evaluation, which has no rise to see
    {"event": "step", "step": 1, "loss": 3.0},
    {"event": "step", "step": 90, "loss": 0.13},
    {"event": "evaluation", "step": 90, "validation_loss": 3.36, "training_loss": 0.128},
]


def test_a_run_that_says_its_text_word_for_word_is_not_healthy():
    look = {"alarming": True, "known": {"count": 486, "of": 486}, "new": {"count": 0, "of": 471}}
    diagnosis = diagnose(EVENTS, 3.4, "runs/x", by_heart=look)
    assert diagnosis.verdict == "by heart" and "486 of 486" in diagnosis.reason
    assert "--model.residual-dropout" in diagnosis.command


def test_without_an_alarm_the_verdict_is_as_before():
    look = {"alarming": False, "known": {"count": 1, "of": 486}, "new": {"count": 0, "of": 471}}
    looked = diagnose(EVENTS, 3.4, "runs/x", by_heart=look)
    assert looked == diagnose(EVENTS, 3.4, "runs/x") and looked.verdict == "overfit"


@pytest.mark.parametrize(
    ("known", "new", "alarming"),
    [
        (Share(100, 500, 0.02), Share(0, 400, 0.0), True),
        (Share(20, 500, 0.01), Share(0, 400, 0.0), False),  # 4 %
        (Share(100, 500, 0.02), Share(90, 450, 0.02), False),  # new text as well: it invites to it
        (Share(40, 500, 0.04), Share(0, 400, 0.0), False),  # 8 %, in one document
    ],
)
def test_an_alarm_needs_a_share_and_certainty(known: Share, new: Share, alarming: bool):
    assert AtOnce(known, new).alarming == alarming


@pytest.mark.usefixtures("whole_end")
def test_a_memorizing_run_says_so_on_its_card(tmp_path: Path):
    path = tmp_path / "short.txt"
    path.write_text(prose(60, seed=1))
    opened = train_on(path, "heart", steps=500, model={"context_length": 96})
    assert diagnose_run(opened.run).verdict == "by heart"
    card = opened.run.card_file.read_text()
    assert "**by heart**" in card and "folio recall" in card
    assert opened.run.events()[-1]["event"] == "end", "others rely on it"


def test_a_look_at_an_earlier_end_is_no_verdict_on_this_one(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(prose(100, seed=1))
    run = train_on(path, "short", steps=5).run
    alarm = {"alarming": True, "known": {"count": 9, "of": 9}, "new": {"count": 0, "of": 9}}
    for step, expected in ((4, False), (5, True)):
        write_json(run.by_heart_file, {"run_step": step, **alarm})
        assert (last_look(run) is not None) == expected


def test_baselines_that_took_long_are_kept_at_the_next_end(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(prose(100, seed=1))
    opened = train_on(path, "short", steps=5)
    found = [Baseline("PPMd, order 6", "adaptive", 1.4, 2.0, 1.4)]
    write_baselines(opened.run, found)
    look_back.look_back(opened, run_seconds=1e9)
    assert read_baselines(opened.run) == found


def test_what_stands_often_and_patterns_are_no_alarm(tmp_path: Path):
    path = tmp_path / "boiler.txt"
    header = "Copyright notice: all of the rights are reserved by nobody.\n"
    path.write_text(
        "".join(header + prose(12, seed) + "\n" + "-+" * 40 + "\n" for seed in range(60))
    )
    opened = train_on(path, "boiler", steps=150)
    found = look_for_passages(opened)
    assert found is not None and not found.alarming
