"""What the pages tell a reader to type is what the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import folio
from folio.cli.main import make_app
from folio.cli.overrides import settings_table, split_words
from folio.corpus.builtin import BUILTIN, python_docs
from folio.recipe.presets import SIZES, Size
from tests.conftest import copied, write_book

ROOT = Path(__file__).parents[1]
LOG = "experiments.md"
"""Says what was typed at the time, with flags that may be gone."""
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name != LOG]
TAKE_SETTINGS = {"train", "plan", "tune", "corpus", "tokens", "resume"}


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page, and the words of a line; in blocks, and where prose names a whole command."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "sh") for line in joined(block).splitlines()]
        lines += [
            span
            for span in re.findall(r"`(folio \w+ [^`]+)`", text)
            if "..." not in span and "VERB" not in span
        ]
        for line in lines:
            if words := shlex.split(line, comments=True):
                yield page.relative_to(ROOT).as_posix(), words


def joined(block: str) -> str:
    return block.replace("\\\n", " ")


app = cache(make_app)


def parse(words: list[str]) -> None:
    """Have the command line take apart what follows `folio`; nothing is run."""
    function, bound, _ = app().parse_args(words, exit_on_error=False, print_error=False)
    if words[0] in TAKE_SETTINGS:
        _, flags = split_words(bound.args)
        settings_table(flags)
    assert callable(function)


OURS = [(page, words[1:]) for page, words in commands() if words[0] == "folio"]
MODULES = [(page, words) for page, words in commands() if "-m" in words and words[0] != "python3"]
MADE = [(page, words) for page, words in commands() if words[0] == "make"]


@pytest.mark.parametrize(("page", "words"), OURS, ids=[f"{p}: {shlex.join(w)}" for p, w in OURS])
def test_a_command_on_a_page_is_one_that_folio_takes(page: str, words: list[str]):
    parse(words)
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), f"{page} names {word}"


@pytest.mark.parametrize(
    "words", [["smaple"], ["sample", "--promt", "x"], ["train", "--model.n-layer", "6"]]
)
def test_a_command_that_folio_does_not_take_is_found(words: list[str]):
    with pytest.raises(Exception, match="Did you mean"):
        parse(words)


def test_the_modules_that_are_run_exist():
    assert len(MODULES) > 3
    for page, words in MODULES:
        module, *rest = words[words.index("-m") + 1 :]
        if module == "folio":
            parse(rest)
            continue
        path = ROOT / "src" / module.replace(".", "/")
        path = path if module.startswith("folio") else ROOT / module.replace(".", "/")
        files = (path.with_suffix(".py"), path / "__main__.py")
        assert any(file.is_file() for file in files), f"{page} runs {module}"


def test_the_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(MADE) > 1
    for page, (_, target) in MADE:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page} makes {target}"


def test_the_extras_that_are_installed_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {
        extra
        for page in PAGES
        for extra in re.findall(r"pip install .*?\[(\w+)\]", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 2
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in named)


# ---- Python ------------------------------------------------------------------------------

SNIPPETS = [page for page in PAGES if "import folio" in "".join(blocks(page, "python"))]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, trained once, that pages call `first`."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        shrink(patch)
        return folio.train(write_book(folder), name="first", training={"max_steps": 2}).run.path


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page leaves to the defaults is small here, and of one thread."""
    monkeypatch.setitem(SIZES, "nano", Size(1, 2, 32, 128, 64, 64))
    monkeypatch.setitem(BUILTIN, "python-docs", lambda: islice(python_docs(), 2, None, 12))
    device = {"kind": "cpu", "precision": "float32", "threads": 1, "fast": "off"}
    train = folio.train

    def train_small(*sources: Any, **settings: Any) -> folio.Result:
        training = settings.pop("training", {}) | {"max_steps": 2}
        return train(*sources, device=device, training=training, **settings)

    monkeypatch.setattr(folio, "train", train_small)


@pytest.mark.parametrize("page", SNIPPETS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(
    page: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shrink(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_book(tmp_path)
    copied(first)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        if "->" not in block or "import" in block:  # a signature is not code
            exec(compile(block, str(page), "exec"), names)
    assert "folio" in names
