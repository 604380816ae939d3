from __future__ import annotations

import codecs
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from folio.corpus import readers, reading
from folio.corpus.corpus import CorpusConfig, read_corpus, read_documents
from folio.corpus.readers import ShiftError, read_pieces
from folio.errors import UserError

TEXT = "Grüße, 世界 🌍\r\nline two\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-8"),
        codecs.BOM_UTF8 + TEXT.encode("utf-8"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16-le", "utf-16-be", "utf-32-le"],
)
def test_marks_say_the_encoding_and_line_ends_stay(tmp_path: Path, data: bytes):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert "".join(read_pieces(path)) == TEXT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig"])
def test_a_named_encoding_is_used(tmp_path: Path, encoding: str):
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße".encode(encoding))
    assert "".join(read_pieces(path, encoding)) == "Grüße"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(1, 7)
)
@example("\x1b$", 2)
def test_pieces_join_to_the_text_wherever_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, size: int
):
    monkeypatch.setattr(readers, "PIECE_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(codecs.BOM_UTF8 + text.encode("utf-8"))
    assert "".join(read_pieces(path)) == text


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 20])
def test_a_bad_byte_is_named_with_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(readers, "PIECE_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes("äö".encode() + b"\xff" + b"tail")
    with pytest.raises(UserError, match=r"a\.txt is not utf-8: byte 0xff at offset 4"):
        list(read_pieces(path))


def test_a_character_cut_off_at_the_end_is_an_error(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("abcä".encode()[:-1])
    with pytest.raises(UserError, match="offset 3"):
        list(read_pieces(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\x7fELF\0\0\0\1", "binary"), ("ab".encode("utf-16-le"), "another encoding")],
)
def test_a_binary_file_is_refused(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_pieces(path))


def test_an_unknown_encoding_is_refused(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(UserError, match="utf-9"):
        list(read_pieces(path, "utf-9"))


def test_standard_input_can_be_read_again(monkeypatch: pytest.MonkeyPatch):
    class Input:
        buffer = io.BytesIO(TEXT.encode())

    monkeypatch.setattr(sys, "stdin", Input)
    (document,) = read_corpus(CorpusConfig(sources=("-",))).documents
    assert document.text == document.text == TEXT


@pytest.mark.parametrize(
    ("settings", "texts"),
    [({}, ["One\nTwo", "Three"]), ({"documents": "lines"}, ["One", "Two<|endoftext|>Three"])],
)
def test_standard_input_is_divided_into_documents_as_a_file_is(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], texts: list[str]
):
    class Input:
        buffer = io.BytesIO(b"One\nTwo<|endoftext|>Three\n")

    monkeypatch.setattr(sys, "stdin", Input)
    corpus = read_corpus(CorpusConfig(sources=("-",), **settings))
    assert [document.text for document in corpus.documents] == texts
    assert corpus.record()["ledger_bytes"]["in"] == len(b"One\nTwo<|endoftext|>Three\n")


def test_standard_input_that_is_no_text_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch):
    class Input:
        buffer = io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(99))

    monkeypatch.setattr(sys, "stdin", Input)
    with pytest.raises(UserError, match=r"^standard input: it is a binary file"):
        read_corpus(CorpusConfig(sources=("-",)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shakespear", "Did you mean 'shakespeare'?"),
        ("bok.txt", "book.txt'?"),
        ("zzzzzz", "Built in are python-docs, shakespeare."),
    ],
)
def test_a_name_that_is_nothing_gets_the_nearest(
    book: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
):
    monkeypatch.chdir(book.parent)
    with pytest.raises(UserError) as caught:
        read_corpus(CorpusConfig(sources=(source,)))
    assert message in str(caught.value)


def test_standard_input_that_is_no_utf_8_is_guessed_with_a_warning(monkeypatch: pytest.MonkeyPatch):
    class Input:
        buffer = io.BytesIO("Grüße aus der großen Stadt und schöne Tage".encode("cp1252"))

    monkeypatch.setattr(sys, "stdin", Input)
    corpus = read_corpus(CorpusConfig(sources=("-",)))
    assert corpus.documents[0].text == "Grüße aus der großen Stadt und schöne Tage"
    assert "guess" in corpus.report()["warnings"][0]
    assert list(corpus.report()["kinds"]) == ["standard input"]


def test_an_empty_corpus_is_refused(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.touch()
    with pytest.raises(UserError, match=r"a\.txt: it has no text"):
        read_corpus(CorpusConfig(sources=(str(path),)))


def test_bytes_that_are_no_utf_8_are_guessed_with_a_warning(tmp_path: Path):
    text = "Der Fluß trägt die Kähne über weite Auen. " * 20
    (tmp_path / "a.txt").write_bytes(text.encode("cp1252"))
    reading = read_documents([str(tmp_path / "a.txt")], CorpusConfig())
    assert reading.documents[0].text == text
    assert any("guess" in line for line in reading.warnings())


TABLE = "id;text\r\n1;Die Größe der Bäume\r\n2;Schöne Grüße\r\n"
LINES = '{"text": "Die Größe der Bäume"}\n{"text": "Schöne Grüße"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize(("name", "content"), [("a.csv", TABLE), ("a.jsonl", LINES)])
def test_rows_of_tables_come_in_any_encoding(
    tmp_path: Path, name: str, content: str, encoding: str
):
    (tmp_path / name).write_bytes(content.encode(encoding))
    reading = read_documents([str(tmp_path / name)], CorpusConfig())
    assert [d.text for d in reading.documents] == ["Die Größe der Bäume", "Schöne Grüße"]
    assert any("guess" in line for line in reading.warnings()) == (encoding == "cp1252")


def test_rows_of_tables_take_the_encoding_that_is_named(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("id;text\n1;Łódź i Kraków\n".encode("iso8859-2"))
    reading = read_documents([str(tmp_path / "a.csv")], CorpusConfig(encoding="iso8859-2"))
    assert [d.text for d in reading.documents] == ["Łódź i Kraków"]
    assert not reading.warnings()
    reading = read_documents([str(tmp_path / "a.csv")], CorpusConfig())  # not from the cache
    assert reading.warnings()


def test_a_guess_is_the_usual_encoding_where_another_reads_the_same(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(
        "Die Straße führt über die Brücke nach Köln. ".encode("cp1252")
    )
    reading = read_documents([str(tmp_path / "a.txt")], CorpusConfig())
    assert "read as cp1252" in reading.warnings()[0]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "El niño salió de casa por la mañana; llovía en la montaña y nadie lo sabía."),
        ("cp1252", "Não há razão para a ação: a irmã do avô já não está lá, só o irmão."),
        ("cp1252", "På øen er der æbler. Han så på vejen, og så løb hun over den grønne bro."),
        (
            "cp1252",
            "Il ragazzo uscì di casa la mattina presto, perché il treno partiva alle sette.",
        ),
        ("cp1252", "L’élève était à l’école, où il a vu le maître : « Ça va ? », dit‑elle."),
        ("cp850", "El niño salió de casa por la mañana; llovía en la montaña y nadie lo sabía."),
        (
            "iso8859-2",
            "Dnes večer půjdu s přáteli do města, kde se hraje nová hra; číšník přinesl účet.",
        ),
        ("cp1250", "Zażółć gęślą jaźń; dziś pójdę do księgarni, bo źle się czuję."),
        ("mac-roman", "L'élève était à l'école, où il a vu le maître et la forêt."),
        ("koi8-r", "Мальчик вышел из дома утром, и никто не знал, куда он шёл."),
    ],
)
def test_letters_are_those_that_were_written(tmp_path: Path, encoding: str, text: str):
    spelled = (text + "\n").encode(encoding, "ignore")
    (tmp_path / "a.txt").write_bytes(spelled * 3)
    (document,) = read_documents([str(tmp_path / "a.txt")], CorpusConfig()).documents
    assert "".join(document.pieces()) == spelled.decode(encoding) * 3


def test_why_a_file_is_left_out_is_a_sentence(tmp_path: Path):
    for name in ("a.txt", "b.csv"):
        (tmp_path / name).write_bytes(b"\x7fELF\0\0")
    (tmp_path / "c.txt").write_text("text")
    refused = read_documents([str(tmp_path)], CorpusConfig()).findings.refused
    assert all(why.startswith("it is a binary file") for why in refused.values())
    assert len(refused) == 2


def test_without_the_guesser_the_encoding_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "chardet", None)
    (tmp_path / "a.txt").write_bytes("Grüße".encode("cp1252"))
    with pytest.raises(UserError, match=r"--corpus\.encoding latin-1"):
        read_documents([str(tmp_path / "a.txt")], CorpusConfig())


@pytest.mark.parametrize("name", ["letter.rtf", "letter.txt"])
def test_markup_of_a_word_processor_is_not_taken_for_its_text(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(rb"{\rtf1\ansi Dear reader}")
    with pytest.raises(UserError, match=r"it is RTF; --corpus\.engine tika"):
        read_corpus(CorpusConfig(sources=(str(tmp_path / name),)))


@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
@pytest.mark.parametrize(
    ("codec", "text"),
    [("iso2022_jp", "灯台の灯り。\n海\n"), ("iso2022_kr", "등대의 불빛.\n바다\n")],
)
def test_text_whose_bytes_are_all_those_of_ascii_is_read(
    tmp_path: Path, name: str, codec: str, text: str
):
    (tmp_path / name).write_bytes(text.encode(codec))
    reading = read_documents([str(tmp_path)], CorpusConfig())
    assert reading.documents[0].text == text
    assert any(codec in line for line in reading.warnings())


def test_a_shift_is_seen_wherever_pieces_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_bytes("a海".encode("iso2022_jp"))
    for size in (1, 2, 3):
        monkeypatch.setattr(readers, "PIECE_BYTES", size)
        with pytest.raises(ShiftError):
            list(read_pieces(path))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_signs_for_a_terminal_are_no_other_encoding(tmp_path: Path, codec: str):
    text = "\x1b$1 done\n" * 3
    (tmp_path / "a.txt").write_text(text, encoding=codec)
    reading = read_documents([str(tmp_path)], CorpusConfig())
    assert reading.documents[0].text == text and not reading.warnings()


def test_of_a_text_of_many_gigabytes_the_user_is_told_of_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a.txt").write_text("short")
    read_documents([str(tmp_path)], CorpusConfig())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "LARGE_BYTES", 4)
    read_documents([str(tmp_path)], CorpusConfig())
    assert "folio tokens SOURCES --into STORE" in capsys.readouterr().err
