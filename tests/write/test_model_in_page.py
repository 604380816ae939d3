"""The page with a model in it, opened from disk as its reader does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from folio.export import page
from folio.export.targets import export_run
from folio.run.model import Model
from tests.export.making import MODERN, random_run, random_run_beside_ngrams
from tests.export.test_page import greedy
from tests.write.chromium import Browser
from tests.write.test_page import GHOST, HERE, set_slider, written

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("character", random_run),
        ("bpe-gpt2", random_run),
        ("bpe-gpt2", random_run_beside_ngrams),
    ],
)
def test_the_ghost_is_the_text_of_folio(
    browser: Browser, name: str, made: Callable[..., Model], tmp_path: Path
):
    opened = made(tmp_path, name, name=f"{made.__name__}-{name}", **MODERN)
    path, _, _ = export_run(opened, "html", out=tmp_path / "page.html")
    assert "default-src 'none'" in path.read_text(encoding="utf-8")
    model = page.read_page_file(path).model()
    prompt = "The cat"
    ids = opened.tokenizer.encode(prompt).tolist()
    more = opened.tokenizer.decode(greedy(model, opened, ids, 48), skip_special=True)
    shown = browser.open(path)
    set_slider(shown, "temperature", 0)
    shown.type(prompt)
    # It is told to those who listen, once it stands still.
    shown.wait(f"document.getElementById('heard').textContent === 'Suggested: ' + {GHOST}")
    shown.wait(f"{HERE} === 'Next'")
    ghost = shown.run(GHOST)
    assert len(ghost) > 10 and more.startswith(ghost)
    shown.key("Tab")
    written(shown, prompt + ghost)
    shown.run("document.getElementById('text').setSelectionRange(5, 5)")
    about = "document.getElementById('here-about').textContent"
    shown.wait(f"/stands here: .* %, .* nats/.test({about})")
    assert shown.problems() == []
    shown.close()
