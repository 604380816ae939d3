"""transformers takes seconds to load: once, in one of pytest's processes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.export import oracles
from tests.export.making import MODERN, export_both

BY_TRANSFORMERS = [
    pytest.mark.usefixtures("loaded"),
    pytest.mark.xdist_group("transformers"),
]
"""Marks of the files of tests that ask it."""


@pytest.fixture(scope="session")
def loaded() -> None:
    with suppress(pytest.skip.Exception):  # the tests that need it say so
        oracles.transformers()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run as a folder of transformers and as a GGUF file, for all tests of a file."""
    return export_both(tmp_path_factory.mktemp("exported"), "f32", **MODERN)


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of that folder, which a test may change."""
    return Path(shutil.copytree(exported / "hf", tmp_path / "hf"))
