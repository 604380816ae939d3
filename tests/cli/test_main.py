from __future__ import annotations

import pytest

from tests.cli.conftest import Folio


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(36, "File name too long", "x" * 300),
            f"error: {'x' * 200} could not be used: File",
        ),
        (OSError(28, "No space left on device"), "error: The system refused something: No space"),
        (ConnectionResetError("gone"), "error: The system refused something: gone."),
    ],
)
def test_what_the_system_refuses_gets_one_line(
    folio: Folio, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
):
    def refuse() -> None:
        raise error

    monkeypatch.setattr("folio.cli.runs.list_runs", refuse)
    outcome = folio("runs")
    assert outcome.code == 2 and outcome.err.startswith(message) and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sample", "a", "b c"], "got 'b c'. To go on with it: folio sample RUN --prompt 'b c'\n"),
        (["sample", "a", "b", "c"], "got b c. To go on with it: folio sample RUN --prompt 'b c'\n"),
        (["export", "--to"], "folio export needs a value for --to. What it takes: folio export"),
        (["explain", "a"], "folio explain needs a value for --text. What it takes: folio explain"),
        (["sample", "nowhere", "--prompt", "- The"], "There is no run"),
        (
            ["evaluate", "a", "--text", "-b", "--adaptive"],
            "--adaptive reads the validation",
        ),
        (["train", "--minutes", "0"], "--minutes must be above 0, got 0"),
        (["resume", "a", "--minutes", "-1"], "--minutes must be above 0, got -1"),
    ],
)
def test_what_was_not_understood_is_told_with_what_to_do(
    folio: Folio, command: list[str], message: str
):
    outcome = folio(*command)
    assert outcome.code == 2 and message in outcome.err and outcome.err.count("\n") == 1
