"""Subtitles, workbooks, presentations, and files that are compressed."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.feather
import pytest
import zstandard

from folio.corpus.corpus import CorpusConfig, read_corpus
from folio.errors import UserError
from tests.corpus.making import PACKERS, write, zip_of


def read(path: Path) -> list[str]:
    """The texts of a file, whose bytes are all accounted for."""
    corpus = read_corpus(CorpusConfig(sources=(str(path),)))
    ledger = corpus.record()["ledger_bytes"]
    parts = sum(sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten"))
    assert ledger["in"] == path.stat().st_size == parts
    return [document.text for document in corpus.documents]


SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>The boat left</i>\r\nat dawn.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n- Who?\r\n- Nobody\r\n\r\n"
    "3\r\n00:00:05,000 --> 00:00:06,000\r\nat all.\r\n"
)


def test_subtitles_give_sentences_without_times(tmp_path: Path):
    assert read(write(tmp_path, "a.srt", SRT)) == [
        "The boat left at dawn.\n- Who?\n- Nobody at all.\n"
    ]
    vtt = "WEBVTT\n\nNOTE mine\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>It &amp; rains.\n"
    assert read(write(tmp_path, "a.vtt", vtt)) == ["It & rains.\n"]


ALPHA = (
    "[Script Info]\nTitle: x\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, "
    "MarginV, Effect, Text\nComment: 0,0:00:00.00,0:00:01.00,A,,0,0,0,,not said\n"
    "Dialogue: 0,0:00:01.00,0:00:02.00,A,,0,0,0,,{\\i1}The boat left{\\i0}\\Nat dawn, they say.\n"
    "Dialogue: 0,0:00:02.00,0:00:03.00,A,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}\n"
)


@pytest.mark.parametrize("name", ["a.ass", "a.srt"])
def test_other_subtitles_are_read_whatever_they_are_named(tmp_path: Path, name: str):
    said = ["The boat left at dawn, they say.\n"]
    assert read(write(tmp_path, name, ALPHA)) == said
    assert read(write(tmp_path, name, "{1}{25}{y:i}The boat left|at dawn, they say.\n")) == said
    sbv = "0:00:01.000,0:00:02.000\nThe boat left\nat dawn, they say.\n\n"
    assert read(write(tmp_path, name, sbv)) == said


SCROLLING = """WEBVTT
Kind: captions

00:00:00.160 --> 00:00:02.790 align:start position:0%
~
hi<00:00:00.480><c> everyone</c>

00:00:02.790 --> 00:00:02.800 align:start position:0%
hi everyone
~

00:00:02.800 --> 00:00:05.000 align:start position:0%
hi everyone
to<00:00:03.000><c> this</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
to this
~

00:00:05.010 --> 00:00:07.000 align:start position:0%
to this
talk
""".replace("~", " ")


def test_captions_that_scroll_are_said_once_and_a_word_said_twice_is_said_twice(tmp_path: Path):
    assert read(write(tmp_path, "a.vtt", SCROLLING)) == ["hi everyone to this talk\n"]
    cue = "{0}\n00:00:0{0},000 --> 00:00:0{1},000\n{2}\n\n"
    said = ["No.", "No.", "Who?", "I.", "And you?"]
    cues = "".join(cue.format(n, n + 1, line) for n, line in enumerate(said))
    assert read(write(tmp_path, "a.srt", cues)) == ["No.\nNo.\nWho?\nI.\nAnd you?\n"]


@pytest.mark.parametrize("rate", ["23.976", "25", "29,97"])
def test_how_many_pictures_a_second_has_is_not_said(tmp_path: Path, rate: str):
    cues = f"{{1}}{{1}}{rate}\n{{100}}{{150}}There are|25.\n"
    assert read(write(tmp_path, "a.srt", cues)) == ["There are 25.\n"]


@pytest.mark.parametrize(
    "cues",
    [
        "1\n00:00:01,000 --> 00:00:02,000\nOne.\n2\n00:00:02,000 --> 00:00:03,000\nTwo.\n",
        "1\r00:00:01,000 --> 00:00:02,000\rOne.\r\r2\r00:00:02,000 --> 00:00:03,000\rTwo.\r",
        "\n\n1\n0:00:01.0 -> 0:00:02.0 X1:10 Y1:20\nOne.\n\n\n\n00:02 --> 00:03\nTwo.\n",
        "\ufeff1\n00:00:01,000-->00:00:02,000\nOne.\n \n00:00:02,000-->00:00:03,000\nTwo.\n",
        "00:00:01:20 --> 00:00:02:10\nOne.\n\n\n00:00:02:20 --> 00:00:03:10\n\n\n"
        "00:00:03:20 --> 00:00:04:10\nTwo.\n",
    ],
)
def test_cues_against_the_rules_are_read(tmp_path: Path, cues: str):
    assert read(write(tmp_path, "a.srt", cues)) == ["One.\nTwo.\n"]


@pytest.mark.parametrize(
    "cues",
    [
        "1\n0:01 --> 0:02\nOne,\n\nTwo.\n\n2\n0:03 --> 0:04\nThree.\n",
        "1\n0:01 --> 0:02\n\nOne,\nTwo.\n2\n0:03 --> 0:04\nThree.\n",
        "1\n0:01 --> 0:02\nOne,\nTwo.\n\n2\n0:03 --> 0:04\nThree.\n".replace("\n", "\r\r\n"),
        "WEBVTT\n\n0:01 --> 0:02\n \nOne,\nTwo.\n\nNOTE mine\n\n0:03 --> 0:04\nThree.\n",
    ],
    ids=["an empty line inside", "an empty line before", "doubled returns", "a space"],
)
def test_no_line_of_a_cue_is_lost(tmp_path: Path, cues: str):
    assert read(write(tmp_path, "a.srt", cues)) == ["One, Two.\nThree.\n"]


def test_prose_that_is_named_as_subtitles_are_is_read(tmp_path: Path):
    prose = "The boat left at dawn,\nthey say.\n"
    assert read(write(tmp_path, "a.srt", prose)) == [prose]


def test_a_year_alone_in_a_cue_is_said(tmp_path: Path):
    cues = "1\n00:00:01,000 --> 00:00:02,000\n1984\n\n2\n00:00:02,000 --> 00:00:03,000\nBig.\n"
    assert read(write(tmp_path, "a.srt", cues)) == ["1984 Big.\n"]


def test_a_workbook_is_read_row_by_row(tmp_path: Path):
    sheet = (
        '<worksheet><sheetData><row><c r="A1" t="s"><v>0</v></c><c r="C1"><v>12.5</v></c></row>'
        '<row><c r="A2" t="inlineStr"><is><t>Ullin</t></is></c><c r="B2"><v>2</v></c></row>'
        "</sheetData></worksheet>"
    )
    parts: dict[str, str | bytes] = {
        "xl/worksheets/sheet1.xml": sheet,
        "xl/sharedStrings.xml": "<sst><si><r><t>Bran</t></r><r><t>nock</t></r></si></sst>",
        "xl/styles.xml": "<styles/>",
    }
    assert read(write(tmp_path, "a.xlsx", zip_of(parts))) == ["Brannock\t\t12.5\nUllin\t2\n"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.xlsx", {
            "xl/worksheets/sheet1.xml": "<w><sheetData><row><c t='s'><v>0</v></c></row></sheetData>"
            "</w>",
            "xl/sharedStrings.xml": "<s><si><t>東京</t><rPh><t>トウキョウ</t></rPh></si></s>",
        }),
        ("a.docx", {
            "word/document.xml": "<d><body><p><r><ruby><rt><r><t>とうきょう</t></r></rt>"
            "<rubyBase><r><t>東京</t></r></rubyBase></ruby></r></p></body></d>",
        }),
        ("a.odt", {
            "content.xml": "<o><body><text><p><ruby><ruby-base>東京</ruby-base><ruby-text>"
            "とうきょう</ruby-text></ruby></p></text></body></o>",
        }),
        ("a.html", {"": "<p><ruby>東京<rp>(</rp><rt>とうきょう</rt><rp>)</rp></ruby></p>"}),
    ],
    ids=["xlsx", "docx", "odt", "html"],
)  # fmt: skip
def test_how_characters_are_read_does_not_stand_among_them(
    tmp_path: Path, name: str, parts: dict[str, str | bytes]
):
    content = parts[""] if "" in parts else zip_of(parts)
    corpus = read_corpus(CorpusConfig(sources=(str(write(tmp_path, name, content)),)))
    assert corpus.documents[0].text == "東京\n"
    assert corpus.record()["ledger_bytes"]["dropped"]["readings beside characters"] >= 15


def test_a_presentation_is_read_slide_by_slide(tmp_path: Path):
    slide = "<sld><p><r><t>Slide {0} says</t></r><r><t> this.</t></r></p></sld>"
    parts: dict[str, str | bytes] = {
        f"ppt/slides/slide{i}.xml": slide.format(i) for i in (10, 2, 1)
    }
    parts["ppt/notesSlides/notesSlide1.xml"] = "<notes><p><t>Told.</t></p></notes>"
    parts["ppt/slides/_rels/slide2.xml.rels"] = (
        '<r><x Id="r1" Type="u/notesSlide" Target="../notesSlides/notesSlide1.xml"/></r>'
    )
    text = "Slide 1 says this.\n\nSlide 2 says this.\nTold.\n\nSlide 10 says this.\n"
    assert read(write(tmp_path, "a.pptx", zip_of(parts))) == [text]


@pytest.mark.parametrize(("end", "pack"), PACKERS)
def test_a_compressed_file_gives_what_the_file_gives(
    tmp_path: Path, end: str, pack: Callable[[bytes], bytes]
):
    assert read(write(tmp_path, f"a.txt{end}", pack("Größe\n".encode() * 50))) == ["Größe\n" * 50]
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    assert read(write(tmp_path, f"b.jsonl{end}", pack(rows))) == ["one", "two"]


def test_streams_of_xz_one_after_the_other_are_one_text(tmp_path: Path):
    data = lzma.compress(b"one\n") + bytes(8) + lzma.compress(b"two\n")
    assert read(write(tmp_path, "a.txt.xz", data)) == ["one\ntwo\n"]


def test_frames_of_zstd_one_after_the_other_are_one_text(tmp_path: Path):
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    data = pack(b"one\n") + skipped + pack(b"n" * 300_000)
    assert read(write(tmp_path, "a.txt.zst", data)) == ["one\n" + "n" * 300_000]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_feather_gives_a_document_for_each_row(tmp_path: Path, compression: str):
    path = tmp_path / "a.feather"
    table = pyarrow.table({"id": [1, 2], "text": ["One text.", "Größe."]})
    pyarrow.feather.write_feather(table, str(path), compression=compression)
    corpus = read_corpus(CorpusConfig(sources=(str(path),)))
    assert [document.text for document in corpus.documents] == ["One text.", "Größe."]


def test_a_document_with_a_password_is_named_for_what_it_is(tmp_path: Path):
    path = write(tmp_path, "locked.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000))
    with pytest.raises(UserError, match="document with a password: save it anew without"):
        read(path)
