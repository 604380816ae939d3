"""Pages can be used by everyone: axe finds nothing, and keys reach what a mouse does."""

from __future__ import annotations

from pathlib import Path

import pytest

import folio
from folio.explain import page as explain
from folio.ladder.page import write_page
from folio.ladder.sizes import Sizes
from folio.ladder.steps import STEPS, build_model
from folio.ladder.training import Evaluation, LadderResult
from folio.recall.config import RecallConfig
from folio.recall.measure import measure_recall
from folio.recall.page import write_report
from folio.report import html_page, html_pieces, html_table
from folio.run.comparison import validation_series, write_comparison
from folio.run.directory import Run
from tests.axe import complaints, scrolled
from tests.conftest import write_book
from tests.write.chromium import Browser

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough

VIEWS = [("light", 1280), ("dark", 390)]
WORDS = ["run", "text", "parameters", "steps", "time", "validation", "state", "in more words"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind that has no test of its own in a browser."""
    folder = tmp_path_factory.mktemp("pages")
    made = {kind: folder / f"{kind}.html" for kind in ("report", "compare", "ladder", "explain")}
    pieces, table = html_pieces([("a", "1")] * 9), html_table(WORDS, [WORDS])
    made["report"].write_text(html_page("Report", pieces + table), encoding="utf-8")
    sizes = Sizes(vocab_size=20)
    losses = [Evaluation(1, 3.0, 3.1), Evaluation(2, 2.0, 2.2)]
    results = [LadderResult(s, 1, build_model(s, sizes), sizes, 1.0, losses) for s in STEPS]
    write_page(made["ladder"], results, "a book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder / "runs"))
        run = trained(folder)
    series = validation_series([run, run], [run.events()] * 2)
    write_comparison(made["compare"], series, (WORDS, [WORDS]), ["They are the same"])
    opened = folio.load(run.path)
    write_report(run, measure_recall(opened, RecallConfig(samples=2, passages=20, length=20)))
    explain.write_page(opened, "The 3th line", made["explain"])
    return made | {"training": run.training_page, "recall": run.recall_page}


def trained(folder: Path) -> Run:
    """A run that kept a page."""
    return folio.train(
        write_book(folder),
        preset="gpt2",
        model={"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
        training={"batch_size": 4, "max_steps": 4, "evaluation_interval": 2, "page": True},
        device={"kind": "cpu", "precision": "float32", "threads": 1},
    ).run


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
@pytest.mark.parametrize("kind", ["report", "compare", "training", "ladder", "recall", "explain"])
def test_axe_has_nothing_to_say(
    browser: Browser, pages: dict[str, Path], kind: str, scheme: str, width: int
):
    page = browser.open(pages[kind], width)
    page.media(prefers_color_scheme=scheme)
    assert complaints(page) == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.problems() == []
    page.close()


def test_axe_sees_a_faint_word_on_a_mixed_color(browser: Browser, tmp_path: Path):
    ground = "background: color-mix(in srgb, #ffffff 50%, #eeeeee)"
    words = f'<p style="{ground}; color: #c8c8c8">Can this be read?</p>'
    (tmp_path / "faint.html").write_text(html_page("Faint", words), encoding="utf-8")
    page = browser.open(tmp_path / "faint.html")
    (told,) = complaints(page)
    assert told.startswith("color-contrast")
    page.close()


@pytest.mark.parametrize(
    ("kind", "scrolls"),
    [
        ("report", True),
        ("compare", True),
        ("ladder", True),
        ("recall", True),
        ("training", False),
        ("explain", False),
    ],
)
def test_keys_reach_whatever_scrolls(
    browser: Browser, pages: dict[str, Path], kind: str, scrolls: bool
):
    page = browser.open(pages[kind], 200)
    parts = scrolled(page)
    assert [part for part, reached in parts if not reached] == []
    assert bool(parts) == scrolls
    page.close()


def test_keys_scroll_a_table_that_is_wider_than_the_page(browser: Browser, tmp_path: Path):
    table = html_table(WORDS, [["a", "b", "c", "d", "e", "f", "g", "h"]])
    (tmp_path / "wide.html").write_text(html_page("Wide", table), encoding="utf-8")
    page = browser.open(tmp_path / "wide.html", 200)
    page.key("Tab")
    assert page.run("document.activeElement.className") == "wide"
    assert page.run("document.activeElement.tabIndex") == 0  # else not in every browser
    page.key("ArrowRight")
    page.wait("document.activeElement.scrollLeft > 0")
    page.close()
