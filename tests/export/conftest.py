"""transformers takes seconds to load: once, before the first test that asks it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.export import oracles


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small files, none of which has to outlive the machine."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture(scope="session", autouse=True)
def loaded(request: pytest.FixtureRequest) -> None:
    users = ("test_hf.py", "test_importing.py", "test_presets.py")
    if any(item.path.name in users for item in request.session.items):
        with suppress(pytest.skip.Exception):  # the tests that need it say so
            oracles.transformers()
