"""What a user names for a page or a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.cli.outputs import check_output
from folio.corpus.own import has_page, has_picture
from folio.curves import Series
from folio.errors import UserError
from folio.ladder.steps import STEPS
from folio.pictures import draw_curves
from folio.report import html_page
from folio.run.directory import runs_folder
from tests.cli.conftest import Folio


def test_a_file_of_the_user_is_not_replaced(tmp_path: Path):
    for name, content, is_ours in (
        ("book.txt", "my own", has_page),
        ("mine.html", "<html>my own</html>", has_page),
        ("mine.svg", "<svg>my own</svg>", has_picture),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match="a new file or an earlier result"):
            check_output(tmp_path / name, "--out", is_ours)
    with pytest.raises(UserError, match="must be a file"):
        check_output(tmp_path, "--out", has_page)


def test_an_earlier_result_of_any_name_and_what_is_empty_are_replaced(tmp_path: Path):
    for name in ("page.html", "page"):
        (tmp_path / name).write_text(html_page("Old", "<p>page</p>"))
    series = Series("training", [0, 1], [2.0, 1.0])
    draw_curves(tmp_path / "loss", [series], title="Old", x_label="step", y_label="loss")
    (tmp_path / "empty.txt").touch()
    for name in ("page.html", "page", "empty.txt", "nothing.html"):
        check_output(tmp_path / name, "--out", has_page)
    check_output(tmp_path / "loss", "--out", has_picture)
    check_output(None, "--out", has_page)


def test_a_verb_says_so_before_it_works(folio: Folio, tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("my own")
    outcome = folio("corpus", str(path), "--html", str(path))
    assert outcome.code == 2 and "an earlier result" in outcome.err
    assert path.read_text() == "my own"


def test_a_vocabulary_is_written_over_an_earlier_one_only(folio: Folio, tmp_path: Path):
    (tmp_path / "book.txt").write_text("my own, my own\n" * 99)
    (tmp_path / "package.json").write_text('{"name": "my own"}')
    learn = ("tokenizer", "train", str(tmp_path / "book.txt"), "--vocab-size", "260", "--out")
    assert [folio(*learn, str(tmp_path / "tok")).code for _ in range(2)] == [0, 0]
    assert "an earlier result" in folio(*learn, str(tmp_path / "package.json")).err


@pytest.mark.parametrize(
    ("command", "place", "words"),
    [
        (("evaluate", "mine", "--baselines"), "mine/baselines.json", "character frequencies"),
        (("recall", "mine", "--samples", "2", "--passages", "20"), "mine/recall.html", "passages"),
        (("ladder", "all", "BOOK", "--max-steps", "2"), "ladder.svg", STEPS[6].idea),
    ],
    ids=["evaluate", "recall", "ladder"],
)
def test_what_was_measured_is_shown_where_it_cannot_be_written(
    folio: Folio, book: Path, command: tuple[str, ...], place: str, words: str
):
    if "mine" in command:
        shape = ("--model.n-layers", "1", "--model.d-model", "16", "--model.n-heads", "2")
        steps = ("--training.max-steps", "2", "--tokenizer.kind", "character")
        plain = "--device.fast", "off"
        assert not folio("train", str(book), "--name", "mine", *shape, *steps, *plain).code
    (runs_folder() / place / "in the way").mkdir(parents=True)
    outcome = folio(*(str(book) if word == "BOOK" else word for word in command))
    assert outcome.code == 2 and words in outcome.out and place in outcome.err
