"""Every word of a folder of many formats arrives, each text known beforehand."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.formats.html import html_text
from folio.corpus.formats.passage import Notes
from tests.corpus import making

PROSE_TEXT = (
    "The lighthouse keeper counted nineteen ships before the fog rolled over Brannock Sound. "
    "She wrote each name into a ledger bound in green cloth, and under the names she drew the "
    "weather: a circle for calm, a hook for wind, three strokes for rain. Nobody had asked her to."
)
PROSE = PROSE_TEXT.split()
EMOJI = "naïve café 🦊 👩‍🚀 ß 世界 Ω"
CODE = "def area(r):\n    if r < 0:\n        raise ValueError(r)\n    return 3.14 * r ** 2"
TABLE = [["harbour", "depth"], ["Brannock", "12.5"], ["Ullin Quay", "7"]]
NOTE = "The ledger is kept in the museum of Ullin."


def write_office_files(folder: Path, html: str) -> None:
    """docx, odt and epub."""
    prose, write = PROSE_TEXT, making.write
    write(
        folder,
        "e.docx",
        making.docx(
            making.docx_paragraph(prose, '<w:r><w:footnoteReference w:id="2"/></w:r>')
            + making.docx_table(TABLE)
            + "".join(making.docx_paragraph(line) for line in CODE.split("\n"))
            + making.docx_paragraph(EMOJI),
            f'<w:footnote w:id="2">{making.docx_paragraph(NOTE)}</w:footnote>',
        ),
    )
    write(
        folder,
        "f.odt",
        making.odt(
            f'<text:p>{prose}<text:note text:note-class="footnote"><text:note-citation>1'
            f"</text:note-citation><text:note-body><text:p>{NOTE}</text:p></text:note-body>"
            f"</text:note></text:p>{making.odt_table(TABLE)}"
            f"<text:p>x<text:s text:c='3'/>y<text:tab/>z</text:p><text:p>{EMOJI}</text:p>"
        ),
    )
    write(
        folder,
        "g.epub",
        making.epub(
            {
                "one.xhtml": making.xhtml(f"<h1>Ships</h1><p>{prose}</p>"),
                "two.xhtml": making.xhtml(f"<h1>Harbours</h1>{html}"),
            }
        ),
    )


def the_folder(folder: Path) -> dict[str, list[str]]:
    """Write a file of each format; what each must contain, as stretches of words."""
    prose = PROSE_TEXT
    rows = ["\t".join(row) for row in TABLE]
    row_xml = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in TABLE
    )
    html = (
        f"<h1>Ships</h1><p>{prose}</p><table>{row_xml}</table><pre>"
        f"{CODE.replace('<', '&lt;')}</pre><p>{EMOJI}<sup>1</sup></p><p>1 {NOTE}</p>"
    )
    write = making.write
    write(folder, "a.txt", f"{prose}\n{EMOJI}\n")
    write(folder, "b.md", f"# Ships\n\n{prose}\n\n```\n{CODE}\n```\n")
    write(folder, "c.rst", f"Ships\n=====\n\n{prose}\n\n.. [1] {NOTE}\n")
    write(folder, "d.html", f"<title>Ships</title><body><nav>Home</nav>{html}")
    write_office_files(folder, html)
    left = making.paragraph_lines(PROSE, 60, 700, 40)
    right = making.paragraph_lines([word.upper() for word in PROSE], 320, 700, 36)
    interleaved = [line for pair in zip(left, right) for line in pair]
    interleaved += left[len(right) :] + right[len(left) :]
    title = [
        (60.0, 760.0, "A title that stands over both of the columns of this page, and then some")
    ]
    write(folder, "h.pdf", making.pdf([making.pdf_page(title + interleaved)]))
    write(folder, "i.csv", making.csv_file([["id", "text"], ["1", prose], ["2", EMOJI]]))
    write(folder, "j.jsonl", making.jsonl([{"text": prose}, {"text": CODE}, {"text": EMOJI}]))
    write(folder, "k.ipynb", making.notebook([("markdown", prose), ("code", CODE)], output="9\n"))
    write(folder, "l.py", CODE)
    write(folder, "m.csv", making.csv_file(TABLE, ";"))
    everything = [prose, EMOJI, CODE, NOTE, *rows]
    return {
        "a.txt": [prose, EMOJI],
        "b.md": [prose, CODE],
        "c.rst": [prose, NOTE],
        "d.html": ["Ships", *everything],
        "e.docx": everything,
        "f.odt": [prose, EMOJI, NOTE, "x   y\tz", *rows],
        "g.epub": ["Ships\n\n" + prose, "Harbours", *everything],
        "h.pdf": [" ".join(line[2] for line in title), prose, prose.upper()],
        "i.csv": [prose, EMOJI],
        "j.jsonl": [prose, CODE, EMOJI],
        "k.ipynb": [prose, CODE],
        "l.py": [CODE],
        "m.csv": rows,
    }


def texts_of(source: Path) -> dict[str, str]:
    """The text of each file, its documents one after the other."""
    texts: dict[str, str] = {}
    for document in read_documents([str(source)], CorpusConfig()).documents:
        assert document.provenance is not None
        name = Path(document.provenance.path).name
        texts[name] = texts.get(name, "") + document.text + "\n"
    return texts


def unmarked(text: str) -> str:
    """Without marks of footnotes, and with one line for what is preformatted by paragraphs."""
    return re.sub(r"\n\n(?= )", "\n", re.sub(r"\[1\]", "", text))


def test_every_word_of_thirteen_formats_arrives(tmp_path: Path):
    expected = the_folder(tmp_path)
    texts = texts_of(tmp_path)
    assert texts.keys() == expected.keys()
    for name, stretches in expected.items():
        for stretch in stretches:
            assert stretch in unmarked(texts[name]), name


def test_a_footnote_follows_the_paragraph_that_refers_to_it(tmp_path: Path):
    the_folder(tmp_path)
    texts = texts_of(tmp_path)
    for name in ("e.docx", "f.odt"):
        assert f"{PROSE_TEXT}[1]\n\n[1] {NOTE}\n" in texts[name], name


def test_nothing_is_added_but_line_ends(tmp_path: Path):
    """What arrives more than once, or was never written, would be learned all the same."""
    expected = the_folder(tmp_path)
    for name, text in texts_of(tmp_path).items():
        known = {word for stretch in expected[name] for word in stretch.split()}
        strange = set(unmarked(text).split()) - known
        assert strange <= {"#", "Ships", "```", "=====", "..", "1", "Ω1"}, name
        if name != "g.epub":
            assert len(re.findall(r"\bkeeper\b", text)) <= 1, name


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path):
    folder = tmp_path / "folder"
    the_folder(folder)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"inside/{path.name}")
    assert texts_of(tmp_path / "all.zip") == texts_of(folder)


def test_provenance_names_file_reader_and_chapter(tmp_path: Path):
    the_folder(tmp_path)
    documents = read_documents([str(tmp_path / "g.epub")], CorpusConfig()).documents
    (document,) = documents
    assert document.provenance is not None
    assert document.provenance.extractor.startswith("folio epub")
    assert "selectolax" in document.provenance.extractor
    assert len(document.provenance.sha256) == 64
    assert [name for _, name in document.places] == ["chapter Ships", "chapter Harbours"]
    for at, name in document.places:
        assert document.text[at:].startswith(name.removeprefix("chapter "))


@pytest.mark.parametrize("name", ["d.html", "h.pdf", "e.docx", "g.epub"])
def test_without_the_extra_a_named_file_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    from folio.corpus import extraction
    from folio.errors import UserError

    the_folder(tmp_path)
    monkeypatch.setattr(extraction.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'foliolm\[documents\]'"):
        read_documents([str(tmp_path / name)], CorpusConfig())
    reading = read_documents([str(tmp_path)], CorpusConfig())
    assert "foliolm[documents]" in reading.findings.refused[str(tmp_path / name)]
    assert str(tmp_path / "a.txt") in {document.source for document in reading.documents}


def test_deleted_text_and_comments_of_an_odt_are_left_out(tmp_path: Path):
    body = (
        "<text:tracked-changes><text:deletion><text:p>Deleted.</text:p></text:deletion>"
        "</text:tracked-changes><text:p>Kept<office:annotation><text:p>A comment.</text:p>"
        "</office:annotation> text.</text:p>"
    )
    making.write(tmp_path, "a.odt", making.odt(body))
    (document,) = read_documents([str(tmp_path)], CorpusConfig()).documents
    assert document.text == "Kept text.\n"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<table><tr><td><p>Name</p><td><div><p>Age</p></div><tr><td><p>Anna</p><td>41</table>",
         "Name\tAge\nAnna\t41"),
        ("<table><tr><td></td><td>Age</td></tr><tr><td><br><tr><td>41</table>", "\tAge\n41"),
        ("<table><tr><td><table><tr><td>A<td>B<tr><td>C</table><td>D<tr><td>E</table>",
         "A\tB\nC\n\n\tD\nE"),
        ("<table><tr><td><h1>One</h1><p>Two</p><td><p>Three</p></table>", "One\n\nTwo\n\n\tThree"),
        ("<table><tr><td>A<br>B<td>C<tr><td><p>D<br>E</p><td>F<div>G</div></table>",
         "A B\tC\nD E\tF G"),
        ("<table><tr><td>A<br>B</table>", "A\nB"),
        (f"<table><tr><td>A<br>{'B' * 99}<td>C</table>", f"A\n{'B' * 99}\tC"),
        ("<table><tr><td><pre>a\n b</pre><td>C</table>", "a\n b\tC"),
        ("<table><tr><td>1<td><pre><i>a</i>\n<i>b</i></pre></table>", "1\ta\nb"),
        ("One<br>two<br><br>Three<br>\n<br><br>Four", "One\ntwo\n\nThree\n\nFour"),
        ("<div>One<div><br></div><div>Two</div></div><br>Three", "One\n\nTwo\n\nThree"),
        ("<div>One<br></div><div>Two</div><p>Three<br></p><br>Four", "One\nTwo\n\nThree\n\nFour"),
        ("<center><b>One</b></center>Two<center>*</center>Three", "One\nTwo\n*\nThree"),
        ("One<xmp>a\n <b></xmp>Two<listing>x\n y</listing>Three",
         "One\n\na\n <b>\n\nTwo\n\nx\n y\n\nThree"),
    ],
)  # fmt: skip
def test_where_a_page_breaks_its_lines(page: str, text: str):
    assert html_text(page, Notes()).strip("\n") == text
