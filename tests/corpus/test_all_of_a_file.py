"""What a file is, is decided by all of it, and all of it is kept or counted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.formats.first_look import BLOCK_BYTES, first_look
from folio.corpus.formats.known import WHATSAPP
from folio.errors import UserError
from tests.corpus import making
from tests.corpus.making import write


def read(path: Path | str, **settings: object) -> Corpus:
    """A corpus whose ledger adds up to the bytes of the file."""
    corpus = read_corpus(CorpusConfig(sources=(str(path),), **settings))  # type: ignore[arg-type]
    ledger = corpus.record()["ledger_bytes"]
    parts = sum(sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten"))
    assert ledger["in"] == parts
    if Path(path).is_file():
        assert ledger["in"] == Path(path).stat().st_size
    return corpus


def texts(path: Path, **settings: object) -> list[str]:
    return [document.text for document in read(path, **settings).documents]


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path):
    book = making.epub({"c.xhtml": making.xhtml("<p>A chapter.</p>")})
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, data in (("a.txt", b"A note."), ("z.epub", book)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    assert texts(tmp_path / "a.tar") == ["A note.", "A chapter.\n"]


def test_a_tar_is_read_behind_its_end_and_a_damaged_header_and_the_rest_is_told(tmp_path: Path):
    def tar(*names: str) -> bytearray:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as file:
            for name in names:
                info = tarfile.TarInfo(f"{name}.txt")
                info.size = len(name)
                file.addfile(info, io.BytesIO(name.encode()))
        return bytearray(packed.getvalue())

    assert texts(write(tmp_path, "ab.tar", bytes(tar("a") + tar("b")))) == ["a", "b"]
    damaged = tar("c", "d", "e")
    damaged[2 * 512] ^= 1  # the header of d
    corpus = read(write(tmp_path, "cde.tar", bytes(damaged) + b"no tar"))
    assert [document.text for document in corpus.documents] == ["c", "e"]
    (warning,) = corpus.reading.warnings()
    assert "cde.tar/bytes of no member is left out: a header is damaged" in warning
    ledger = corpus.record()["ledger_bytes"]
    assert ledger["dropped"] == {"files that are left out": 2 * 512 + len("no tar")}


@pytest.mark.parametrize(
    "text", ["Старый фонарь горел. ", "Der Wärter zündete sie an. ", "老灯塔的看守人。"]
)
def test_one_bad_byte_leaves_utf_8(tmp_path: Path, text: str):
    data = text.encode() * 50
    path = write(tmp_path, "a.txt", data + b"\x92" + data)
    corpus = read(path)
    assert corpus.documents[0].text == text * 50 + "\ufffd" + text * 50
    assert corpus.record()["ledger_bytes"]["dropped"] == {"bytes that are not UTF-8": 1}
    (warning,) = corpus.reading.warnings()
    assert f"0x92 at offset {len(data):,}" in warning


@pytest.mark.parametrize(
    "codec", ["gb18030", "big5", "cp932", "euc-kr", "cp1251", "koi8-r", "cp1256"]
)
@pytest.mark.parametrize("padding", ["", "A"])
def test_a_sample_ends_where_a_character_does(tmp_path: Path, codec: str, padding: str):
    lines = {
        "gb18030": "老灯塔的看守人每天晚上在同一时间点灯。镇上的人都不知道原因。\r\n",
        "big5": "老燈塔的看守人每天晚上在同一時間點燈。鎮上的人都不知道原因。\r\n",
        "cp932": "古い灯台の番人は毎晩同じ時間に明かりをつけました。町の人は理由を知りません。\r\n",
        "euc-kr": "오래된 등대의 지기는 매일 밤 같은 시간에 불을 켰다. 마을 사람들은 몰랐다.\r\n",
        "cp1251": "Старый фонарь горел над рекой, и никто не знал, кто зажигал его.\r\n",
        "koi8-r": "Старый фонарь горел над рекой, и никто не знал, кто зажигал его.\r\n",
        "cp1256": "كان حارس المنارة القديم يوقد النار كل ليلة ولم يعرف أحد السبب في المدينة.\r\n",
    }
    text = padding + lines[codec] * 1500
    assert texts(write(tmp_path, "a.txt", text.encode(codec))) == [text]


def test_a_file_that_is_not_latin_is_never_told_to_be_latin_1(tmp_path: Path):
    path = write(tmp_path, "a.txt", "Старый фонарь горел над рекой".encode("cp1251") * 9)
    with pytest.raises(UserError, match="utf-8") as caught:
        read(path, encoding="utf-8")
    assert "latin-1" not in str(caught.value)


def test_the_key_of_jsonl_is_that_of_most_records(tmp_path: Path):
    path = write(
        tmp_path,
        "a.jsonl",
        making.jsonl(
            [{"type": "meta"}, *({"type": "msg", "text": f"Line {i}."} for i in range(9))]
        ),
    )
    corpus = read(path)
    assert [d.text for d in corpus.documents] == [f"Line {i}." for i in range(9)]
    ledger = corpus.record()["ledger_bytes"]["dropped"]
    assert ledger == {"records without text": len('{"type": "meta"}\n'), "other columns": 27}
    assert "1 of 10 records have no text in 'text'" in corpus.reading.warnings()[0]


def test_one_bad_line_is_counted_and_more_than_a_hundredth_is_an_error(tmp_path: Path):
    good = making.jsonl([{"text": f"Line {i}."} for i in range(29)])
    corpus = read(write(tmp_path, "a.jsonl", good + b'{"text": "cut'))
    assert len(corpus.documents) == 29
    assert (
        "1 of 30 lines is not JSON and left out, the first is line 30"
        in corpus.reading.warnings()[0]
    )
    with pytest.raises(UserError, match="2 of its 31 lines are not JSON"):
        read(write(tmp_path, "b.jsonl", good + b"{\n{\n"))


def test_messages_and_instructions_are_texts(tmp_path: Path):
    records = [
        {
            "messages": [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Rain."},
            ]
        },
        {"conversations": [{"from": "human", "value": "Where?"}]},
        {"instruction": "Add.", "input": "1 2", "output": "3"},
    ]
    expected = ["user: Why?\nassistant: Rain.\n", "human: Where?\n", "Add.\n\n1 2\n\n3\n"]
    path = write(tmp_path, "a.jsonl", making.jsonl(records))
    assert texts(path, conversations="text") == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('id,text,tag\n1,"He said \\"hi\\", and left",x\n2,b,y\n', ['He said "hi", and left', "b"]),
        ('id,text\n1,"In \\"C:\\new\\"\ntwo lines"\n2,b\n', ['In "C:\\new"\ntwo lines', "b"]),
        ('id,text\n1,"C:\\new\\"\n2,b\n', ["C:\\new\\", "b"]),
        ('id, text, tag\n1, "hello, there", x\n2, b, y\n', ["hello, there", "b"]),
    ],
)
def test_quotes_of_csv_are_those_of_the_program_that_wrote_it(
    tmp_path: Path, table: str, expected: list[str]
):
    corpus = read(write(tmp_path, "a.csv", table))
    assert [document.text for document in corpus.documents] == expected
    assert not any("quotes" in warning for warning in corpus.reading.warnings())


def test_tsv_has_no_quotes_and_a_lone_quote_of_csv_takes_in_no_rows(tmp_path: Path):
    cells = [f'"Sentence {i}' if i == 5 else f"Sentence {i}" for i in range(20)]
    tsv = "id\ttext\n" + "".join(f"{i}\t{cell}\n" for i, cell in enumerate(cells))
    assert texts(write(tmp_path, "a.tsv", tsv)) == cells
    assert texts(write(tmp_path, "a.csv", tsv.replace("\t", ","))) == cells
    quoted = 'id,text\n1,"two\nlines"\n2,"a ""word"" here"\n'
    assert texts(write(tmp_path, "b.csv", quoted)) == ["two\nlines", 'a "word" here']


def test_cells_beyond_the_header_are_text_or_counted(tmp_path: Path):
    assert texts(write(tmp_path, "a.csv", "id,text\n1,Hello, world\n")) == ["Hello, world"]
    corpus = read(write(tmp_path, "b.csv", "text,id\nHello,1,beyond\n"))
    assert corpus.record()["ledger_bytes"]["dropped"] == {
        "other columns": 1, "cells beyond the header": 6
    }  # fmt: skip


@pytest.mark.parametrize(
    "before", ["sep=;\r\n", "\ufeffsep=;\n", '\n"SEP=;"\n', "\n", " \n\n", ";;\n", '"";""\n']
)
def test_a_table_begins_where_its_text_does(tmp_path: Path, before: str):
    table = before + 'id;text\n1,5;"Two, or three"\n'
    corpus = read(write(tmp_path, "a.csv", table), text_column="text")
    assert [document.text for document in corpus.documents] == ["Two, or three"]
    assert corpus.documents[0].source.endswith(f"a.csv, line {table.count(chr(10))}")
    dropped = {"other columns": 3}
    if "=" in before:
        dropped["the line that names the delimiter"] = len(before.lstrip("\ufeff\n"))
    assert corpus.record()["ledger_bytes"]["dropped"] == dropped


@pytest.mark.parametrize("before", ["", "sep=\t\n", "\n", "\t\n"])
def test_tab_separated_text_begins_after_empty_lines(tmp_path: Path, before: str):
    assert texts(write(tmp_path, "a.tsv", f"{before}id\ttext\n1\tOne, two\n")) == ["One, two"]
    assert texts(write(tmp_path, "b.tsv", f"{before}1\t2\n")) == ["1\t2\n"]


@pytest.mark.parametrize(
    "tag", ["title", "script", "style", "iframe", "textarea", "object", "select"]
)
@pytest.mark.parametrize("broken", ["", "<p>unclosed"], ids=["well-formed", "broken"])
def test_what_closes_itself_in_xhtml_takes_in_no_text(tmp_path: Path, tag: str, broken: str):
    page = making.xhtml(f"<{tag}/><p>All of it.</p>{broken}")
    assert "All of it." in texts(write(tmp_path, "a.xhtml", page))[0]


def test_what_a_page_does_not_show_is_counted_by_reason(tmp_path: Path):
    page = (
        "<body><p>Seen.</p><!--remark--><script>code()</script><p hidden>not seen</p>"
        "<input value='typed'><template><b>later</b></template><nav>Home</nav></body>"
    )
    corpus = read(write(tmp_path, "a.html", page))
    assert corpus.documents[0].text == "Seen.\n"
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert dropped["comments"] == len("remark") and dropped["hidden text"] == len("not seen")
    assert dropped["scripts and styles"] == len("code()") and dropped["navigation"] == len("Home")
    assert dropped["form fields"] == len("typed") and dropped["templates"] == len("later")


def test_what_a_word_document_leaves_out_is_counted(tmp_path: Path):
    deleted = "<w:p><w:del><w:r><w:delText>Deleted.</w:delText></w:r></w:del></w:p>"
    data = making.docx(making.docx_paragraph("Kept.") + deleted)
    corpus = read(write(tmp_path, "a.docx", data))
    assert corpus.documents[0].text == "Kept.\n"
    assert corpus.record()["ledger_bytes"]["dropped"]["deleted text"] == len("Deleted.")


def test_names_that_are_no_utf_8_can_be_written_down(tmp_path: Path):
    path = tmp_path / "caf\udce9.txt"
    path.write_text("Some text to read. " * 9)
    config = CorpusConfig(sources=(str(path),))
    assert config.sources[0].endswith("/caf%E9.txt")
    corpus = read_corpus(config)
    assert str(corpus.record()).encode("utf-8")
    assert CorpusConfig(sources=config.sources) == config


def test_what_folio_made_is_not_read_but_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOLIO_RUNS", str(tmp_path / "elsewhere"))
    for name in ("recipe.toml", "metrics.jsonl", "README.md"):
        write(tmp_path, f"old/one/{name}", '{"text": "generated"}')
    write(tmp_path, "elsewhere/note.md", "generated")
    write(tmp_path, "story.md", "A story.")
    for source in (".", "**/*.md"):
        corpus = read(Path(source))
        assert [d.text for d in corpus.documents] == ["A story."]
        assert "what Folio itself made is not read" in corpus.reading.warnings()[-1]


def test_files_of_unknown_kind_are_told(tmp_path: Path):
    for name in ("a.txt", "b.log", "c.log", "LICENSE"):
        write(tmp_path, name, "text")
    corpus = read(tmp_path)
    assert "2 .log, 1 LICENSE" in corpus.reading.warnings()[0]
    assert corpus.record()["ledger_bytes"]["in"] == 16


def test_marks_part_documents_and_are_not_learned(tmp_path: Path):
    text = "<|startoftext|>One\ntwo.<|endoftext|>\n<|startoftext|>Three.<|endoftext|>\n"
    corpus = read(write(tmp_path, "a.txt", text))
    assert [d.text for d in corpus.documents] == ["One\ntwo.", "Three."]
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert dropped == {"marks between documents": 2 * len("<|startoftext|><|endoftext|>")}


def test_a_line_may_be_a_document(tmp_path: Path):
    path = write(tmp_path, "a.txt", "One.\n\nTwo.\r\n")
    assert texts(path, documents="lines") == ["One.", "Two."]


def test_a_mark_is_found_where_blocks_of_a_file_meet(tmp_path: Path):
    before = "x" * (BLOCK_BYTES - 7)
    assert texts(write(tmp_path, "a.txt", f"{before}<|endoftext|>after\n")) == [before, "after"]


def test_a_text_file_is_opened_once_to_see_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chat = write(tmp_path, "a.txt", "1/2/24, 10:00 - Ann: Hi\n1/2/24, 10:01 - Ben: Ho\n")
    genuine: Any = Path.open
    opened: list[Path] = []

    def counted(path: Path, *how: str) -> Any:
        opened.append(path)
        return genuine(path, *how)

    monkeypatch.setattr(Path, "open", counted)
    assert first_look(chat) is WHATSAPP
    assert opened == [chat]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_nuls_in_records_are_dropped_and_counted(tmp_path: Path, name: str):
    record = '{"text": "one\\u0000\\u0000two"}'
    corpus = read(write(tmp_path, name, f"[{record}]" if name == "a.json" else record))
    assert [document.text for document in corpus.documents] == ["onetwo"]
    assert corpus.record()["ledger_bytes"]["dropped"]["NULs"] == 2
    assert "2 NULs were dropped" in corpus.reading.warnings()[0]


def test_records_without_text_are_counted_whatever_they_hold(tmp_path: Path):
    lines = '{"a": 1, "b": [7]}\n{"a": [2], "b": 2}\n{"a": [1]}\n'
    with pytest.raises(UserError, match="the records have 'a', 'b'"):
        texts(write(tmp_path, "a.jsonl", lines))
