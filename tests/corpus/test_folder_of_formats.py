"""A folder as people have them: all kinds of files, of which every word arrives."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from folio.corpus.corpus import CorpusConfig, read_corpus
from tests.corpus import making

STEMS = ("lamp", "Größe", "фонарь", "灯塔", "مصباح", "ночь")


def words(kind: str) -> list[str]:
    """Words that stand in one file of the folder and in no other."""
    # Helvetica, which draws the PDF here, has Latin letters alone.
    stems = STEMS[:2] if kind == "pdf" else STEMS
    return [f"{stem}{kind}" for stem in stems]


def parquet_of(text: str, feather: bool) -> bytes:
    table = pyarrow.table({"id": [1], "text": [text]})
    sink = io.BytesIO()
    if feather:
        pyarrow.feather.write_feather(table, sink)
    else:
        pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def tar_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def srt(text: str) -> str:
    return f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n"


def mail(text: str) -> str:
    head = "From: a@example.org\nSubject: s\nContent-Type: text/plain; charset=utf-8\n"
    return f"{head}Content-Transfer-Encoding: 8bit\n\n{text}\n"


def sheet(text: str) -> bytes:
    row = f'<row><c t="inlineStr"><is><t>{text}</t></is></c></row>'
    return making.zip_of(
        {"xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{row}</sheetData></worksheet>"}
    )


def folder_of_formats() -> dict[str, bytes | str]:
    """File names -> contents, each with the words of its kind."""

    def said(kind: str) -> str:
        return " ".join(words(kind))

    files: dict[str, bytes | str] = {
        "a.txt": said("txt"),
        "a.md": said("md"),
        "a.py": f"# {said('py')}\n",
        "utf16.txt": said("utf16").encode("utf-16"),
        "a.pdf": making.pdf([making.pdf_page([(72, 700, said("pdf"))])]),
        "a.html": f"<html><body><p>{said('html')}</p><script>no()</script></body></html>",
        "a.docx": making.docx(making.docx_paragraph(said("docx"))),
        "a.odt": making.odt(f"<text:p>{said('odt')}</text:p>"),
        "a.epub": making.epub({"c.xhtml": making.xhtml(f"<p>{said('epub')}</p>")}),
        "a.xlsx": sheet(said("xlsx")),
        "a.pptx": making.zip_of({"ppt/slides/slide1.xml": f"<s><p><t>{said('pptx')}</t></p></s>"}),
        "a.mbox": f"From a@example.org Thu Jan  1 00:00:00 2026\n{mail(said('mbox'))}\n",
        "a.eml": mail(said("eml")),
        "a.srt": srt(said("srt")),
        "a.vtt": f"WEBVTT\n\n00:01.000 --> 00:02.000\n{said('vtt')}\n",
        "a.json": json.dumps([{"text": said("json")}]),
        "a.csv": making.csv_file([["text"], [said("csv")]]),
        "a.tsv": making.csv_file([["text"], [said("tsv")]], "\t"),
        "a.jsonl": making.jsonl([{"text": said("jsonl")}]),
        "a.ipynb": making.notebook([("markdown", said("ipynb"))]),
        "a.parquet": parquet_of(said("parquet"), feather=False),
        "a.feather": parquet_of(said("feather"), feather=True),
        "a.org": f"* {said('org')}\n",
        "a.tex": rf"\begin{{document}}{said('tex')}\end{{document}}",
        "a.xml": f"<a><b>{said('xml')}</b></a>",
        "chat.txt": f"1/2/24, 10:00 - Ann: {said('chat')}\n1/2/24, 10:01 - Ben: Yes.\n",
        "b.txt.gz": gzip.compress(said("gz").encode()),
        "b.txt.xz": lzma.compress(said("xz").encode()),
        "b.txt.zst": zstandard.ZstdCompressor().compress(said("zst").encode()),
        "b.zip": making.zip_of({"inner.md": said("zip")}),
        "b.tar.gz": tar_of("inner.txt", said("tar").encode()),
    }
    return files


KINDS = (
    "txt md py utf16 pdf html docx odt epub xlsx pptx mbox eml srt vtt json csv tsv jsonl ipynb "
    "parquet feather org tex xml chat gz xz zst zip tar"
)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int], int]:
    """The text of the folder, where its bytes went, and how many they are."""
    folder = tmp_path_factory.mktemp("formats")
    for name, content in folder_of_formats().items():
        making.write(folder, name, content)
    corpus = read_corpus(CorpusConfig(sources=(str(folder),)))
    assert not corpus.reading.findings.refused
    ledger = corpus.record()["ledger_bytes"]
    parts = {part: sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten")}
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    assert ledger["in"] == n_bytes
    return "\n".join(document.text for document in corpus.documents), parts, n_bytes


@pytest.mark.parametrize("kind", KINDS.split())
def test_every_word_of_every_format_arrives_once(read: tuple[str, dict[str, int], int], kind: str):
    text = read[0].split()
    assert [text.count(word) for word in words(kind)] == [1] * len(words(kind))


def test_every_byte_of_the_folder_is_counted(read: tuple[str, dict[str, int], int]):
    text, parts, n_bytes = read
    assert sum(parts.values()) == n_bytes
    assert len(folder_of_formats()) == len(KINDS.split()) >= 24
    assert "no()" not in text
