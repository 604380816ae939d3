"""What a document hides is counted by a reason; what it shows is read once, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.reading import Reading
from tests.corpus import making

RELATION = f'<Relationship Id="{{}}" Type="{making.OFFICE_RELATIONS}/{{}}" Target="{{}}"/>'


def relations(*lines: tuple[str, str, str]) -> str:
    made = "".join(RELATION.format(*line) for line in lines)
    return f'<Relationships xmlns="{making.RELATIONS}">{made}</Relationships>'


def read(folder: Path, name: str, content: bytes | str) -> Reading:
    """What a file gives, whose bytes add up."""
    reading = read_documents([str(making.write(folder, name, content))], CorpusConfig())
    kept = sum(document.n_bytes for document in reading.documents)
    dropped = reading.tally.dropped.total()
    assert reading.n_bytes == kept + dropped + sum(reading.tally.rewritten.values())
    return reading


def text_of(reading: Reading) -> str:
    return "|".join(reading.documents[0].text.split("\n")).replace("||", "|").strip("|")


# ---- Word ------------------------------------------------------------------------------

STYLES = (
    '<w:style w:type="character" w:styleId="Ghost"><w:rPr><w:vanish/></w:rPr></w:style>'
    '<w:style w:type="character" w:styleId="Child"><w:basedOn w:val="Ghost"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="GhostLine"><w:rPr><w:vanish/></w:rPr></w:style>'
    '<w:style w:styleId="Circle"><w:basedOn w:val="Circle"/></w:style>'
)


def word(body: str) -> bytes:
    """A Word document with styles that hide."""
    names = f'xmlns:w="{making.WORD}" xmlns:mc="urn:mc" xmlns:r="urn:r"'
    return making.zip_of(
        {
            "word/document.xml": f"<w:document {names}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relations(
                ("r1", "styles", "styles.xml"), ("r2", "diagramData", "diagrams/data1.xml")
            ),
            "word/styles.xml": f"<w:styles {names}>{STYLES}</w:styles>",
            "word/diagrams/data1.xml": "<d><pt><t><p><r><t>In a box.</t></r></p></t></pt></d>",
        }
    )


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>"


def field(code: str, result: str) -> str:
    marks = [f'<w:r><w:fldChar w:fldCharType="{m}"/></w:r>' for m in ("begin", "separate", "end")]
    return f"{marks[0]}{code}{marks[1]}{result}{marks[2]}"


def code_of(text: str) -> str:
    return f"<w:r><w:instrText>{text}</w:instrText></w:r>"


GHOST = '<w:rStyle w:val="Ghost"/>'
BOX = "<w:txbxContent><w:p>{}</w:p></w:txbxContent>"
WORDS = {
    "hidden by itself": (run("Ghost", "<w:vanish/>"), "hidden text", 5),
    "shown all the same": (run("Shown", '<w:vanish w:val="0"/>'), "", 0),
    "hidden by its style": (run("Ghost", GHOST), "hidden text", 5),
    "by what that is based on": (run("Ghost", '<w:rStyle w:val="Child"/>'), "hidden text", 5),
    "more than its style": (run("Shown", f'{GHOST}<w:vanish w:val="false"/>'), "", 0),
    "a style that is its own": (run("Shown", '<w:rStyle w:val="Circle"/>'), "", 0),
    "inserted": (f"<w:ins>{run('Shown')}</w:ins>", "", 0),
    "deleted": ("<w:del><w:r><w:delText>Ghost</w:delText></w:r></w:del>", "deleted text", 5),
    "inserted and deleted": (
        "<w:ins><w:del><w:r><w:delText>Ghost</w:delText></w:r></w:del></w:ins>", "deleted text", 5
    ),
    "moved away": (f"<w:moveFrom>{run('Ghost')}</w:moveFrom>", "deleted text", 5),
    "moved here": (f"<w:moveTo>{run('Shown')}</w:moveTo>", "", 0),
    "the result of a field": (field(code_of("REF x"), run("Shown")), "codes of fields", 5),
    "a field in the code of one": (
        field(code_of("IF ") + field(code_of("REF x"), run("Ghost")), run("Shown")),
        "codes of fields", 13,
    ),
    "a simple field": (
        f'<w:fldSimple w:instr="REF">{run("Shown")}</w:fldSimple>', "codes of fields", 3
    ),
    "a BOX, twice": (
        "<w:r><mc:AlternateContent><mc:Choice>" + BOX.format(run("Shown")) + "</mc:Choice>"
        "<mc:Fallback>" + BOX.format(run("Shown")) + "</mc:Fallback></mc:AlternateContent></w:r>",
        "what stands there in another form", 5,
    ),
    "a picture, and its words in a BOX": (
        "<w:r><mc:AlternateContent><mc:Choice><w:drawing/></mc:Choice><mc:Fallback>"
        + BOX.format(run("Shown")) + "</mc:Fallback></mc:AlternateContent></w:r>", "", 0,
    ),
    "a drawing with boxes": ('<w:r><d:relIds xmlns:d="d" r:dm="r2"/></w:r>', "", 0),
    "a control that asks": (
        "<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>" + run("Ghost")
        + "</w:sdtContent></w:sdt>", "placeholders of fields", 5,
    ),
}  # fmt: skip
"""What stands between two words of a paragraph, why it is left out, and how many bytes."""


@pytest.mark.parametrize("what", WORDS)
def test_word_text_is_read_as_it_is_shown(tmp_path: Path, what: str):
    inside, reason, n_bytes = WORDS[what]
    reading = read(tmp_path, "a.docx", word(f"<w:p>{run('One ')}{inside}{run(' two.')}</w:p>"))
    text = text_of(reading)
    assert "Ghost" not in text
    assert text.count("Shown") == inside.count("Shown") - ("twice" in what)
    assert ("In a box." in text) == ("drawing" in what)
    sentence = "One Shown two." if "Shown" in inside and "BOX" not in what else "One  two."
    assert text.partition("|")[0] == sentence
    dropped = dict(reading.tally.dropped)
    dropped.pop("pictures, styles and other parts", None)
    assert dropped == ({reason: n_bytes} if reason else {})


def test_a_field_that_never_ends_hides_no_more_than_its_paragraph(tmp_path: Path):
    begin = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    body = f"<w:p>{run('One.')}{begin}{code_of('REF')}{run('x')}</w:p><w:p>{run('Two.')}</w:p>"
    assert text_of(read(tmp_path, "a.docx", word(body))) == "One.|Two."


def test_a_hidden_paragraph_and_a_deleted_row_are_counted(tmp_path: Path):
    hidden = f'<w:p><w:pPr><w:pStyle w:val="GhostLine"/></w:pPr>{run("Ghost")}</w:p>'
    row = "<w:tr><w:trPr><w:{}/></w:trPr><w:tc>{}</w:tc></w:tr>"
    table = "".join(row.format(name, f"<w:p>{run('Row')}</w:p>") for name in ("del", "x", "hidden"))
    reading = read(tmp_path, "a.docx", word(f"{hidden}<w:tbl>{table}</w:tbl>"))
    assert text_of(reading) == "Row"
    assert reading.tally.dropped["hidden text"] == len("Ghost") + len("Row")
    assert reading.tally.dropped["deleted text"] == len("Row")


def test_formulas_keep_what_stands_above_and_below(tmp_path: Path):
    formula = (
        '<m:oMath xmlns:m="urn:x/math"><m:sSup><m:e><m:r><m:t>c</m:t></m:r></m:e><m:sup><m:r>'
        "<m:t>2</m:t></m:r></m:sup></m:sSup><m:f><m:num><m:r><m:t>m</m:t></m:r></m:num><m:den>"
        "<m:r><m:t>a+b</m:t></m:r></m:den></m:f><m:rad><m:deg/><m:e><m:r><m:t>x+1</m:t></m:r></m:e>"
        "</m:rad></m:oMath>"
    )
    assert text_of(read(tmp_path, "a.docx", word(f"<w:p>{formula}</w:p>"))) == "c^2m/(a+b)√(x+1)"


def test_a_large_first_letter_begins_its_word(tmp_path: Path):
    cap = f'<w:p><w:pPr><w:framePr w:dropCap="drop"/></w:pPr>{run("D")}</w:p>'
    framed = f'<w:p><w:pPr><w:framePr w:w="9"/></w:pPr>{run("In a frame.")}</w:p>'
    body = f"{cap}<w:p>{run('rop by drop.')}</w:p>{framed}<w:p>{run('Next.')}</w:p>"
    assert text_of(read(tmp_path, "a.docx", word(body))) == "Drop by drop.|In a frame.|Next."


def test_a_paragraph_whose_end_is_deleted_goes_on_in_the_next_one_of_its_body(tmp_path: Path):
    joined = "<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr>{}</w:p>".format
    cells = "".join(f"<w:tc>{joined(run(text))}</w:tc>" for text in ("A", "B"))
    table = f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    body = f"{joined(run('One '))}<w:p>{run('line.')}</w:p>{joined(run('Two'))}{table}"
    body += joined(run("The end."))
    assert text_of(read(tmp_path, "a.docx", word(body))) == "One line.|Two|A\tB|The end."


# ---- presentations ---------------------------------------------------------------------


def shape(text: str, about: str = "") -> str:
    return f"<p:sp><p:nvSpPr>{about}</p:nvSpPr><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:sp>"


def presentation(slides: dict[str, str], shown: str = "21") -> bytes:
    """Slides by their numbers, and the order in which they are shown."""
    names = 'xmlns:p="p" xmlns:a="a" xmlns:r="r"'
    order = "".join(f'<p:sldId id="25{n}" r:id="r{n}"/>' for n in shown)
    return making.zip_of(
        {
            "ppt/presentation.xml": f"<p:presentation {names}>{order}</p:presentation>",
            "ppt/_rels/presentation.xml.rels": relations(
                *((f"r{n}", "slide", f"slides/slide{n}.xml") for n in slides)
            ),
            **{
                f"ppt/slides/slide{n}.xml": f"<p:sld {names}{body}</p:sld>"
                for n, body in slides.items()
            },
            "ppt/slides/_rels/slide1.xml.rels": relations(
                ("r1", "notesSlide", "../notesSlides/notesSlide9.xml")
            ),
            "ppt/notesSlides/notesSlide9.xml": f"<p:n {names}>{shape('Said to one.')}</p:n>",
        }
    )


def test_slides_come_in_the_order_in_which_they_are_shown_each_with_its_notes(tmp_path: Path):
    slides = {"1": f">{shape('One.')}", "2": f">{shape('Two.')}", "3": f">{shape('Unused.')}"}
    reading = read(tmp_path, "a.pptx", presentation(slides))
    assert text_of(reading) == "Two.|One.|Said to one."
    assert reading.tally.dropped["slides that are not in the presentation"] == len("Unused.")


def test_hidden_slides_and_shapes_numbers_and_second_forms_are_counted(tmp_path: Path):
    place = '<p:nvPr><p:ph type="{}"/></p:nvPr>'
    forms = "<m:AlternateContent xmlns:m='m'><m:Choice>{0}</m:Choice><m:Fallback>{0}</m:Fallback>"
    body = (
        f">{shape('7', place.format('sldNum'))}{shape('Ghost', '<p:cNvPr hidden=`1`/>')}"
        f"{shape('Title', place.format('title'))}{forms.format(shape('Form'))}"
        "</m:AlternateContent><a:tbl><a:tr><a:tc><a:p><a:r><a:t>a</a:t></a:r></a:p></a:tc>"
        "<a:tc><a:p><a:r><a:t>b</a:t></a:r></a:p></a:tc></a:tr></a:tbl>"
    )
    body = body.replace("`", "'")
    reading = read(tmp_path, "a.pptx", presentation({"1": f' show="0">{shape("No")}', "2": body}))
    assert text_of(reading) == "Title|Form|a\tb"
    dropped = reading.tally.dropped
    assert dropped["hidden slides"] == len("No") + len("Said to one.")
    assert dropped["page headers and footers"] == len("7")
    assert dropped["hidden text"] == len("Ghost")
    assert dropped["what stands there in another form"] == len("Form")


# ---- workbooks -------------------------------------------------------------------------


def workbook(sheets: dict[str, str], rows: str, more: dict[str, str | bytes]) -> bytes:
    """A workbook whose sheets, of a name and with attributes, have the same rows."""
    listed = "".join(
        f'<sheet name="{name}" r:id="r{i}"{about}/>'
        for i, (name, about) in enumerate(sheets.items())
    )
    parts: dict[str, str | bytes] = {
        "xl/workbook.xml": f'<workbook xmlns:r="r"><workbookPr{{}}/>{listed}</workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            *((f"r{i}", "worksheet", f"worksheets/sheet{9 - i}.xml") for i in range(len(sheets)))
        ),
        **{
            f"xl/worksheets/sheet{9 - i}.xml": f"<worksheet>{rows.replace('§', name)}</worksheet>"
            for i, name in enumerate(sheets)
        },
    }
    parts["xl/workbook.xml"] = str(parts["xl/workbook.xml"]).format(more.pop("date1904", ""))
    return making.zip_of(parts | more)


def rows_of(*rows: str) -> str:
    return f"<sheetData>{''.join(rows)}</sheetData>"


def cell(name: str, text: str) -> str:
    return f'<c r="{name}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_hidden_sheets_rows_and_columns_are_counted(tmp_path: Path):
    columns = '<cols><col min="2" max="3" hidden="1"/></cols>'
    first = f"<row>{cell('A1', '§')}{cell('B1', 'Ghost')}{cell('D1', 'd')}</row>"
    second = f'<row hidden="1">{cell("A2", "Ghost")}</row>'
    sheets = {"Zoo": "", "Ant": "", "No": ' state="veryHidden"'}
    reading = read(tmp_path, "a.xlsx", workbook(sheets, columns + rows_of(first, second), {}))
    assert text_of(reading) == "Zoo\t\t\td|Ant\t\t\td"
    assert [place for _, place in reading.documents[0].places] == ["sheet Zoo", "sheet Ant"]
    assert reading.tally.dropped["hidden rows and columns"] == 3 * 2 * len("Ghost")
    assert reading.tally.dropped["hidden sheets"] == len("No\t\t\td\n")


@pytest.mark.parametrize(
    ("attributes", "content", "shown"),
    [
        ('s="1"', "<v>45352</v>", "2024-03-01"),
        ('s="1"', "<v>45352.604166666664</v>", "2024-03-01 14:30:00"),
        ('s="2"', "<v>0.604166666666667</v>", "14:30:00"),
        ('s="3"', "<v>45352</v>", "45352"),
        ("", "<v>0.30000000000000004</v>", "0.3"),
        ("", "<v>13.0</v>", "13"),
        ("", "<v>12345678901234567</v>", "1.23456789012346e+16"),
        ("", "<f>A1+1</f><v>7</v>", "7"),
        ('t="str"', "<f>A1</f><v>seven</v>", "seven"),
        ('t="b"', "<v>1</v>", "TRUE"),
        ('t="e"', "<v>#N/A</v>", "#N/A"),
        ('s="99"', "<v>5</v>", "5"),
        ('s="1"', "<v>1e300</v>", "1e300"),
    ],
)
def test_a_cell_is_read_as_it_is_shown(tmp_path: Path, attributes: str, content: str, shown: str):
    styles = (
        '<styleSheet><numFmts><numFmt numFmtId="170" formatCode="h:mm&quot; o\'clock&quot;"/>'
        '<numFmt numFmtId="171" formatCode="0&quot; days&quot;"/></numFmts><cellXfs>'
        '<xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="170"/><xf numFmtId="171"/></cellXfs>'
        "</styleSheet>"
    )
    rows = rows_of(f'<row><c r="A1" {attributes}>{content}</c></row>')
    data = workbook({"A": ""}, rows, {"xl/styles.xml": styles})
    assert text_of(read(tmp_path, "a.xlsx", data)) == shown


def test_dates_may_be_counted_from_1904(tmp_path: Path):
    styles = '<styleSheet><cellXfs><xf numFmtId="14"/></cellXfs></styleSheet>'
    rows = rows_of('<row><c s="0"><v>43890</v></c></row>')
    more: dict[str, str | bytes] = {"xl/styles.xml": styles, "date1904": ' date1904="1"'}
    assert text_of(read(tmp_path, "a.xlsx", workbook({"A": ""}, rows, more))) == "2024-03-01"


# ---- OpenDocument and pages ------------------------------------------------------------

ODT_STYLES = (
    '<automatic-styles><style name="Ghost"><text-properties display="none"/></style>'
    '<style name="Child" parent-style-name="Ghost"/>'
    '<style name="Plain"><text-properties/></style></automatic-styles>'
)


@pytest.mark.parametrize(
    "hidden",
    [
        "<p style-name='Ghost'>Ghost</p>",
        "<p style-name='Child'>Ghost</p>",
        "<p><span style-name='Ghost'>Ghost</span></p>",
        "<section display='none'><p>Ghost</p></section>",
        "<section display='condition' is-hidden='true'><p>Ghost</p></section>",
        "<p>Ghost<hidden-paragraph is-hidden='true'/></p>",
        "<p><hidden-text is-hidden='true'>Ghost</hidden-text></p>",
        "<table><table-row visibility='filter'><table-cell><p>Ghost</p></table-cell></table-row>"
        "</table>",
    ],
)
def test_what_an_odt_hides_is_counted(tmp_path: Path, hidden: str):
    shown = "<p style-name='Plain'>Shown<hidden-paragraph is-hidden='false'/></p>"
    content = f"<d>{ODT_STYLES}<body><text>{shown}{hidden}</text></body></d>"
    reading = read(tmp_path, "a.odt", making.zip_of({"content.xml": content}))
    assert text_of(reading) == "Shown"
    assert reading.tally.dropped["hidden text"] == len("Ghost")


def test_a_field_that_shows_the_title_of_an_odt_is_read_and_that_of_a_picture_is_not(
    tmp_path: Path,
):
    picture = "<draw:frame xmlns:draw='d' xmlns:svg='s'><svg:title>A lamp</svg:title></draw:frame>"
    body = f"<text:p><text:title>My book</text:title> by me{picture}</text:p>"
    reading = read(tmp_path, "a.odt", making.odt(body))
    assert text_of(reading) == "My book by me"
    assert reading.tally.dropped["descriptions of pictures and fields"] == len("A lamp")


def test_workbooks_and_presentations_of_open_document_are_read(tmp_path: Path):
    cells = (
        "<table-cell number-columns-repeated='2'><p>a</p></table-cell><table-cell "
        "number-columns-repeated='1000'/>"
    )
    styles = (
        "<style name='No'><table-properties display='false'/></style>"
        "<style name='Not'><drawing-page-properties visibility='hidden'/></style>"
    )
    row = f"<table-row>{cells}</table-row>"
    tables = f"<table>{row}</table><table style-name='No'>{row}</table>"
    page = "<page{}><frame><text-box><p>Said.</p></text-box></frame></page>"
    for name, body, text, reason in (
        ("a.ods", f"<spreadsheet>{tables}</spreadsheet>", "a\ta", len("a")),
        ("a.odp", page.format("") + page.format(" style-name='Not'"), "Said.", len("Said.")),
    ):
        content = f"<d>{styles}<body>{body}</body></d>"
        reading = read(tmp_path, name, making.zip_of({"content.xml": content}))
        assert text_of(reading) == text
        assert reading.tally.dropped["hidden text"] == reason


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>Ghost</p>",
        "<p style='color:red; display: none'>Ghost</p>",
        "<p style='VISIBILITY:hidden'>Ghost</p>",
        "<p aria-hidden='true'>Ghost</p>",
        "<dialog>Ghost</dialog>",
        "<div style='display:none'><p style='display:block'>Ghost</p></div>",
    ],
)
def test_what_a_page_hides_is_counted(tmp_path: Path, hidden: str):
    shown = "<p aria-hidden='false'>Shown</p><dialog open>too</dialog>"
    page = f"<body style='visibility:hidden'>{shown}{hidden}<p>at the end</p>"
    reading = read(tmp_path, "a.html", page)
    assert text_of(reading) == "Shown|too|at the end"
    assert reading.tally.dropped["hidden text"] == len("Ghost")


def test_a_page_that_a_script_would_show_is_read(tmp_path: Path):
    page = "<title>Name</title><body><script>show()</script><div style='display:none'><p>All.</p>"
    reading = read(tmp_path, "a.html", page)
    assert text_of(reading) == "Name|All."
    assert any("is hidden, and is read" in line for line in reading.warnings())
    assert "hidden text" not in reading.tally.dropped


def test_a_title_that_no_reader_of_a_book_or_a_mail_displays_is_counted(tmp_path: Path):
    page = "<html><head><title>Unknown</title></head><body>{}</body></html>"
    parts = ("<p>It was a dark night and the</p>", "<p>rain fell.</p>")
    book = making.epub({f"{i}.html": page.format(part) for i, part in enumerate(parts)})
    mail = f"Content-Type: text/html\n\n{page.format(parts[1])}"
    for name, content, text, n in (
        ("a.epub", book, "It was a dark night and the|rain fell.", 2),
        ("a.eml", mail, "rain fell.", 1),
    ):
        reading = read(tmp_path, name, content)
        assert text_of(reading) == text
        assert reading.tally.dropped["titles that nothing shows"] == n * len("Unknown")
