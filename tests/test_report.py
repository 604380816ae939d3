"""Pages stand alone, and show what they were given."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from folio.report import html_page, html_pieces, html_table

VOID = {"meta", "br", "img", "input"}


class Reader(HTMLParser):
    """What a browser would read: the text by tag, and whether each tag is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def test_a_page_is_well_formed_and_has_its_title_as_text():
    read = Reader(html_page("<script>&", "<p>body</p>"))
    assert not read.open
    assert read.text["title"] == read.text["h1"] == ["<script>&"]
    assert read.text["p"] == ["body"] and "script" not in read.text


def test_a_page_loads_nothing_and_knows_light_and_dark():
    page = html_page("x", "")
    policy = next(a["content"] for _, a in Reader(page).attributes if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|@import|url\(", page)
    assert "color-scheme: light dark" in page and "prefers-color-scheme: dark" in page


def test_each_color_of_a_page_is_defined():
    page = html_page("x", "")
    used, defined = (set(re.findall(pattern, page)) for pattern in (r"var\((--\w+)", r"(--\w+):"))
    assert used and used <= defined


def test_a_table_escapes_its_cells_marks_a_row_and_puts_numbers_to_the_right():
    table = html_table(["name", "n"], [["<b>", "1,000"], ["b", "-"], ["c", "3"]], marked=1)
    read = Reader(table)
    assert not read.open and read.text["td"] == ["<b>", "1,000", "b", "-", "c", "3"]
    classes = [a.get("class") for tag, a in read.attributes if tag in ("th", "td")]
    assert classes == [None, "number"] * 4
    rows = [a.get("class") for tag, a in read.attributes if tag == "tr"]
    assert rows == [None, None, "marked", None]
    assert Reader(html_table(["name"], [])).text["th"] == ["name"]


def test_pieces_are_escaped_in_text_and_hint():
    read = Reader(html_pieces([("<a>\n", 'a "hint"'), ("b", "")]))
    assert read.text["span"] == ["<a>\n", "b"]
    assert [a["title"] for tag, a in read.attributes if tag == "span"] == ['a "hint"', ""]
