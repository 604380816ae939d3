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
