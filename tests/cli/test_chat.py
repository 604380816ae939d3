"""folio sample --chat: one answer, or a conversation line by line."""

from __future__ import annotations

import io

import pytest

from folio.cli.main import main
from folio.run.directory import runs_folder
from folio.run.model import Model
from tests.export.making import MODERN, random_run
from tests.generation.test_chat import CHAT, said


@pytest.fixture
def opened() -> Model:
    return random_run(runs_folder(), CHAT, **MODERN)


def outcome(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    main(["sample", "made", "--chat", "--max-tokens", "6", "--seed", "3", *words])
    return capfd.readouterr()


def test_a_prompt_gets_one_answer(opened: Model, capfd: pytest.CaptureFixture[str]):
    out, err = outcome(capfd, "--prompt", "abc")
    assert out == opened.chat(said("abc"), max_tokens=6, seed=3) + "\n" and not err


def test_lines_are_a_conversation_and_an_empty_one_begins_anew(
    opened: Model, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\nh\n\nh\n"))
    out, err = outcome(capfd)
    one = opened.chat(said("abc"), max_tokens=6, seed=3)
    two = opened.chat(said("abc", one, "h"), max_tokens=6, seed=3)
    anew = opened.chat(said("h"), max_tokens=6, seed=3)
    assert two != anew and out == f"{one}\n{two}\n{anew}\n"
    assert "a new conversation" in err


def test_a_full_context_and_an_unknown_letter_are_told_and_it_goes_on(
    opened: Model, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    long = "a" * 20
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{long}\n{long}\nz\nb\n"))
    out, err = outcome(capfd)
    one = opened.chat(said(long), max_tokens=6, seed=3)
    two = opened.chat(said(long, one, long), max_tokens=6, seed=3)
    assert two == opened.chat(said(long), max_tokens=6, seed=3)
    three = opened.chat(said(long, one, long, two, "b"), max_tokens=6, seed=3)
    assert out == f"{one}\n{two}\n{three}\n"
    assert "the model reads 40 tokens at once: the first 2 messages are left out" in err
    assert "'z' (U+007A)" in err


def test_bytes_that_are_no_text_end_no_conversation(
    opened: Model, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\nabc\n"), "utf-8"))
    out, err = outcome(capfd)
    assert out == opened.chat(said("abc"), max_tokens=6, seed=3) + "\n" and "U+FFFD" in err


@pytest.mark.parametrize("flags", ["--samples 2", "--forever", "--novel 9", "--json", "--no-stop"])
def test_what_means_nothing_beside_it_is_refused(
    opened: Model, capfd: pytest.CaptureFixture[str], flags: str
):
    with pytest.raises(SystemExit) as caught:
        outcome(capfd, "--prompt", "a", *flags.split())
    (line,) = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2 and "--chat gives one answer" in line


def test_a_run_without_a_template_says_what_to_do(capfd: pytest.CaptureFixture[str]):
    random_run(runs_folder(), "character", **MODERN)
    with pytest.raises(SystemExit) as caught:
        outcome(capfd)
    (line,) = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert "has no template for conversations" in line and "CHATS.jsonl --from made" in line
