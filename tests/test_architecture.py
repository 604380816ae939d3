"""ARCHITECTURE.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_layers import ROOMS, SOURCE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_order_of_the_rooms_is_the_one_that_is_enforced():
    (block,) = re.findall(r"```\n(errors .*?)\n```", PAGE, re.DOTALL)
    assert re.findall(r"\w+", block.partition(":")[0]) == ROOMS


def test_every_room_is_on_the_map():
    first_screen = PAGE[: PAGE.index("## How to change it")]
    for room in [room for room in ROOMS if room != "testing"]:
        assert re.search(rf"`{room}/?`|single files.*{room}", first_screen, re.IGNORECASE), room


def test_every_file_that_is_named_exists():
    prose = PAGE[PAGE.index("## How to change it") :]
    named = re.findall(r"`((?:[\w]+/)+[\w.]*)`", prose)
    assert len(named) > 40
    for name in named:
        assert (SOURCE / name).exists() or (ROOT / name).exists(), name


def test_the_map_says_which_file_of_a_room_to_read_first():
    rows = re.findall(r"^\| (`\w+/`.*?) \| .*? \| (.*?) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for rooms, files in rows:
        folders = [SOURCE / room for room in re.findall(r"`(\w+)/`", rooms)]
        for file in re.findall(r"`([\w./]+)`", files):
            assert any((folder / file).is_file() for folder in folders), file


def test_the_model_is_read_in_the_files_that_are_named():
    (n, names, more) = re.findall(r"\| (\d+) files of `model/`: (.*?); .* (\d+) more", PAGE)[0]
    files = {path.stem for path in (SOURCE / "model").glob("[!_]*.py")}
    formulas = set(names.split(", "))
    assert len(formulas) == int(n) and formulas < files
    assert files - formulas == {"config", "dropout", "kv_cache"} and int(more) == 3


def test_it_is_read_in_ten_minutes():
    words = PAGE[: PAGE.index("## How the fast step works")].split()
    assert len(words) < 10 * 200


def test_the_index_of_experiments_leads_to_every_entry_once():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## (\d{4}-.*)$", text, re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", entry.lower()).replace(" ", "-") for entry in entries]
    index = text[: text.index("## Machines")]
    assert sorted(re.findall(r"\]\(#([^)]+)\)", index)) == sorted(anchors)


def test_each_outcome_in_the_index_of_experiments_has_at_most_twelve_words():
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    index = text[: text.index("## Machines")]
    outcomes = re.findall(r"^\| \d\d-\d\d \| .* \| (.*) \|$", index, re.MULTILINE)
    assert len(outcomes) > 100
    for outcome in outcomes:
        assert len(re.findall(r"\S*\w\S*", outcome)) <= 12, outcome
