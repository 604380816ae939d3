"""What bytes mean whose encoding is named, by themselves or by the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes
from folio.errors import UserError


@pytest.mark.parametrize(
    ("named", "written_in", "text"),
    [
        ("iso-8859-1", "cp1252", "It’s “fine” – wait… and go, €5 au café"),
        ("us-ascii", "cp1252", "an – en dash"),
        ("ISO-8859-9", "cp1254", "“İstanbul”"),
        ("gb2312", "gbk", "朱镕基和陳"),
        ("shift_jis", "cp932", "①第一章　髙橋さん"),
        ("ks_c_5601-1987", "cp949", "똠방각하"),
        ("koi8-r", "koi8-r", "привет"),
    ],
)
def test_a_name_stands_for_what_browsers_read_by_it(named: str, written_in: str, text: str):
    notes = Notes()
    assert decode(text.encode(written_in), named, notes) == text
    assert notes.warnings == []


def test_what_is_not_in_the_encoding_that_is_named_is_told():
    notes = Notes()
    assert decode(b"caf\xe9 \x81", "iso-8859-1", notes) == "café \ufffd"
    assert notes.warnings == ["1 byte is not iso-8859-1, as it says, and became U+FFFD"]


POLISH = "Żółw płynie wzdłuż brzegu"
FORMS = {
    "a.srt": "1\n00:00:01,000 --> 00:00:02,000\n{}\n",
    "a.html": "<p>{}</p>",
    "a.json": '[{{"text": "{}"}}]',
    "a.tex": "\\begin{{document}}\n{}\n\\end{{document}}",
    "a.xml": "<a>{}</a>",
    "a.eml": "Subject: x\n\n{}\n",
    "a.mbox": "From a@b Mon Jan  1 12:00:00 2024\nSubject: x\n\n{}\n",
    "a.txt": "{}",
}


def read_as(path: Path, encoding: str, content: bytes) -> Corpus:
    path.write_bytes(content)
    return read_corpus(CorpusConfig(sources=(str(path),), encoding=encoding))


@pytest.mark.parametrize("name", FORMS)
def test_the_encoding_that_the_user_names_is_that_of_every_format(tmp_path: Path, name: str):
    content = FORMS[name].format(POLISH).encode("cp1250")
    for encoding, right in (("koi8-r", False), ("cp1250", True)):  # and the cache tells them apart
        corpus = read_as(tmp_path / name, encoding, content)
        assert (corpus.documents[0].text.strip() == POLISH) is right
        assert not corpus.reading.warnings()


@pytest.mark.parametrize(
    "declaring",
    [
        '<meta charset="cp1250"><p>{}</p>',
        '<?xml version="1.0" encoding="windows-1250"?><html><body>{}</body></html>',
    ],
)
def test_what_a_file_declares_goes_before_what_the_user_names_unless_it_is_wrong(
    tmp_path: Path, declaring: str
):
    content = declaring.format(POLISH).encode("cp1250")
    path = tmp_path / "a.html"
    assert read_as(path, "koi8-r", content).documents[0].text.strip() == POLISH
    wrong = content.replace(b"cp1250", b"utf-8").replace(b"windows-1250", b"utf-8")
    assert read_as(path, "cp1250", wrong).documents[0].text.strip() == POLISH
    assert read_as(path, "cp1250", POLISH.encode()).documents[0].text.strip() == POLISH
    ascii_alone = content.replace(b"cp1250", b"us-ascii").replace(b"windows-1250", b"us-ascii")
    assert read_as(path, "cp1250", ascii_alone).documents[0].text.strip() == POLISH


def test_bytes_that_the_encoding_of_the_user_lacks_are_told_and_unknown_ones_refused(
    tmp_path: Path,
):
    corpus = read_as(tmp_path / "a.html", "cp1250", b"caf\xe9 \x81")
    (warning,) = corpus.reading.warnings()
    assert "1 byte is not cp1250, as --corpus.encoding says, and became U+FFFD" in warning
    for unknown in ("cp12500", "hex"):
        with pytest.raises(UserError, match=r"corpus\.encoding must be 'auto' or a codec of Py"):
            read_as(tmp_path / "a.html", unknown, b"caf\xe9")


def test_letters_of_seven_bits_are_shifted_if_the_user_says_so(tmp_path: Path):
    content = "<p>千と千尋</p>".encode("iso2022_jp")
    assert (
        read_as(tmp_path / "a.html", "iso2022_jp", content).documents[0].text.strip() == "千と千尋"
    )
