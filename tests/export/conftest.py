"""transformers takes seconds to load: once, in one of pytest's processes."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.export import oracles

BY_TRANSFORMERS = [
    pytest.mark.usefixtures("loaded"),
    pytest.mark.xdist_group("transformers"),
]
"""Marks of the files of tests that ask it."""


@pytest.fixture(scope="session")
def loaded() -> None:
    with suppress(pytest.skip.Exception):  # the tests that need it say so
        oracles.transformers()
