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
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from folio.corpus import limits
from folio.corpus.corpus import CorpusConfig, read_documents
from tests.corpus import hostile, making
from tests.corpus.hostile import ENTITY, LAUGHS, read, refusal

folder = hostile.folder


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.docx", "bomb.epub", "bomb.odt"])
def test_a_zip_bomb(folder: Path, name: str):
    size = limits.EXPANSION_BYTES + (1 << 20)
    part = {"bomb.zip": "a.txt", "bomb.docx": "word/document.xml", "bomb.odt": "content.xml"}
    making.write(
        folder, name, making.zip_of({part.get(name, "META-INF/container.xml"): bytes(size)})
    )
    assert "zip bombs" in refusal(folder, name)


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_a_tar_bomb_even_where_its_member_is_not_wanted(folder: Path, kind: str):
    size = limits.EXPANSION_BYTES + (1 << 20)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        info = tarfile.TarInfo("a.unknown")
        info.size = size
        file.addfile(info, io.BytesIO(bytes(size)))
    pack = dict(making.PACKERS)[f".{kind}"]
    making.write(folder, f"bomb.tar.{kind}", pack(packed.getvalue()))
    assert "zip bombs" in refusal(folder, f"bomb.tar.{kind}")


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


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_loses_no_other_and_a_damaged_part_is_told(folder: Path, method: int):
    def damaged(part: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as file:
            file.writestr(part, random.Random(1).randbytes(1000))
            file.writestr("b.txt", "The other member is read.")
        data = bytearray(buffer.getvalue())
        data[100:900] = bytes(800)
        return bytes(data)

    making.write(folder, "a.zip", damaged("a.txt"))
    making.write(folder, "b.epub", damaged("META-INF/container.xml"))
    assert "The other member is read." in [d.text for d in read(folder).documents]
    assert "damaged" in refusal(folder, "a.zip/a.txt")
    assert "its part META-INF/container.xml is damaged" in refusal(folder, "b.epub")


def test_a_part_that_is_packed_in_an_unknown_way_is_not_encrypted(folder: Path):
    data = bytearray(making.zip_of({"META-INF/container.xml": b"x" * 100}))
    data[8] = data[data.index(b"PK\1\2") + 10] = 99  # the method of compression
    making.write(folder, "b.epub", bytes(data))
    assert "compression method is not supported" in refusal(folder, "b.epub")


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
def test_a_compressed_bomb_and_one_that_is_cut_off(
    folder: Path, end: str, pack: Callable[[bytes], bytes]
):
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
