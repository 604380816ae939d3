"""The short look at the end of a run."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from folio.evaluation.passages import Passages
from folio.evaluation.shares import Share
from folio.run import look_back
from folio.run.baselines import Baseline, read_baselines, write_baselines
from folio.run.card import diagnose_run, last_look
from folio.run.diagnosis import diagnose
from folio.run.look_back import AtOnce, look_for_passages
from folio.storage import write_json
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens import text as text_module
from folio.tokens.text import Symbols, TokenText
from tests.recall.making import go_on, prose, train_on

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


def test_a_look_without_new_text_claims_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    look = {"alarming": True, "known": {"count": 9, "of": 9}, "new": {"count": 0, "of": 0}}
    reason = diagnose(EVENTS, 3.4, "runs/x", by_heart=look).reason
    found = AtOnce(Share(9, 9, 0.0), Share(0, 0, 0.0))
    monkeypatch.setattr(look_back, "look_for_passages", lambda *_: found)
    path = tmp_path / "text.txt"
    path.write_text(prose(100, seed=1))
    (_, row), *_ = look_back.look_back(train_on(path, "short", steps=1), run_seconds=1.0)
    for told in (reason, row):
        assert "no passage of new text was there to compare with" in told
        assert "0 of 0" not in told


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
        (Share(50, 500, 0.01), Share(0, 10, 0.0), False),  # one of ten would have been as many
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
    opened.run.baselines_file.write_text("[{")
    look_back.look_back(opened, run_seconds=1e9)
    assert read_baselines(opened.run)[0].name == "every character as likely", "measured anew"


def test_what_stands_often_and_patterns_are_no_alarm(tmp_path: Path):
    path = tmp_path / "boiler.txt"
    header = "Copyright notice: all of the rights are reserved by nobody.\n"
    path.write_text(
        "".join(header + prose(12, seed) + "\n" + "-+" * 40 + "\n" for seed in range(60))
    )
    opened = train_on(path, "boiler", steps=150)
    found = look_for_passages(opened)
    assert found is not None and not found.alarming


def test_new_text_that_stood_in_an_old_text_is_not_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "new.txt").write_text(prose(900, seed=2))
    first = train_on(tmp_path / "new.txt", "held", steps=1)  # its end is held out
    old = first.tokenizer.decode(first.validation())
    (tmp_path / "old.txt").write_text(old * 2)
    opened = go_on(train_on(tmp_path / "old.txt", "old", steps=1), tmp_path / "new.txt", "new")
    said = np.array([old.index("\n") + 1, 40])

    def read(model: object, tokens: object, *_: object, **how: object) -> Passages:
        return Passages(said, 0, np.full(2, 40), np.zeros(2), np.ones(2, bool))

    monkeypatch.setattr(look_back, "read_passages", read)
    found = look_for_passages(opened)
    assert found is not None and found.known.of == 2 and found.new.of == 0


CHUNK = 64
"""Tokens that are looked through together here, in place of 65,536."""
HEADER = "all of the rights are reserved; "


@pytest.fixture
def read_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each chunk has that is looked through, chunks being short."""
    found: list[int] = []
    decode = TokenText._decode

    def counted(self: TokenText, first: int) -> Symbols:
        found.append(len(self.tokens[first : first + CHUNK]))
        return decode(self, first)

    for module in (look_back, text_module):
        monkeypatch.setattr(module, "CHUNK_TOKENS", CHUNK)
    monkeypatch.setattr(TokenText, "_decode", counted)
    return found


def look_through(text: str, said: list[str], seconds: float, read: pytest.MonkeyPatch) -> AtOnce:
    """Look back at a model that says some passages of its text at once."""
    tokenizer = CharacterTokenizer.train([text])
    tokens = tokenizer.encode(text)
    starts = np.array([text.index(passage) for passage in said])
    sizes = np.array([len(passage) for passage in said])
    passages = Passages(starts, 0, sizes, np.zeros(len(said)), np.ones(len(said), bool))
    none = Passages(*([starts[:0]] * 5))  # type: ignore[arg-type]
    answers = iter([passages, none])
    read.setattr(look_back, "read_passages", lambda *given, **how: next(answers))
    model: Any = SimpleNamespace(config=SimpleNamespace(context_length=8))
    opened: Any = SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        training=lambda: tokens,
        learned=lambda: [tokens],
        validation=lambda: tokens,
        run=SimpleNamespace(tokens_file=Path),
    )
    found = look_for_passages(opened, seconds)
    assert found is not None
    return found


def chunks_of_text(n: int) -> str:
    """Text of which each chunk begins alike, and goes on like no other."""
    return "".join(HEADER + prose(20, seed)[: CHUNK - len(HEADER)] for seed in range(n))


def test_however_long_a_text_is_as_much_is_looked_through_as_there_is_time_for(
    read_tokens: list[int], monkeypatch: pytest.MonkeyPatch
):
    read = []
    for n in (5, 40, 400):
        text = chunks_of_text(n)
        del read_tokens[:]
        seconds = 4 * 10 * CHUNK / look_back.TOKENS_PER_SECOND
        look_through(text, [text[70:110]], seconds, monkeypatch)
        suffix, *looked_through = read_tokens  # the passage itself is decoded first
        assert suffix == 40
        read.append(sum(looked_through))
    assert read == [5 * CHUNK, 10 * CHUNK, 10 * CHUNK]


def test_what_is_often_in_the_part_that_is_looked_through_is_left_out(
    read_tokens: list[int], monkeypatch: pytest.MonkeyPatch
):
    text = chunks_of_text(80)
    unique = text[len(HEADER) : CHUNK]
    for part in (math.inf, 4 * 3 * CHUNK / look_back.TOKENS_PER_SECOND):
        found = look_through(text, [HEADER, unique], part, monkeypatch)
        assert (found.known.count, found.known.of) == (1, 1), "the header is left out"
    assert len(read_tokens) == 2 + 80 + 3
