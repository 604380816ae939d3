"""How the command of a training leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from folio.cli import watching
from folio.cli.watching import leave_with


@pytest.mark.parametrize(
    ("launched", "ending", "expected"),
    [(True, "interrupted", 75), (False, "interrupted", 0), (True, "finished", 0)],
)
def test_an_interrupted_training_tells_its_launcher_to_start_it_again(
    launched: bool, ending: str, expected: int, monkeypatch: pytest.MonkeyPatch
):
    shown: list[Any] = []
    monkeypatch.setattr(watching, "print_result", lambda result, json: shown.append(result))
    if launched:
        monkeypatch.setenv("WORLD_SIZE", "1")
    result, code = cast(Any, SimpleNamespace(ending=ending)), 0
    try:
        leave_with(result, json=False)
    except SystemExit as left:
        code = left.code
    assert code == expected and shown == [result]
