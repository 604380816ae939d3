"""Hostile files of single formats: mail, tables, workbooks, chats, subtitles, XML and LaTeX."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from folio.corpus import limits
from tests.corpus import hostile, making
from tests.corpus.hostile import ENTITY, LAUGHS, SECRET, read, refusal

folder = hostile.folder


def nested(depth: int) -> str:
    return "".join(
        f'Content-Type: multipart/mixed; boundary="b{i}"\n\n--b{i}\n' for i in range(depth)
    )


def test_a_mail_of_parts_in_parts(folder: Path):
    making.write(folder, "a.eml", nested(1100) + "\ndeep\n")
    making.write(
        folder,
        "a.mbox",
        f"From a\n{nested(1100)}\ndeep\n\nFrom b Mon Jan  1 12:00:00 2024\n\nThe second.\n",
    )
    reading = read(folder)
    assert "nested too deeply" in reading.findings.refused[str(folder / "a.eml")]
    assert "The second.\n" in [document.text for document in reading.documents]
    assert any("message 1 is nested too deeply" in line for line in reading.warnings())


def test_a_mail_of_many_headers_and_one_of_a_large_attachment(folder: Path):
    heads = "X-A: b\n" * 50_000
    attachment = f"{'A' * 75}\n" * (1 << 13)
    huge = f"Content-Type: application/zip\n\n{attachment}"
    making.write(
        folder, "a.mbox", f"From a\n{heads}\nFirst.\n\nFrom b\n{huge}\nFrom c\nTo: b\n\nLast.\n"
    )
    reading = read(folder)
    assert {"First.\n", "Last.\n"} <= {document.text for document in reading.documents}
    assert reading.tally.dropped["attachments"] == len(attachment) + 1


@pytest.mark.parametrize("prolog", [ENTITY, LAUGHS], ids=["theft of a file", "billion laughs"])
@pytest.mark.parametrize(
    ("name", "part"), [("a.xlsx", "xl/worksheets/sheet1.xml"), ("a.pptx", "ppt/slides/slide1.xml")]
)
def test_entities_and_bombs_in_workbooks_and_presentations(
    folder: Path, name: str, part: str, prolog: str
):
    prolog = prolog.format(folder.parent / "secret.txt") if prolog is ENTITY else prolog
    making.write(folder, name, making.zip_of({part: f"{prolog}<sld>&e;&a12;</sld>"}))
    assert "entities" in refusal(folder, name)
    making.write(folder, name, making.zip_of({part: bytes(limits.EXPANSION_BYTES + (1 << 20))}))
    assert "zip bombs" in refusal(folder, name)


def test_a_parquet_file_that_lies_about_itself(folder: Path):
    table = pyarrow.table({"text": ["One.", "Two."] * 50})
    pyarrow.parquet.write_table(table, folder / "a.parquet", compression="none")
    data = (folder / "a.parquet").read_bytes()
    length = data[:-8] + struct.pack("<I", 0x7FFFFFFF) + b"PAR1"
    making.write(folder, "a.parquet", length)
    assert "damaged" in refusal(folder, "a.parquet")
    making.write(
        folder, "a.parquet", data[: len(data) // 4] + b"\xff" * 64 + data[-len(data) // 2 :]
    )
    assert "damaged" in refusal(folder, "a.parquet")


def test_a_long_text_that_is_referred_to_again_and_again(folder: Path):
    n, long = 20, "x" * (limits.EXPANSION_BYTES // 16)
    rows = "<row><c t='s'><v>0</v></c></row>" * n
    book: dict[str, str | bytes] = {
        "xl/sharedStrings.xml": f"<sst><si><t>{long}</t></si></sst>",
        "xl/worksheets/sheet1.xml": f"<w><sheetData>{rows}</sheetData></w>",
    }
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    note = f'<w:footnote w:id="2">{making.docx_paragraph(long)}</w:footnote>'
    making.write(folder, "a.xlsx", making.zip_of(book))
    making.write(folder, "a.docx", making.docx(making.docx_paragraph("a", reference) * n, note))
    for name in ("a.xlsx", "a.docx"):
        assert "zip bombs" in refusal(folder, name)


def table_that_grows(how: str) -> pyarrow.Table:
    """A few kB, and above the limit once it is unpacked."""
    size = limits.EXPANSION_BYTES + (1 << 20)
    long = pyarrow.array(["x" * (1 << 18)])
    rows = pyarrow.array([0] * (size >> 18), pyarrow.int32())
    if how == "turns":
        said = [{"role": "user", "content": "x" * (size >> 4)}]
        return pyarrow.table({"messages": [said] * 16})
    columns = {
        "one text for all rows": lambda: long.take(rows),
        "by a dictionary": lambda: pyarrow.DictionaryArray.from_arrays(rows, long),
        "a long text": lambda: pyarrow.array(["x" * size]),
        "rows of nothing": lambda: pyarrow.nulls(size, pyarrow.string()),
    }
    return pyarrow.table({"text": columns[how]()})


@pytest.mark.parametrize(
    "how", ["one text for all rows", "by a dictionary", "a long text", "rows of nothing", "turns"]
)
def test_a_table_that_unpacks_to_far_more(folder: Path, how: str):
    table = table_that_grows(how)
    pyarrow.parquet.write_table(table, folder / "a.parquet", compression="zstd")
    pyarrow.feather.write_feather(table, str(folder / "b.feather"), compression="zstd")
    for file in ("a.parquet", "b.feather"):
        assert "zip bombs" in refusal(folder, file)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000])
def test_json_nested_without_end(folder: Path, text: str):
    for name in ("a.json", "b.jsonl"):
        making.write(folder, name, text)
        assert "JSON" in refusal(folder, name)


def test_subtitles_without_an_end_are_bounded(folder: Path):
    making.write(folder, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\n" + "word " * 1_000_000)
    lengths = [document.n_characters for document in read(folder).documents]
    assert 4_999_999 in [n - 1 for n in lengths] + lengths


@pytest.mark.parametrize("source", ["<!--", "<?x ", "<!DOCTYPE [", "<![CDATA[", "<a b='"])
def test_xml_that_closes_nothing_is_read_at_once(folder: Path, source: str):
    making.write(folder, "a.xml", f"<r>word {source * 100_000}")
    assert any("word" in d.text for d in read(folder, time_limit_seconds=20.0).documents)


def test_an_xml_file_that_declares_entities_or_names_files(folder: Path):
    making.write(folder, "laughs.xml", LAUGHS + "<x>&a11;</x>")
    assert "entities" in refusal(folder, "laughs.xml")
    secret = folder.parent / "secret.txt"
    making.write(folder, "laughs.xml", ENTITY.format(secret) + "<x>&e;</x>")
    assert "entities" in refusal(folder, "laughs.xml")


@pytest.mark.parametrize(
    "source",
    [
        "{",
        r"\cite{",
        r"\footnote{",
        r"\section{",
        "$ a ",
        r"\(",
        r"\begin{verbatim}",
        r"\x[",
        r"\verb|",
    ],
)
def test_latex_that_is_nested_without_end_takes_no_time(folder: Path, source: str):
    making.write(folder, "deep.tex", f"Before. {source * 50_000}")
    reading = read(folder, time_limit_seconds=20.0)
    assert any(document.text.startswith("Before.") for document in reading.documents)


def test_latex_that_names_files(folder: Path):
    making.write(folder, "deep.tex", r"\input{../secret.txt}\include{../secret}Harmless.")
    assert not any(SECRET in document.text for document in read(folder).documents)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.xml", "<a>" * 100_000 + "</a>" * 100_000),
        ("signs.org", "/a *b " * 20_000),
        ("links.org", "[[a][" * 50_000),
        ("heads.txt", "[1/1/1, 1:1] " * 20_000 + "\n" + "[1/1/1, 1:11] a" * 2),
        (
            "circle.json",
            '[{"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}, "current_node": "a"}]',
        ),
    ],
)
def test_text_that_would_keep_a_reader_busy_for_ever_does_not(folder: Path, name: str, data: str):
    making.write(folder, name, data)
    reading = read(folder, time_limit_seconds=20.0)
    assert "The good file is read." in [document.text for document in reading.documents]
    assert not any("seconds" in why for why in reading.findings.refused.values())
