"""Pages with an engine of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from folio.write.page import writing_page
from tests.write.chromium import Browser, Page

DOUBLE = (Path(__file__).parent / "double.js").read_text(encoding="utf-8")


Opening = Callable[..., Page]


@pytest.fixture
def opening(browser: Browser, tmp_path: Path) -> Iterator[Opening]:
    """Opens the page; fails at the end if a console had something to say."""
    pages: list[Page] = []

    def opened(name: str = "", **data: Any) -> Page:
        # What is kept in the browser is kept by the name of the run.
        name = name or tmp_path.name
        path = tmp_path / "page.html"
        path.write_text(
            writing_page(name, "A double.", [("parameters", "0")], data, engine=DOUBLE),
            encoding="utf-8",
        )
        pages.append(browser.open(path))
        return pages[-1]

    yield opened
    for page in pages:
        problems = page.problems()
        page.close()
        assert problems == []
