from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.formats.passage import Notes
from folio.corpus.formats.pdf import read_pdf
from folio.errors import UserError
from tests.corpus.making import paragraph_lines, pdf, pdf_page

TEXT = (
    "Every morning the baker opened the shutters and looked for the grey cat that slept on the "
    "flour sacks, and every morning the cat pretended not to know him until the first loaves came"
)
WORDS = TEXT.split()


def text_of(data: bytes, notes: Notes | None = None) -> str:
    return "".join(passage.text for passage in read_pdf(data, notes or Notes()))


def test_lines_of_a_paragraph_are_joined_and_paragraphs_are_not():
    first = paragraph_lines([*WORDS, "out."], 60, 700, 70)
    second = paragraph_lines(WORDS, 60, first[-1][1] - 28, 70)
    expected = " ".join(WORDS) + " out.\n\n" + " ".join(WORDS) + "\n"
    assert text_of(pdf([pdf_page(first + second)])) == expected


def test_an_indent_begins_a_paragraph():
    first = paragraph_lines([*WORDS, "and", "out", "into", "the", "street"], 60, 700, 75)
    x, y = 72, first[-1][1] - 14
    second = [(x if i == 0 else 60, y - 14 * i, t) for i, (_, _, t) in
              enumerate(paragraph_lines(WORDS, 60, y, 75))]  # fmt: skip
    text = text_of(pdf([pdf_page(first + second)]))
    assert text.count("\n\n") == 1 and "street\n\nEvery" in text


def test_a_word_divided_at_a_line_end_becomes_whole():
    lines = [
        (60, 700, "It was an extraordi-"),
        (60, 686, "nary cat, well-"),
        (60, 672, "known and grey."),
    ]
    known = [(60, 600, "A well-known cat, and extraordinary.")]
    text = text_of(pdf([pdf_page(lines + known)]))
    assert "an extraordinary cat" in text
    assert "well-known and grey" in text  # since the page has that word with its hyphen


def test_running_headers_and_page_numbers_go_and_are_counted():
    pages = []
    for number in range(1, 6):
        body = paragraph_lines([f"p{number}{word}" for word in WORDS], 60, 700, 70)
        frame = [(60, 810, "The Baker and the Cat"), (290, 30, f"Page {number}")]
        pages.append(pdf_page(frame[:1] + body + frame[1:]))
    notes = Notes()
    text = text_of(pdf(pages), notes)
    assert "Baker and" not in text and "Page" not in text
    assert "p1Every" in text and "p5came" in text
    dropped = 5 * len("The Baker and the Cat") + 5 * len("Page 1")
    assert notes.dropped == {"page headers and footers": dropped}


def test_a_line_that_stands_once_in_a_margin_stays():
    pages = [pdf_page([(60, 810, f"{word} alone"), (60, 400, word)]) for word in WORDS[:4]]
    assert all(f"{word} alone" in text_of(pdf(pages)) for word in WORDS[:4])


def test_two_columns_are_read_one_after_the_other_with_what_stands_across():
    upper = [word.upper() for word in WORDS]
    left, right = paragraph_lines(WORDS, 60, 700, 40), paragraph_lines(upper, 320, 700, 30)
    rows = sorted(left + right, key=lambda line: (-line[1], line[0]))  # as a scanner would draw
    title = [(60, 760, "A long title over both of the columns of this page of the book of cats")]
    foot = [(60, 400, "And a closing line that again runs over both of the two columns.")]
    text = text_of(pdf([pdf_page(title + rows + foot)]))
    expected = [title[0][2], " ".join(WORDS), " ".join(upper), foot[0][2]]
    assert text == "\n\n".join(expected) + "\n"


def test_a_table_is_read_row_by_row():
    rows = [
        ("port", "depth", "tide"),
        ("Ullin", "7", "2.5"),
        ("Brannock", "12", "3.1"),
        ("Oe", "3", "1"),
    ]
    lines = [
        (60 + 120 * j, 700 - 14 * i, cell)
        for i, row in enumerate(rows)
        for j, cell in enumerate(row)
    ]
    assert text_of(pdf([pdf_page(lines)])) == "\n".join("\t".join(row) for row in rows) + "\n"


def test_a_sentence_goes_on_over_the_page():
    pages = [
        pdf_page([(60, 400, "The cat went over the")]),
        pdf_page([(60, 700, "roof and away.")]),
    ]
    text = text_of(pdf(pages))
    assert text == "The cat went over the roof and away.\n"


@pytest.mark.parametrize(
    ("above", "below", "text"),
    [
        ("It rained in the moun-", "tains again.", "It rained in the mountains again.\n"),
        ("It rained.", "in winter too.", "It rained.\n\nin winter too.\n"),
        ("It rained in", "London.", "It rained in\n\nLondon.\n"),
    ],
    ids=["a divided word", "after a full stop", "before a capital"],
)
def test_what_ends_a_page_and_what_does_not(above: str, below: str, text: str):
    pages = [pdf_page([(60, 400, line)]) for line in (above, below)]
    assert text_of(pdf(pages)) == text


def test_places_are_the_pages(tmp_path: Path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([pdf_page([(60, 400, "One.")]), pdf_page([(60, 400, "Two.")])]))
    (document,) = read_documents([str(path)], CorpusConfig()).documents
    assert document.text == "One.\n\nTwo.\n"
    assert document.places == ((0, "page 1"), (6, "page 2"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pdf(["q 500 0 0 500 0 0 cm /P Do Q"], picture=True), "no text layer: needs OCR"),
        (pdf([""]), "it has no text"),
        (pdf(["BT ET"], encrypt=True), "encrypted"),
        (b"%PDF-1.4 and then nothing", "damaged"),
    ],
    ids=["scanned", "empty", "encrypted", "damaged"],
)
def test_a_pdf_without_text_says_why(data: bytes, message: str):
    with pytest.raises(UserError, match=message):
        text_of(data)


def test_scanned_pages_between_others_are_named():
    notes = Notes()
    scan = "q 500 0 0 500 0 0 cm /P Do Q"
    text_of(pdf([pdf_page([(60, 400, "One.")]), scan, scan], picture=True), notes)
    assert notes.warnings == ["no text on page 2, 3: needs OCR"]
