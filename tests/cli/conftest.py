"""The command, called as its users call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from folio.cli.main import main


class Outcome(NamedTuple):
    """What a command leaves: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Folio = Callable[..., Outcome]
"""Arguments of the command line -> what came of them."""


def caller(capfd: pytest.CaptureFixture[str], *verb: str) -> Folio:
    def run(*arguments: str) -> Outcome:
        code = 0
        try:
            main([*verb, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def folio(capfd: pytest.CaptureFixture[str]) -> Folio:
    return caller(capfd)
