"""What a user names for a page or a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.cli.outputs import check_output
from folio.errors import UserError
from folio.report import html_page
from tests.cli.conftest import Folio


def test_a_file_of_the_user_is_not_replaced(tmp_path: Path):
    for name, content, suffix in (
        ("book.txt", "my own", ".html"),
        ("mine.html", "<html>my own</html>", ".html"),
        ("mine.html", "<html>my own</html>", ".svg"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match="would be replaced"):
            check_output(tmp_path / name, "--out", suffix)
    with pytest.raises(UserError, match="must be a file"):
        check_output(tmp_path, "--out", ".html")


def test_a_page_of_folio_and_what_is_empty_are_replaced(tmp_path: Path):
    (tmp_path / "page.html").write_text(html_page("Old", "<p>page</p>"))
    (tmp_path / "empty.txt").touch()
    for name in ("page.html", "empty.txt", "nothing.html"):
        check_output(tmp_path / name, "--out", ".html")
    check_output(None, "--out", ".html")


def test_a_verb_says_so_before_it_works(folio: Folio, tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("my own")
    outcome = folio("corpus", str(path), "--html", str(path))
    assert outcome.code == 2 and "would be replaced" in outcome.err
    assert path.read_text() == "my own"
    assert folio("sample", "--samples", "9" * 20).err.count("must be 1 to 1,000,000") == 1
