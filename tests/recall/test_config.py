"""How much is measured."""

from __future__ import annotations

import pytest

from folio.errors import UserError
from folio.recall.config import RecallConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 10**20}, "samples must be at most 100,000"),
        ({"length": 10**20}, "length must be at most 10,000"),
        ({"seconds": float("nan")}, "seconds must be above 0"),
    ],
)
def test_a_number_that_means_nothing_is_refused(given: dict[str, float], message: str):
    with pytest.raises(UserError, match=message):
        RecallConfig(**given)  # type: ignore[arg-type]
