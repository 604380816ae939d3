"""Keys of many systems, and input methods, in a real browser."""

from __future__ import annotations

import re

import pytest

from tests.write.conftest import Opening
from tests.write.test_page import CARDS, STATUS, TEXT, ghost, written

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough


def test_letters_that_are_being_composed_stay_while_the_model_writes(opening: Opening):
    page = opening(following=[" w"] * 1000, milliseconds=5)
    page.type("A")
    page.key("Ctrl+Enter")
    page.wait(f"{TEXT}.startsWith('A w w')")
    page.send("Input.imeSetComposition", text="ni", selectionStart=2, selectionEnd=2)
    stopped = page.run(TEXT)
    assert re.fullmatch("A( w)+ni", stopped)
    page.wait("document.getElementById('write').textContent === 'Write on'")
    assert page.run(TEXT) == stopped
    page.send("Input.insertText", text="\u4f60")
    written(page, stopped.replace("ni", "\u4f60"))


def test_no_ghost_stands_behind_letters_that_are_being_composed(opening: Opening):
    page = opening()
    page.type("A")
    ghost(page, " one two three")
    page.send("Input.imeSetComposition", text=" o", selectionStart=2, selectionEnd=2)
    written(page, "A o")
    ghost(page, "")
    page.send("Input.insertText", text=" o")
    ghost(page, "ne two three")


def test_escape_stops_the_model_from_the_button_that_started_it(opening: Opening):
    page = opening(following=[" w"] * 1000, milliseconds=5)
    page.type("A")
    page.click("#write")
    page.wait(f"{TEXT}.startsWith('A w')")
    assert page.run("document.activeElement.id") == "write"
    page.key("Escape")
    page.wait(f"{STATUS} === 'Stopped.'")


def test_keys_are_heard_as_a_mac_and_caps_lock_say_them(opening: Opening):
    page = opening()
    page.type("A")
    page.key("Ctrl+Z")
    written(page, "")
    page.key("Meta+Shift+z")
    written(page, "A")


def test_a_character_that_altgr_writes_takes_no_continuation(opening: Opening):
    page = opening()
    page.type("A")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{CARDS}.length === 3 && {STATUS}.includes('Alt+3')")
    page.key("Ctrl+Alt+2")
    assert page.run(TEXT) == "A"
    page.key("Alt+2")
    written(page, "A one1 two1 three1")
