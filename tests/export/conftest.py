"""transformers takes seconds to load: once, before the first test that asks it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.export import oracles


@pytest.fixture(scope="session", autouse=True)
def loaded(request: pytest.FixtureRequest) -> None:
    if any(item.path.name in ("test_hf.py", "test_importing.py") for item in request.session.items):
        with suppress(pytest.skip.Exception):  # the tests that need it say so
            oracles.transformers()
