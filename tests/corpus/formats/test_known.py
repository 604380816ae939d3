"""The table of formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import folio
from folio.corpus.formats.known import FORMATS, Format

SOURCES = list(Path(folio.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_a_format_is_a_file_and_an_entry_in_the_table(known: Format):
    module, _, function = known.reader.partition(".")
    assert callable(known.load())
    used = re.compile(rf"\b{module}(?:\.| import [^\n]*\b){function}\b")
    assert {p.name for p in SOURCES if used.search(p.read_text("utf-8"))} == {"known.py"}
