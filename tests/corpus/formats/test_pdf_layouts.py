"""PDFs whose text is turned, written in other scripts, or no part of the page's lines."""

from __future__ import annotations

import pytest

from folio.corpus.formats.passage import Notes
from folio.corpus.formats.pdf import read_pdf
from tests.corpus.making import paragraph_lines, pdf, pdf_page

LINES = (
    "The boat left the harbor early in the",
    "morning and nobody saw it come back",
    "before the winter storm.",
)


def text_of(data: bytes, notes: Notes | None = None) -> str:
    return "".join(passage.text for passage in read_pdf(data, notes or Notes()))


@pytest.mark.parametrize(
    ("matrix", "x", "y", "down"),
    [
        ("0 1 -1 0", 100, 100, (14, 0)),
        ("-1 0 0 -1", 500, 700, (0, 14)),
        ("0 -1 1 0", 500, 700, (-14, 0)),
    ],
    ids=["up", "upside down", "down"],
)
def test_turned_text_is_read_along_its_lines(matrix: str, x: int, y: int, down: tuple[int, int]):
    shown = [
        f"BT /F1 10 Tf {matrix} {x + down[0] * i} {y + down[1] * i} Tm ({line}) Tj ET"
        for i, line in enumerate(LINES)
    ]
    assert text_of(pdf(["\n".join(shown)])) == " ".join(LINES) + "\n"


def in_script(rows: list[tuple[float, float, str]]) -> bytes:
    """A PDF of text at places, in a font that has each character as a glyph one em wide."""
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    composite = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Any /Encoding /Identity-H /ToUnicode 7 0 R "
        b"/DescendantFonts [6 0 R] >>"
    )
    shown = [
        f"BT /F1 10 Tf 1 0 0 1 {x} {y} Tm <{text.encode('utf-16-be').hex()}> Tj ET"
        for x, y, text in rows
    ]
    base = pdf(["\n".join(shown)])
    base = base[: base.index(b"xref\n0")].replace(font, composite)
    used = sorted({c for _, _, text in rows for c in text})
    pairs = "\n".join(f"<{ord(c):04x}> <{ord(c):04x}>" for c in used)
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(used)} beginbfchar\n{pairs}\nendbfchar\nendcmap end end"
    ).encode()
    return with_objects(
        base,
        [
            b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Any /DW 1000 /FontDescriptor 8 0 R "
            b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap),
            b"<< /Type /FontDescriptor /FontName /Any /Flags 4 /Ascent 800 /Descent -200 "
            b"/CapHeight 700 /ItalicAngle 0 /StemV 80 /FontBBox [0 -200 1000 800] >>",
        ],
    )


def with_objects(body: bytes, added: list[bytes]) -> bytes:
    """The objects 1 to 5 of a PDF of one page, and others after them."""
    for number, content in enumerate(added, 6):
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    offsets = [body.index(b"\n%d 0 obj" % number) + 1 for number in range(1, 6 + len(added))]
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(offsets) + 1
    return (
        body + b"xref\n0 %d\n0000000000 65535 f \n" % size + table
        + b"trailer << /Size %d /Root 5 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, len(body))
    )  # fmt: skip


def test_hebrew_is_read_from_right_to_left():
    lines = ["הנר הישן דלק כל לילה", "ליד הנהר ואיש לא ידע"]
    drawn = [(300.0, 700.0 - 14 * i, line[::-1]) for i, line in enumerate(lines)]
    assert text_of(in_script(drawn)) == " ".join(lines) + "\n"


def test_a_latin_name_in_a_line_of_hebrew_is_no_cell_of_a_table():
    """In "Haifa." there the point, which is read last, stands left of the first letter."""
    line = "הנר הישן דלק Haifa ליד Haifa."
    drawn = [(300.0, 700.0, ".Haifa דיל Haifa קלד ןשיה רנה")]
    assert text_of(in_script(drawn)) == line + "\n"


def test_no_space_comes_between_lines_of_chinese():
    lines = [
        "老灯塔的看守人每天晚上在同一时间点灯",
        "镇上的人都不知道原因有一年冬天他没有",
        "来于是孩子们走上山去",
    ]
    drawn = [(60.0, 700.0 - 14 * i, line) for i, line in enumerate(lines)]
    assert text_of(in_script(drawn)) == "".join(lines) + "\n"


PLACE = b"/Rect [60 600 300 620] /P 3 0 R"
ANNOTATIONS = [
    b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (Ullin of Oe) %s >>" % PLACE,
    b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (b) /V <FEFF004700F6> %s >>" % PLACE,
    b"<< /Type /Annot /Subtype /Widget /FT /Ch /Ff 131072 /T (c) /V (blue) /Opt [(red) (blue)] %s "
    b">>" % PLACE,
    b"<< /Type /Annot /Subtype /Widget /FT /Btn /T (d) /V /Yes /AS /Yes %s >>" % PLACE,
    b"<< /Type /Annot /Subtype /Text /Contents (a comment) %s >>" % PLACE,
    b"<< /Type /Annot /Subtype /FreeText /Contents (A box of text.) %s >>" % PLACE,
]


def test_what_is_filled_in_is_read_and_comments_are_counted():
    body = pdf([pdf_page([(60, 700, "Name of the guest:")])])
    numbers = [b"%d 0 R" % number for number in range(6, 6 + len(ANNOTATIONS))]
    fields = b"/AcroForm << /Fields [%s] >>" % b" ".join(numbers[:4])
    body = body.replace(b"/MediaBox", b"/Annots [%s] /MediaBox" % b" ".join(numbers))
    body = body.replace(b"/Type /Catalog", b"/Type /Catalog " + fields)
    notes = Notes()
    text = text_of(with_objects(body[: body.index(b"xref\n0")], ANNOTATIONS), notes)
    assert text == "Name of the guest:\n\nUllin of Oe\n\nGö\n\nblue\n\nA box of text.\n"
    assert notes.dropped == {"comments": len("a comment")}


def test_a_drop_cap_belongs_to_the_word_that_it_begins():
    text = (
        "very morning the baker opened the shutters and looked for the grey cat that slept on the "
        "flour sacks and every morning the cat pretended not to know him"
    )
    words = text.split()
    lines = [
        (x + 24 if i < 2 else x, y, line)
        for i, (x, y, line) in enumerate(paragraph_lines(words, 60, 700, 70))
    ]
    page = pdf_page([(60, 686, "E")], 30) + "\n" + pdf_page(lines)
    assert text_of(pdf([page])) == f"E{text}\n"
