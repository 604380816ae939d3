"""Hostile input is refused by name, and the other files go on."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import socket
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from folio.corpus import limits
from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.reading import Reading
from tests.corpus import making

SECRET = "the content of a file that nobody named"
ENTITY = '<!DOCTYPE x [<!ENTITY e SYSTEM "file://{}">]>'
LAUGHS = (
    "<!DOCTYPE x [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{i + 1} '{f'&a{i};' * 10}'>" for i in range(12))
    + "]>"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good file in it, and a secret beside it."""
    making.write(tmp_path, "secret.txt", SECRET)
    making.write(tmp_path, "folder/good.txt", "The good file is read.")
    return tmp_path / "folder"


def read(source: Path, **settings: object) -> Reading:
    return read_documents([str(source)], CorpusConfig(**settings))  # type: ignore[arg-type]


def refusal(folder: Path, name: str, **settings: object) -> str:
    """Why a file was refused, while the good one was read and the secret was not."""
    reading = read(folder, **settings)
    texts = [document.text for document in reading.documents]
    assert "The good file is read." in texts
    assert not any(SECRET in text for text in texts)
    assert not any(document.source.endswith(name) for document in reading.documents)
    (found,) = [why for refused, why in reading.findings.refused.items() if refused.endswith(name)]
    return found


def bomb(n_bytes: int) -> bytes:
    return making.zip_of({"word/document.xml": bytes(n_bytes)})


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.docx", "bomb.epub", "bomb.odt"])
def test_a_zip_bomb(folder: Path, name: str):
    size = limits.EXPANSION_BYTES + (1 << 20)
    part = {"bomb.zip": "a.txt", "bomb.docx": "word/document.xml", "bomb.odt": "content.xml"}
    making.write(
        folder, name, making.zip_of({part.get(name, "META-INF/container.xml"): bytes(size)})
    )
    assert "zip bombs" in refusal(folder, name)


@pytest.mark.parametrize("end", [".tar.gz", ".tar.xz", ".tar.bz2"])
def test_a_tar_bomb_even_where_its_member_is_not_wanted(folder: Path, end: str):
    size = limits.EXPANSION_BYTES + (1 << 20)
    with tarfile.open(folder / f"bomb{end}", f"w:{end.rpartition('.')[2]}") as file:
        info = tarfile.TarInfo("a.unknown")
        info.size = size
        file.addfile(info, io.BytesIO(bytes(size)))
    assert "zip bombs" in refusal(folder, f"bomb{end}")


def test_a_zip_that_lies_about_its_sizes(folder: Path):
    data = bytearray(making.zip_of({"a.txt": b"x" * 100}))
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 3)  # the size in the central directory
    making.write(folder, "lies.zip", bytes(data))
    refusal(folder, "lies.zip/a.txt")


@pytest.mark.parametrize(
    "name", ["../secret.txt", "/etc/hostname.txt", "a/../../secret.txt", "C:\\a.txt"]
)
def test_a_path_that_leads_out_of_an_archive(folder: Path, name: str):
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr(name, "planted")
        file.writestr("fine.txt", "Inside.")
    with tarfile.open(folder / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name))
    before = (folder.parent / "secret.txt").read_text()
    assert "leads out" in refusal(folder, f"a.zip/{name}")
    assert "leads out" in refusal(folder, f"a.tar/{name}")
    assert "Inside." in [document.text for document in read(folder).documents]
    assert (folder.parent / "secret.txt").read_text() == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar(folder: Path, kind: bytes):
    info = tarfile.TarInfo("a.txt")
    info.type, info.linkname = kind, "../secret.txt"
    with tarfile.open(folder / "a.tar", "w") as file:
        file.addfile(info)
    assert "link or a device" in refusal(folder, "a.tar/a.txt")


def test_a_link_in_a_zip(folder: Path):
    info = zipfile.ZipInfo("a.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr(info, "../secret.txt")
    assert "link or a device" in refusal(folder, "a.zip/a.txt")


def test_an_encrypted_member(folder: Path):
    data = bytearray(making.zip_of({"a.txt": b"x" * 100}))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    making.write(folder, "a.zip", bytes(data))
    assert "encrypted" in refusal(folder, "a.zip/a.txt")


def test_archives_nested_without_end(folder: Path):
    data = making.zip_of({"a.txt": "deep"})
    for i in range(6):
        data = making.zip_of({f"{i}.zip": data})
    making.write(folder, "a.zip", data)
    assert "nested" in refusal(folder, "/3.zip")


@pytest.mark.parametrize("prolog", [ENTITY, LAUGHS], ids=["theft of a file", "billion laughs"])
@pytest.mark.parametrize("name", ["a.odt", "a.docx", "a.epub"])
def test_xml_entities(folder: Path, name: str, prolog: str):
    prolog = prolog.format(folder.parent / "secret.txt") if prolog is ENTITY else prolog
    body = "<p>&e;&a12;</p>"
    data = {
        "a.odt": making.odt("<text:p>&e;&a12;</text:p>", prolog),
        "a.docx": making.zip_of({"word/document.xml": f"{prolog}<w>{body}</w>"}),
        "a.epub": making.epub({"c.xhtml": f"<?xml version='1.0'?>{prolog}<html>{body}</html>"}),
    }
    making.write(folder, name, data[name])
    assert "entities" in refusal(folder, name)


def test_a_reader_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Its process is told to sleep; the limit of time ends it, and another reads what is left."""
    making.write(folder, "hangs.html", "<p>hangs</p>")
    making.write(folder, "html.html", "<p>Other pages are read.</p>")
    hook = making.write(folder.parent / "hook", "sitecustomize.py", HANGING)
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    assert "took longer than 2 s" in refusal(folder, "hangs.html", time_limit_seconds=2.0)
    reading = read(folder, time_limit_seconds=2.0)
    assert any("Other pages" in document.text for document in reading.documents)


HANGING = """
import sys, time
if any("extraction_worker" in word for word in sys.orig_argv):
    from folio.corpus.formats import html
    genuine = html.read_html
    def read_html(data, notes):
        if b"hangs" in data:
            time.sleep(1000)
        return genuine(data, notes)
    html.read_html = read_html
"""


def test_a_pdf_of_empty_megabytes(folder: Path):
    """A stream of 30 kB that unpacks to 128 MB of spaces, which PDFium has to walk through."""
    packed = zlib.compressobj(9)
    stream = b"".join(packed.compress(b" " * (1 << 22)) for _ in range(32)) + packed.flush()
    data = making.pdf(["BT /F1 9 Tf (text) Tj ET"])
    head = b"<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(stream)
    at = data.index(b"<< /Length")
    end = data.index(b"endstream")
    making.write(folder, "a.pdf", data[:at] + head + stream + b"\n" + data[end:])
    refusal(folder, "a.pdf", time_limit_seconds=20.0)


def test_a_cell_of_megabytes_is_read_at_once(folder: Path):
    cell = "a" * (1 << 20)
    making.write(folder, "a.csv", f'text\n"{cell}"\n')
    reading = read(folder, time_limit_seconds=8.0)
    assert len(cell) in [document.n_characters for document in reading.documents]


def test_a_page_nested_ten_thousands_deep(folder: Path):
    making.write(folder, "deep.html", "<div>" * 20_000 + "deep" + "</div>" * 20_000)
    assert "deep\n" in [document.text for document in read(folder).documents]


def test_links_in_a_circle_and_to_nowhere(folder: Path):
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "gone.txt").symlink_to(folder / "never.txt")
    assert "circle" in refusal(folder, "sub/up")
    assert "leads nowhere" in refusal(folder, "self.txt")
    assert "leads nowhere" in refusal(folder, "gone.txt")


def test_devices_pipes_and_sockets(folder: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(folder / "pipe.txt")
    monkeypatch.chdir(folder)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.txt")
        assert "device" in refusal(folder, "pipe.txt")
        assert "device" in refusal(folder, "socket.txt")
    reading = read_documents(["/dev/zero", str(folder / "good.txt")], CorpusConfig())
    assert "device" in reading.findings.refused["/dev/zero"]


def test_archives_inside_an_archive_share_its_measure(folder: Path):
    """Each of them stays below the limit; a few kB become 64 MB all the same."""
    half = limits.EXPANSION_BYTES // 2
    inner = [making.zip_of({"a.txt": bytes([65 + i]) * half}) for i in range(8)]
    making.write(
        folder, "nest.zip", making.zip_of({f"{i}.zip": data for i, data in enumerate(inner)})
    )
    reading = read(folder)
    assert "zip bombs" in reading.findings.refused[str(folder / "nest.zip")]
    assert len(reading.documents) == 2  # the good one, and what came before the limit


@pytest.mark.parametrize("name", ["", ".", "./."])
def test_a_member_without_a_name(folder: Path, name: str):
    info = zipfile.ZipInfo("a")
    info.filename = name
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr(info, "nameless")
    with tarfile.open(folder / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name))
    assert "no name" in refusal(folder, f"a.zip/{name}")
    assert "no name" in refusal(folder, f"a.tar/{name}")


def test_names_that_a_terminal_would_obey_or_no_page_can_hold(folder: Path):
    strange = os.fsdecode(b"caf\xe9\x1b[2J.txt")
    making.write(folder, strange, "A file with a strange name.")
    making.write(folder, "a.zip", making.zip_of({"b\x1b]0;x\x07.txt": "A member with one too."}))
    making.write(folder, "c\x1b[2J.pdf", "no pdf")
    making.write(folder, "d.\x1b[2J", "unknown")
    reading = read(folder)
    assert {d.source.rpartition("/")[2] for d in reading.documents} == {
        "good.txt",
        r"caf\udce9\x1b[2J.txt",
        r"b\x1b]0;x\x07.txt",
    }
    shown = [*reading.findings.refused, *reading.findings.skipped]
    assert len(shown) == 2 and all(map(str.isprintable, shown))


def test_a_binary_and_a_damaged_file(folder: Path):
    making.write(folder, "a.txt", b"\x7fELF\0\0\1")
    making.write(folder, "b.docx", b"PK\3\4 and then nothing")
    making.write(folder, "c.ipynb", "{}")
    making.write(folder, "d.tar.gz", gzip.compress(b"no tar at all" * 100)[:-9])
    for name in ("a.txt", "b.docx", "c.ipynb", "d.tar.gz"):
        refusal(folder, name)


# ---- compressed files ------------------------------------------------------------------


@pytest.mark.parametrize(("end", "pack"), making.PACKERS)
def test_a_compressed_bomb_and_one_that_is_cut_off(folder: Path, end: str, pack):
    size = limits.EXPANSION_BYTES + (1 << 20)
    making.write(folder, f"bomb.txt{end}", pack(bytes(size)))
    assert "zip bombs" in refusal(folder, f"bomb.txt{end}")
    whole = pack(random.Random(1).randbytes(9999))
    making.write(folder, f"cut.txt{end}", whole[: len(whole) // 2])
    assert "damaged" in refusal(folder, f"cut.txt{end}")


def dictionary_of_gigabytes(end: str) -> bytes:
    """A few bytes of text whose header asks for far more memory than they need."""
    text = b"text\n" * 100
    if end == ".zst":
        asked = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
        packer = zstandard.ZstdCompressor(compression_params=asked).compressobj()
        return packer.compress(text) + packer.flush()
    if end == ".lzma":
        data = bytearray(lzma.compress(text, format=lzma.FORMAT_ALONE))
        data[1:5] = struct.pack("<I", 3 << 29)
        return bytes(data)
    data = bytearray(lzma.compress(text))
    data[data.index(b"\x21\x01", 12) + 2] = 39  # in the header of its first block, after 12 bytes
    end_of_header = 12 + 4 * (data[12] + 1)
    sum_of_header = zlib.crc32(bytes(data[12 : end_of_header - 4]))
    data[end_of_header - 4 : end_of_header] = struct.pack("<I", sum_of_header)
    return bytes(data)


@pytest.mark.parametrize("end", [".xz", ".lzma", ".zst"])
def test_a_dictionary_of_gigabytes(folder: Path, end: str):
    making.write(folder, f"a.txt{end}", dictionary_of_gigabytes(end))
    assert "MB of memory" in refusal(folder, f"a.txt{end}")


def test_a_dictionary_of_gigabytes_in_a_second_stream(folder: Path):
    making.write(folder, "a.txt.xz", lzma.compress(b"first") + dictionary_of_gigabytes(".xz"))
    assert "MB of memory" in refusal(folder, "a.txt.xz")


# ---- mail, tables, workbooks, chats, subtitles -----------------------------------------


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
