"""The page in a real browser, driven by keys and clicks."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from folio import report
from tests.write.chromium import Page
from tests.write.conftest import Opening

pytestmark = pytest.mark.xdist_group("chromium")  # one browser is enough

TEXT = "document.getElementById('text').value"
GHOST = "document.querySelector('.ghost').textContent"
STATUS = "document.getElementById('status').textContent"
CARET = "document.getElementById('text').selectionStart"
CARDS = "[...document.querySelectorAll('#side button')].map((b) => b.lastChild.textContent)"
ROWS = "[...document.querySelectorAll('#tree li')].map((e) => e.textContent)"
HERE = "document.getElementById('here-title').textContent"
CHOICES = "[...document.querySelectorAll('#choices li code')].map((e) => e.textContent)"


def ghost(page: Page, text: str) -> None:
    page.wait(f"{GHOST} === {json.dumps(text)}")


def written(page: Page, text: str) -> None:
    page.wait(f"{TEXT} === {json.dumps(text)}")


def looked(page: Page) -> None:
    """The model has looked at the whole text."""
    page.wait(f"asked.some((one) => one.kind === 'look' && one.text === {TEXT})")
    page.wait("document.getElementById('choices').getAttribute('aria-busy') === 'false'")


def put_caret(page: Page, at: int) -> None:
    page.run(f"document.getElementById('text').setSelectionRange({at}, {at})")
    page.wait(f"{CARET} === {at}")


def set_slider(page: Page, name: str, value: float) -> None:
    page.run(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = {value};"
        "e.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def test_tab_takes_the_ghost_control_right_a_word_and_escape_puts_it_away(opening: Opening):
    page = opening()
    page.type("A cat")
    ghost(page, " one two three")
    page.key("Ctrl+ArrowRight")
    written(page, "A cat one")
    ghost(page, " two three")  # the rest stays
    page.key("Tab")
    written(page, "A cat one two three")
    ghost(page, " one two three")
    page.key("Escape")
    ghost(page, "")
    assert page.run("document.activeElement.id") == "text"
    page.key("Tab")  # no ghost, so that it goes on to the next field
    page.wait("document.activeElement.id !== 'text'")
    assert page.run(TEXT) == "A cat one two three"


def test_who_types_what_the_ghost_says_keeps_its_rest(opening: Opening):
    page = opening()
    page.type("A")
    ghost(page, " one two three")
    n = page.run("asked.length")
    page.type(" on")
    ghost(page, "e two three")
    looked(page)
    assert page.run(f"asked.slice({n}).filter((one) => one.kind === 'complete').length") == 0


def test_a_choice_rewrites_from_its_place_and_undo_brings_the_rest_back(opening: Opening):
    page = opening()
    page.type("The big cat sat")
    looked(page)
    put_caret(page, 5)
    page.wait(f"{HERE}.startsWith('\u2423big')")
    page.key("Ctrl+ ")
    assert page.run("document.activeElement.id") == "choices"
    page.key("ArrowRight")  # to the next token
    page.wait(f"{HERE}.startsWith('\u2423cat')")
    page.key("ArrowLeft")
    page.wait(f"{HERE}.startsWith('\u2423big')")
    page.key("ArrowDown")
    active = page.run("document.getElementById('choices').getAttribute('aria-activedescendant')")
    assert page.run(f"document.getElementById('{active}').textContent").startswith("\u2423dog")
    page.key("Enter")
    written(page, "The dog")
    assert page.run("document.activeElement.id") == "text"
    ghost(page, " one two three")
    page.key("Ctrl+z")
    written(page, "The big cat sat")
    page.key("Ctrl+Shift+Z")
    written(page, "The dog")
    page.key("Alt+PageDown")  # the other branch
    written(page, "The big cat sat")


def test_alternatives_are_taken_by_a_click_unless_they_are_no_text(opening: Opening):
    page = opening()
    page.type("The big")
    looked(page)
    put_caret(page, 7)
    page.wait(f"{CHOICES}[0] === '\u2423one'")
    page.click("#choices li:nth-child(4)")  # the end of the document
    page.click("#choices li:nth-child(5)")  # a part of a character
    assert page.run(TEXT) == "The big"
    page.click("#choices li:nth-child(2)")
    written(page, "The big dog")


def test_what_is_below_the_choices_stays_where_it_is_when_they_come(opening: Opening):
    """A click on a branch is lost if the branch moves between the press and the release."""
    top = "document.getElementById('tree').getBoundingClientRect().top + scrollY"
    without = opening(milliseconds=60_000).run(top)
    page = opening()
    page.wait(f"{CHOICES}.length === 8")
    assert page.run(top) == without


def test_sliders_reach_the_model_and_a_change_asks_again(opening: Opening):
    page = opening()
    page.type("A")
    ghost(page, " one two three")
    for name, value in (("temperature", 0.3), ("top_p", 0.5), ("min_p", 0.1), ("top_k", 7)):
        set_slider(page, name, value)
    assert page.run("document.querySelector('output[for=temperature]').textContent") == "0.30"
    page.wait("asked[asked.length - 1].settings?.top_k === 7")
    settings: dict[str, Any] = page.run("asked[asked.length - 1].settings")
    expected = {"temperature": 0.3, "top_p": 0.5, "min_p": 0.1, "top_k": 7, "seed": 0, "n": 1}
    assert settings == expected | {"max_tokens": settings["max_tokens"]}


def test_no_character_is_cut_in_two_where_a_part_of_a_long_text_is_looked_at(opening: Opening):
    page = opening()
    page.send("Input.insertText", text="x" + "\U0001f600" * 8000)  # each at an odd place
    for at, begins in ((16_001, "\U0001f600"), (0, "x")):
        put_caret(page, at)
        looks = "asked.filter((one) => one.kind === 'look' && one.text.length > 3000)"
        page.wait(f"{looks}.some((one) => one.text.startsWith('{begins}'))")
    assert page.run("asked.every((one) => one.text.isWellFormed())")


def test_a_request_is_left_when_the_text_changes(opening: Opening):
    page = opening(milliseconds=60_000)
    page.type("A")
    page.wait("asked.filter((one) => one.text === 'A').length === 2")
    page.type("B")
    page.wait("asked.filter((one) => one.text === 'AB').length === 2")
    assert page.run("asked.every((one) => one.left === (one.text !== 'AB'))") is True


def test_continuations_stand_side_by_side_and_the_others_stay_branches(opening: Opening):
    page = opening()
    page.type("A")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{STATUS}.includes('Alt+3')")
    assert page.run(CARDS) == [f" one{i} two{i} three{i}" for i in range(3)]
    assert page.run(TEXT) == "A"
    page.key("Alt+2")
    written(page, "A one1 two1 three1")
    rows = ["A", "one0 two0 three0", "one2 two2 three2", "one1 two1 three1"]
    page.wait(f"{ROWS}.join() === {json.dumps(','.join(rows))}")
    page.click("#tree li:nth-child(2)")
    written(page, "A one0 two0 three0")
    page.key("Ctrl+z")
    page.key("Ctrl+z")
    written(page, "A")


def test_writing_on_can_be_stopped_and_goes_on_from_the_caret(opening: Opening):
    page = opening(following=[" w"] * 1000, milliseconds=5)
    page.type("A cat")
    put_caret(page, 1)
    page.key("Ctrl+Enter")
    page.wait(f"{TEXT}.startsWith('A w w w')")
    page.key("Escape")
    page.wait(f"{STATUS} === 'Stopped.'")
    stopped = page.run(TEXT)
    assert re.fullmatch("A( w)+", stopped)
    page.key("Ctrl+z")
    page.key("Ctrl+z")
    written(page, "A cat")


def test_what_was_written_stays_where_the_page_goes_while_the_model_writes(opening: Opening):
    page = opening(following=[" w"] * 1000, milliseconds=5)
    set_slider(page, "max_tokens", 1000)
    page.type("A")
    page.key("Ctrl+Enter")
    page.wait("Object.values(localStorage).some((one) => one.includes(' w w'))")
    n = page.run(f"{TEXT}.length")
    page.wait(f"{TEXT}.length > {n} + 100")  # later
    seen = page.run(TEXT)
    page.reload()
    page.wait(f"{TEXT}.startsWith({json.dumps(seen)})")


def test_an_error_is_told_and_leaves_nothing_behind(opening: Opening):
    page = opening()
    page.type("It will fail")
    page.wait(f"{STATUS} === 'The server answers 503.'")
    for keys in ("Ctrl+Enter", "Ctrl+Shift+Enter"):
        page.key(keys)
        page.wait(f"{STATUS} === 'The server answers 503.'")
        assert page.run("document.getElementById('write').textContent") == "Write on"
    assert page.run(CARDS) == []
    page.wait(f"{ROWS}.length === 1")
    page.key("Backspace")
    page.wait(f"{STATUS} === ''")


def test_the_tree_is_walked_by_keys(opening: Opening):
    page = opening()
    page.type("A")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{ROWS}.filter((row) => /three\\d$/.test(row)).length === 3")  # they are written
    page.run("document.querySelector('#tree [tabindex=\"0\"]').focus()")
    page.key("ArrowDown")
    page.key("ArrowDown")
    second = page.run("document.activeElement.textContent")
    page.key("Enter")
    page.wait(f"{TEXT}.trim().endsWith({json.dumps(second)})")


def test_a_text_leaves_as_a_file_and_comes_back_with_its_tree(opening: Opening, tmp_path: Path):
    page = opening()
    page.type("The big\ncat")
    looked(page)
    put_caret(page, 4)
    page.wait(f"{HERE} === '\u2423big'")
    page.click("#choices li:nth-child(2)")
    written(page, "The dog")
    set_slider(page, "temperature", 1.5)
    page.click("#as_txt")
    assert page.download(f"{tmp_path.name}.txt") == "The dog"
    page.click("#as_json")
    saved = tmp_path / "saved.json"
    saved.write_text(page.download(f"{tmp_path.name}.json"), encoding="utf-8")
    other = opening(name="another run")
    assert other.run(TEXT) == ""
    other.choose_file("#file", saved)
    written(other, "The dog")
    assert other.run("document.getElementById('temperature').value") == "1.5"
    other.key("Alt+PageDown")
    written(other, "The big\ncat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("null", "not saved by Folio's page"),
        ('{"format": "folio-write", "version": 9}', "has version 9"),
        ('{"format": "folio-write", "version": 1, "nodes": []}', "it has no list of nodes"),
    ],
)
def test_another_file_is_refused_in_a_line(
    opening: Opening, tmp_path: Path, content: str, message: str
):
    page = opening()
    page.type("A")
    (tmp_path / "other.json").write_text(content, encoding="utf-8")
    page.choose_file("#file", tmp_path / "other.json")
    page.wait(f"{STATUS}.includes({json.dumps(message)})")
    assert page.run(TEXT) == "A"


def test_the_text_stays_in_the_browser_for_each_run(opening: Opening):
    page = opening()
    page.type("Kept.")
    set_slider(page, "min_p", 0.2)
    page.wait("Object.values(localStorage).some((one) => /Kept.*0\\.2|0\\.2.*Kept/.test(one))")
    page.reload()
    written(page, "Kept.")
    assert page.run("document.getElementById('min_p').value") == "0.2"
    page.key("Ctrl+z")  # its steps are gone, its tree is not
    written(page, "Kept.")
    assert opening(name="another").run(TEXT) == ""


def test_a_click_on_a_branch_that_is_still_empty_loses_nothing(opening: Opening):
    page = opening(milliseconds=60_000)
    page.type("Kept.")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{ROWS}.length === 4")
    page.click("#tree li:nth-child(2)")
    page.wait(f"{ROWS}.length === 1")
    page.reload()
    written(page, "Kept.")


def test_a_kept_text_that_cannot_be_read_is_never_written_over(opening: Opening, tmp_path: Path):
    page = opening()
    key = f"folio write {tmp_path.name}"
    page.wait(f"localStorage.getItem({json.dumps(key)})")  # the empty one
    page.run(f"localStorage.setItem({json.dumps(key)}, '{{')")
    page.reload()
    page.wait(f"{STATUS}.includes('This browser still keeps it')")
    page.type("New.")
    page.wait("Object.values(localStorage).some((one) => one.includes('New.'))")
    page.reload()
    written(page, "New.")
    assert page.run(f"localStorage.getItem({json.dumps(key)})") == "{"


def test_what_the_model_says_is_never_markup(opening: Opening):
    page = opening(hostile=True)
    n = page.run("document.querySelectorAll('img, script, textarea').length")
    page.type("A copied text")
    page.wait(f"{GHOST}.startsWith('<img')")
    page.wait("document.querySelectorAll('#copied li').length === 1")
    looked(page)
    page.key("Tab")
    page.wait(f"{TEXT}.startsWith('A copied text<img')")
    page.key("Ctrl+Shift+Enter")
    page.wait(f"{STATUS}.includes('Alt+3')")
    page.wait(f"{ROWS}.length > 1")
    page.reload()
    page.wait(f"{TEXT}.startsWith('A copied text<img')")
    page.wait(f"{CHOICES}.some((name) => name.includes('<img'))")
    assert page.run("document.querySelectorAll('img, script, textarea').length") == n
    assert "\\u202e" in page.run(f"{CHOICES}.find((name) => name.includes('<img'))")


def test_the_copy_lies_on_the_text_letter_on_letter(opening: Opening):
    page = opening()
    page.type("Some words that are long enough to need a second line in a narrow field. " * 3)
    page.size(390, 800)
    looked(page)
    page.key("Tab")
    same = page.run(
        "(() => { const field = document.getElementById('text');"
        "const behind = document.getElementById('behind');"
        "return [field.scrollHeight, behind.scrollHeight, field.clientWidth, behind.clientWidth];"
        "})()"
    )
    assert same[0] == same[1] and same[2] == same[3]
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_copied_text_is_named_with_its_source(opening: Opening):
    page = opening()
    page.type("A copied text is here")
    page.wait("document.querySelectorAll('#copied li').length === 1")
    assert page.run("document.querySelector('#copied li').textContent").endswith(
        "copied text book.txt, character 7"
    )
    underlined = "[...document.querySelectorAll('#behind .copied')].map((e) => e.textContent)"
    page.wait(f"{underlined}.join('') === 'copied text'")  # is painted a frame later


def test_colors_grow_with_surprise_and_can_be_turned_off(opening: Opening):
    page = opening()
    page.type("a b c")
    looked(page)
    levels = "[...document.querySelectorAll('#behind > span')].map((e) => e.className)"
    page.wait(f"{levels}.includes('s2')")
    classes = [one for one in page.run(levels) if re.fullmatch(r"s\d", one)]
    assert classes == ["s1", "s2"]
    page.click("#colors")
    page.wait(f"!{levels}.some((name) => /^s\\d/.test(name))")


def test_a_question_mark_outside_of_the_text_shows_the_keys(opening: Opening):
    page = opening()
    page.type("Why?")
    assert page.run(TEXT) == "Why?" and not page.run("document.getElementById('keys').open")
    page.run("document.getElementById('write').focus()")
    page.key("?")
    page.wait("document.getElementById('keys').open")
    page.key("Escape")
    page.wait("!document.getElementById('keys').open")


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Source: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""

    def luminance(color: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def color(code: str) -> tuple[float, ...]:
    return tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_is_read_on_every_color(scheme: int):
    own = (files("folio.write") / "page.css").read_text(encoding="utf-8")
    look = report.html_page("", "")

    def value(name: str) -> tuple[float, ...]:
        return color(re.findall(rf"--{name}: (#\w{{6}})", look)[scheme])

    (warm,) = re.findall(r"--warm: (#\w{6})", own)
    assert contrast(value("faint"), value("ground")) > 4.5  # the ghost
    assert contrast(value("ground"), value("accent")) > 4.5  # the first button
    shares = [int(share) / 100 for share in re.findall(r"var\(--warm\) (\d+)%", own)]
    assert len(shares) == 7 and shares == sorted(shares)
    for share in shares:
        mixed = zip(color(warm), value("ground"))
        assert contrast(value("ink"), tuple(share * a + (1 - share) * b for a, b in mixed)) > 4.5
