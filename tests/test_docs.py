"""The documentation site: it builds without a network, and whatever a user can name is there."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import folio
from folio.cli.main import VERBS
from folio.config import settings
from folio.recipe.recipe import Recipe
from scripts.docs import errors, links, markdown, names, pages, run_files, verbs
from scripts.docs.__main__ import build
from scripts.docs.settings import default
from tests.axe import complaints, scrolled
from tests.test_api import EXPORTED
from tests.write.chromium import Browser

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough, and one site

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once; MkDocs ends at a page without a place, and at a link to none."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("build")
    assert build(folder) == []
    return folder / "site"


def anchors(site: Path, page: str) -> set[str]:
    return links.page_of(site / "reference" / f"{page}.html").anchors


def test_the_pages_and_the_help_use_the_words_of_the_field():
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    pages += (ROOT / "recipes").glob("*.toml")
    pages += (ROOT / "src" / "folio" / "cli").glob("*.py")
    wrong = re.compile(
        r"mean surprise|surprise, attention|colour|\b(?:is|are) told\b|penalty on certainty"
        r"|share\s+of\s+(?:the|every|a|each)\s+batch"
    )
    for path in pages:
        if path.name != "experiments.md":  # its entries are kept as they were written
            found = wrong.findall(path.read_text(encoding="utf-8"))
            assert not found, (path.relative_to(ROOT).as_posix(), found)


def test_every_verb_and_flag_has_a_place(site: Path):
    there = anchors(site, "verbs")
    commands = dict(verbs.commands())
    assert set(VERBS) <= set(commands) and "tokenizer train" in commands
    for name, command in commands.items():
        assert verbs.place(name) in there
        for argument in verbs.arguments(command):
            assert verbs.place(name, argument) in there, (name, argument.name)
            assert argument.parameter.help, f"{argument.name} of folio {name} is not explained"


def test_every_setting_has_a_place_and_is_explained(site: Path):
    there = anchors(site, "settings")
    known = list(settings(Recipe))
    assert len(known) > 80
    for setting in known:
        assert setting.name in there, setting.name
        assert setting.explanation, f"{setting.name} has no string below it"


def test_every_public_name_and_method_has_a_place(site: Path):
    there = anchors(site, "python")
    for name in folio.__all__:
        assert f"folio.{name}" in there
        assert {f"folio.{name}.{method}" for method in EXPORTED[name]} <= there


def test_every_file_of_a_run_has_a_place(site: Path, book: Path):
    there = anchors(site, "run-directory")
    assert set(run_files.known()) <= there
    tiny = {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16}
    training = {"batch_size": 4, "max_steps": 2}
    device = {"kind": "cpu", "precision": "float32", "threads": 1}
    run = folio.train(book, preset="gpt2", model=tiny, training=training, device=device).run
    made = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    inside = re.compile(r"^(checkpoints|export)/.*")
    tokens = re.compile(r"^tokens/(?:validation|test|elsewhere|kept|old)(\.mask)?\.bin$")
    for path in made:
        assert tokens.sub(r"tokens/train\1.bin", inside.sub(r"\1/", path)) in there, path


def test_every_variable_that_folio_reads_has_a_place(site: Path):
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    named = set(re.findall(r"FOLIO_[A-Z_]+", "".join(sources)))
    assert "FOLIO_CACHE" in named and named <= anchors(site, "environment")


def test_every_folder_of_the_cache_is_on_the_page_that_says_what_stays_there():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    folders = set(re.findall(r'cache_folder\(\) / "(\w+)"', "".join(sources)))
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    holding_text = {"tokens", "extracted", "members", "stdin", "novel"}
    others = {"corpora", "gpt2", "imported", "kernels", "checks"}  # downloads, models, the machine
    assert folders == holding_text | others
    assert all(f"`{name}`" in page for name in holding_text)


def test_every_room_with_errors_has_a_place_and_the_usual_ones_exist(site: Path):
    rooms = errors.by_room()
    assert len(rooms) > 15 and set(rooms) <= anchors(site, "errors")
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    usual = re.findall(r"^`(.+)`\n:   ", page, re.MULTILINE)
    assert len(usual) > 5
    assert set(usual) <= {message for messages in rooms.values() for message in messages}


@pytest.mark.parametrize("module", [errors, markdown, pages, run_files, verbs])
def test_the_examples_in_the_generator_hold(module: ModuleType):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_a_link_to_nowhere_is_found(tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1> <a href="#top">ok</a> <a href="#below">no</a> <a href="b.html">no</a>'
        '<script src="https://example.org/x.js"></script> <img src="x.png">',
        encoding="utf-8",
    )
    (tmp_path / "x.png").write_bytes(b"")
    assert links.complaints(tmp_path) == [
        "a.html: a picture without words, x.png",
        "a.html loads https://example.org/x.js from elsewhere",
        "a.html links to #below, where there is no such place",
        "a.html links to b.html, which is not there",
    ]


def test_a_link_leads_to_the_same_file_on_the_site_as_on_the_disk():
    linked: set[Path] = set()
    text = "[a](../src/folio/jit.py) [b](ladder.md#x) `[c](d)`\n```\n[e](f)\n```\n[g](https://h.i)"
    found = pages.relinked(text, ROOT / "docs" / "scale.md", linked)
    assert found == text.replace("../src/folio/jit.py", "source/src/folio/jit.py.md")
    assert linked == {ROOT / "src" / "folio" / "jit.py", ROOT / "docs" / "ladder.md"}
    with pytest.raises(pages.BrokenLinkError, match=r"docs/scale\.md links to no\.md"):
        pages.relinked("[a](no.md)", ROOT / "docs" / "scale.md", linked)


def test_a_default_says_what_decides_it():
    small, usual = Recipe.of(size="small").model.n_layers, Recipe.of().model.n_layers
    shown = default("model.n_layers")
    assert shown.startswith(f"`{usual}` (") and f"small `{small}`" in shown
    assert default("seed") == "`1`"


def test_an_inherited_method_is_documented_where_it_is_used():
    assert {"generate", "evaluate"} <= {name for name, _ in names.members(folio.Model)}


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        ("index", "default", 390),
        ("guides/own-text", "slate", 1280),
        ("ladder", "default", 1280),
        ("reference/errors", "slate", 390),
    ],
)
def test_axe_has_nothing_to_say(site: Path, browser: Browser, name: str, scheme: str, width: int):
    page = browser.open(site / f"{name}.html", width)
    page.media(prefers_reduced_motion="reduce")
    page.run(f"document.body.dataset.mdColorScheme = '{scheme}'")
    page.wait("!!document.querySelector('.md-search[aria-label]')")
    assert complaints(page) == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    style = "getComputedStyle(document.querySelector('.md-search'))"
    assert page.run(f"{style}.transitionDuration") == "0s"
    page.close()


def test_keys_reach_whatever_scrolls(site: Path, browser: Browser):
    page = browser.open(site / "ladder.html", 390)
    page.wait("!!document.querySelector('.md-search[aria-label]')")
    parts = scrolled(page)
    assert [part for part, reached in parts if not reached] == []
    assert {re.split(r"\W", part)[1] for part, _ in parts} >= {"div", "p"}  # a table, a picture
    page.close()


def luminance(color: str) -> float:
    """Of #rrggbb, as https://www.w3.org/TR/WCAG21/#dfn-relative-luminance defines it."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize(("scheme", "ground"), [("default", "#f5f5f5"), ("slate", "#272f34")])
def test_every_color_of_text_can_be_read_on_its_ground(scheme: str, ground: str):
    """At least 4.5 : 1, on the ground of code, which is the nearest to the text in both schemes."""
    style = (ROOT / "docs" / "style.css").read_text(encoding="utf-8")
    (block,) = re.findall(rf'\[data-md-color-scheme="{scheme}"\] {{(.*?)}}', style, re.DOTALL)
    colors = dict(re.findall(r"(--md-[\w-]+): (#\w{6});", block))
    assert len(colors) >= 2
    for name, color in colors.items():
        dark, bright = sorted([luminance(color), luminance(ground)])
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, name
