"""The page to write on, in a real browser, against the real server."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from folio.run.model import Model
from folio.serving.served import Served
from tests.serving.running import Running, serving
from tests.write.chromium import Browser
from tests.write.test_page import CHOICES, GHOST, HERE, STATUS, TEXT, put_caret, set_slider, written

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough


def test_the_page_writes_with_the_server(browser: Browser, server: Running, tiny: Model):
    page = browser.open(f"{server.url}/?model=tiny")
    set_slider(page, "temperature", 0)
    page.type("The cat")
    # It is told to those who listen, once it stands still.
    page.wait(f"document.getElementById('heard').textContent === 'Suggested: ' + {GHOST}")
    ghost = page.run(GHOST)
    page.key("Tab")
    written(page, f"The cat{ghost}")
    assert tiny.generate("The cat", temperature=0, max_tokens=48).startswith(ghost)
    put_caret(page, 5)
    page.wait(f"{HERE} === 'a' && {CHOICES}.length === 8")
    page.click("#choices li:nth-child(1)")
    page.wait(f"{TEXT}.length === 6 && {TEXT}.startsWith('The c')")
    page.key("Ctrl+z")
    written(page, f"The cat{ghost}")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{STATUS}.includes('Alt+3')")
    assert page.problems() == []
    page.close()


def test_copied_text_is_named_with_its_place(browser: Browser, server: Running, tiny: Model):
    page = browser.open(server.url)
    copied = tiny.tokenizer.decode(tiny.training()[1000:1060])
    page.send("Input.insertText", text=copied)
    page.wait("document.querySelectorAll('#copied li').length === 1")
    assert "book.txt" in page.run("document.querySelector('#copied li').textContent")
    assert page.problems() == []
    page.close()


def test_each_model_has_a_page(server: Running):
    answer = server.ask("/?model=bytes")
    assert "<title>Write with bytes</title>" in answer.data.decode()
    assert '<a href="/?model=tiny">tiny</a>' in answer.data.decode()
    assert server.ask("/?model=none").status == 404


def test_a_server_with_a_key_asks_for_it_once(browser: Browser, served: dict[str, Served]):
    with serving({"tiny": served["tiny"]}, key="sesame") as running:
        page = browser.open(running.url)
        page.type("The cat")
        page.wait("document.getElementById('key') !== null")
        page.click("#key")
        page.type("sesame")
        page.key("Enter")
        page.wait(f"{TEXT} === 'The cat' && {GHOST}.length > 0 && !document.getElementById('key')")
        assert page.run("document.getElementById('status').textContent") == ""
        page.close()


def test_no_script_but_its_own_runs_in_a_page(server: Running):
    answer = server.ask("/?model=bytes")
    (_, rest) = answer.headers["Content-Security-Policy"].split("script-src ")
    allowed = rest.partition(";")[0].split()
    scripts = re.findall("<script>(.*?)</script>", answer.data.decode(), re.DOTALL)
    assert scripts and allowed == [
        f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
