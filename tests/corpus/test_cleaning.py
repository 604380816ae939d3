from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus import cleaning
from folio.corpus.cleaning import CleaningConfig, Tally, clean, find_boilerplate
from folio.corpus.corpus import CorpusConfig, read_corpus, read_documents
from tests.corpus.making import docx, docx_paragraph, write

TEXT = st.text(
    st.one_of(
        st.sampled_from("ab \n\n\t\r\u00a0\u2028e\u0301\u00e9\u200b\ufeff\u0007\u0085世🦊"),
        st.characters(exclude_categories=["Cs"]),
    )
)
CONFIGS = st.builds(
    CleaningConfig,
    unicode=st.booleans(),
    control_characters=st.booleans(),
    whitespace=st.booleans(),
    boilerplate=st.booleans(),
)


def cleaned(text: str, size: int = 10**6, tally: Tally | None = None, **steps: Any) -> str:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return "".join(clean(pieces, CleaningConfig(**steps), tally=tally, source="a"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cafe\u0301", "café"),
        ("a\u200bb\ufeff\u0007\u202ec", "abc"),
        ("a \t\nb\u00a0c\u2003d", "a\nb c d\n"),
        ("a\r\nb\rc\u2028d\u0085e", "a\nb\nc\nd\ne\n"),
        ("\n\na\n\n\n\n\nb\n\n\n", "a\n\nb\n"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("    indented\n\tcode", "    indented\n\tcode\n"),
    ],
)
def test_what_each_step_does(before: str, after: str):
    assert cleaned(before).rstrip("\n") == after.rstrip("\n")


@given(TEXT, st.integers(1, 8))
def test_the_pieces_do_not_matter(text: str, size: int):
    assert cleaned(text, size) == cleaned(text)


@given(TEXT)
def test_cleaning_twice_changes_nothing(text: str):
    assert cleaned(cleaned(text)) == cleaned(text)


@given(TEXT)
def test_no_step_touches_a_letter(text: str):
    def letters(text: str) -> str:
        return unicodedata.normalize("NFC", "".join(filter(str.isalnum, text)))

    assert letters(cleaned(text, unicode=False)) == letters(text)


@given(TEXT)
def test_without_steps_the_text_stays(text: str):
    off = dict.fromkeys(("unicode", "control_characters", "whitespace", "boilerplate"), False)
    assert cleaned(text, **off) == text


@given(st.lists(TEXT, min_size=1, max_size=4), CONFIGS)
def test_bytes_in_are_bytes_kept_dropped_and_rewritten(texts: list[str], config: CleaningConfig):
    tally = Tally()
    kept = 0
    for text in texts:
        out = "".join(clean([text], config, frozenset({0, 2}), tally))
        kept += len(out.encode())
    expected = sum(len(text.encode()) for text in texts)
    assert kept + tally.dropped.total() + sum(tally.rewritten.values()) == expected


@given(st.lists(st.text("ab \n\u200b", min_size=1), min_size=1, max_size=5))
def test_places_move_with_the_text(passages: list[str]):
    """Each passage begins with a letter of its own, which must stand where its place says."""
    marked = [f"{chr(0x4E00 + i)}{text}" for i, text in enumerate(passages)]
    places = [sum(map(len, marked[:i])) for i in range(len(marked))]
    moved: list[int] = []
    text = "".join(clean(["".join(marked)], CleaningConfig(), places=places, moved=moved))
    assert [text[at] for at in moved] == [chr(0x4E00 + i) for i in range(len(marked))]


def test_lines_that_come_back_in_many_files_are_dropped_with_examples(tmp_path: Path):
    for i in range(6):
        body = f"<p>Menu: home, about, contact</p><p>Page {i} tells of {i * 7} things.</p>"
        write(tmp_path, f"{i}.html", body + "<p>© The Baker 1999</p>")
    reading = read_documents([str(tmp_path)], CorpusConfig())
    assert all(
        d.text == f"Page {i} tells of {i * 7} things.\n" for i, d in enumerate(reading.documents)
    )
    assert set(reading.tally.examples["boilerplate"]) == {
        "Menu: home, about, contact", "© The Baker 1999"
    }  # fmt: skip
    assert reading.tally.changes["boilerplate"] == 12
    lines = len(b"Menu: home, about, contact\n") + len("© The Baker 1999\n".encode())
    assert reading.tally.dropped["boilerplate"] == 6 * lines


def test_letters_keep_their_salutations_and_signatures(tmp_path: Path):
    letters = [f"Dear Tom,\n\nIt is day {i} at sea.\n\nYours,\nAnna\n" for i in range(8)]
    box = "".join(f"From a@b Mon Jan  1 12:00:00 2024\nSubject: x\n\n{s}\n" for s in letters)
    write(tmp_path, "letters.mbox", box)
    for i, letter in enumerate(letters):
        write(tmp_path, f"{i}.eml", f"Subject: x\n\n{letter}")
        paragraphs = "".join(map(docx_paragraph, letter.split("\n")))
        write(tmp_path, f"{i}.docx", docx(paragraphs))
    for apply_to in ("extracted", "all"):
        config = CorpusConfig(cleaning=CleaningConfig(apply_to=apply_to))
        reading = read_documents([str(tmp_path)], config)
        assert sorted(d.text.split() for d in reading.documents) == sorted(
            letter.split() for letter in letters for _ in range(3)
        )


def test_which_files_are_looked_through_for_boilerplate_does_not_depend_on_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cleaning, "BOILERPLATE_SAMPLE", 6)
    monkeypatch.setattr(cleaning, "BOILERPLATE_FILES", 3)
    texts = [f"{'The menu.' if i < 10 else f'Dish {i}.'}\nPage {i}.\n" for i in range(20)]
    config = CorpusConfig(cleaning=CleaningConfig(apply_to="all"))
    counts = set()
    for order in (texts, texts[::-1]):
        for i, text in enumerate(order):
            write(tmp_path, f"{i:02d}.txt", text)
        counts.add(read_documents([str(tmp_path)], config).tally.changes["boilerplate"])
    assert len(counts) == 1


def test_a_line_in_few_files_is_no_boilerplate():
    texts = [f"The same line\nand number {i}" for i in range(4)]
    assert not recurring(texts)
    many = [f"number {i}" for i in range(20)] + texts
    assert not recurring(many)


def recurring(texts: list[str]) -> set[str]:
    documents = [(str(i), lambda t=t: iter([t])) for i, t in enumerate(texts)]
    return {line for _, line in find_boilerplate(documents, CleaningConfig())}


def test_lines_that_recur_at_different_places_are_no_boilerplate():
    """As in dialogue and code."""
    novels = [
        f"Novel {i}\n" + f"Said {i}.\n" * i + "Yes.\nNo.\n" + f"Then {i}.\n" * i for i in range(9)
    ]
    assert not recurring(novels)
    tutorials = [f"Part {i}\n" + "".join(f"a{j}{i}\nelse:\n" for j in range(5)) for i in range(9)]
    assert not recurring(tutorials)
    menus = [f"Page {i}\nHome\n" + f"Text {i}.\n" * i + "The end" for i in range(9)]
    assert recurring(menus) == {"Home", "The end"}


def test_boilerplate_is_compared_as_it_is_cleaned():
    ways = ("Caf\u00e9", "Cafe\u0301", "Ca\u00adf\u00e9", "Caf\u00e9\u200b", "\ufeffCaf\u00e9")
    assert recurring([f"Page {i}\n{way}" for i, way in enumerate(ways)]) == {"Café"}


def test_plain_text_stays_as_it_lies_there_unless_all_is_to_be_cleaned(tmp_path: Path):
    write(tmp_path, "a.txt", "cafe\u0301 \r\n\n\n\nend")
    source = str(tmp_path / "a.txt")
    (document,) = read_documents([source], CorpusConfig()).documents
    assert document.text == "cafe\u0301 \r\n\n\n\nend"
    everything = CleaningConfig(apply_to="all")
    reading = read_documents([source], CorpusConfig(cleaning=everything))
    assert reading.documents[0].text == "café\n\nend"
    assert reading.tally.changes.keys() == {"unicode", "whitespace"}
    assert reading.tally.rewritten == {"unicode": 1, "whitespace": 4}
    assert all(example.startswith(source) for example in reading.tally.examples["unicode"])


def test_the_ledger_of_a_corpus_adds_up_in_bytes(tmp_path: Path):
    for i in range(12):
        body = f"<nav>Home</nav><p>Legal notice</p><p>Page {i}: {'wörds ' * (i + 20)}\u200b</p>"
        write(tmp_path, f"{i}.html", body)
    write(tmp_path, "copy.txt", "Some text. " * 30)
    write(tmp_path, "copy2.txt", "Some text. " * 30)
    config = CorpusConfig(sources=(str(tmp_path),), split="tail")
    ledger = read_corpus(config).record()["ledger_bytes"]
    assert ledger["dropped"].keys() == {"navigation", "boilerplate", "copy of another document"}
    assert ledger["dropped"]["navigation"] == 12 * len("Home")
    assert ledger["dropped"]["copy of another document"] == 330
    assert ledger["rewritten"]["control characters"] == 12 * len("\u200b".encode())
    total = sum(sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten"))
    assert ledger["in"] == total


def test_many_spaces_within_a_line_take_no_longer_than_as_many_letters(tmp_path: Path):
    spaces = " " * 1_000_000  # hours, if each were looked at from each other one
    write(tmp_path, "a.txt", f"begin{spaces}end  \nnext")
    config = CorpusConfig(cleaning=CleaningConfig(apply_to="all"))
    (document,) = read_documents([str(tmp_path / "a.txt")], config).documents
    assert document.text == f"begin{spaces}end\nnext"
