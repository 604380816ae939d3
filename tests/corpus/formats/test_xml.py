"""XML of strangers: cut off, with entities, with text in attributes, in feeds, in papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.reading import Reading
from folio.errors import UserError
from tests.corpus.making import write


def read(folder: Path, source: str | bytes, name: str = "a.xml") -> Reading:
    """What a file gives, whose bytes add up."""
    reading = read_documents([str(write(folder, name, source))], CorpusConfig())
    kept = sum(document.n_bytes for document in reading.documents)
    rewritten = sum(reading.tally.rewritten.values())
    assert reading.n_bytes == kept + reading.tally.dropped.total() + rewritten
    return reading


def lines(folder: Path, source: str | bytes, name: str = "a.xml") -> list[str]:
    return read(folder, source, name).documents[0].text.splitlines()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a><t>One</t><t>Two &amp; three</t><t>Fo", ["One", "Two & three", "Fo"]),
        ("<t>One</t><t>Two</t>", ["One", "Two"]),
        ("<a><t>One & two</t><t>3 < 4</t></a>", ["One & two", "3 < 4"]),
        ("<a><t b='1' b='2'>One</t></a>", ["One"]),
        ("<a><t>One</u></t><x:t>Two</x:t><br></a>", ["One", "Two"]),
        ("<a><t><![CDATA[<One>]]></t><t>&unknown; two</t></a>", ["<One>", "&unknown; two"]),
        ("<a><t>One</t><t>Two</t></a", ["One", "Two"]),
        ("\n<?xml version='1.0'?><a><t>One</t></a>", ["One"]),
    ],
)
def test_xml_against_its_rules_is_read_by_its_tags(
    tmp_path: Path, source: str, expected: list[str]
):
    reading = read(tmp_path, source)
    assert reading.documents[0].text.splitlines() == expected
    if not source.startswith("\n"):
        assert any("not well-formed XML" in line for line in reading.warnings())


def test_what_has_no_element_is_no_xml(tmp_path: Path):
    with pytest.raises(UserError, match="not well-formed XML"):
        read(tmp_path, "Only words.")


def test_entities_that_stand_for_words_are_resolved(tmp_path: Path):
    source = (
        '<!DOCTYPE a PUBLIC "-//x" "x.dtd" [<!ENTITY us "We &mdash; I">]>'.replace("&mdash;", "and")
        + "<a><t>&us; write na&iuml;vely&nbsp;&lt;b&gt;.</t></a>"
    )
    assert lines(tmp_path, source) == ["We and I write naïvely\u00a0<b>."]


def test_names_of_pictures_beside_a_file_are_no_reason_to_refuse_it(tmp_path: Path):
    source = (
        '<!DOCTYPE a SYSTEM "a.dtd" [<!ENTITY F-1.T SYSTEM "F-1.TIF" NDATA TIF>]><a><p>One</p></a>'
    )
    assert lines(tmp_path, source) == ["One"]


def test_pages_of_a_wiki_are_documents(tmp_path: Path):
    page = "<page><title>{0}</title><revision><id>7</id><text>About {0}.</text></revision></page>"
    source = f"<mediawiki xmlns='m'>{page.format('One')}{page.format('Two')}</mediawiki>"
    reading = read(tmp_path, source)
    assert [document.text for document in reading.documents] == ["About One.", "About Two."]
    assert reading.tally.dropped["other elements"] == len("One7Two7")


def test_a_word_that_is_used_far_too_often_is_refused(tmp_path: Path):
    source = f'<!DOCTYPE a [<!ENTITY x "{"x" * 1000}">]><a>{"&x;" * 20_000}</a>'
    with pytest.raises(UserError, match="zip bombs"):
        read(tmp_path, source)


@pytest.mark.parametrize(
    "codec", ["gb18030", "shift_jis", "euc-kr", "koi8-r", "utf-16", "utf-16-be", "utf-32-le"]
)
def test_the_encoding_that_a_file_names_is_taken(tmp_path: Path, codec: str):
    word = {"gb18030": "灯塔", "shift_jis": "灯台", "euc-kr": "등대", "koi8-r": "маяк"}
    text = word.get(codec, "phare")
    source = f"<?xml version='1.0' encoding='{codec}'?><a><t>{text}</t></a>"
    assert lines(tmp_path, source.encode(codec)) == [text]


def test_an_outline_is_read_from_its_attributes(tmp_path: Path):
    source = (
        "<opml><body><outline text='One' _note='More' id='7'><outline text='Two'/></outline>"
        "</body></opml>"
    )
    reading = read(tmp_path, source, "a.opml")
    assert reading.documents[0].text == "One\nMore\nTwo\n"
    assert reading.tally.dropped == {"attributes": 1}


def test_lists_in_a_sentence_and_notes_below_it_have_lines_of_their_own(tmp_path: Path):
    source = (
        "<a><p>We have<note><p>Since May.</p></note> fruit:<list><item><p>an apple</p></item>"
        "<item><p>two figs</p></item></list>and <name><first>Ann</first><last>Bo</last></name>"
        " says <i>so</i>.</p></a>"
    )
    assert lines(tmp_path, source) == [
        "We have fruit:",
        "Since May.",
        "an apple",
        "two figs",
        "and Ann Bo says so.",
    ]


def test_cells_of_a_row_are_parted_by_tabs(tmp_path: Path):
    source = "<t><row><c>a</c><c>b <i>c</i></c></row><row><c>d</c></row></t>"
    assert lines(tmp_path, source) == ["a\tb c", "d"]


@pytest.mark.parametrize("feed", ["rss", "feed"])
def test_pages_in_a_feed_are_read_as_pages(tmp_path: Path, feed: str):
    page = "&lt;p&gt;One &lt;b&gt;bold&lt;/b&gt; &amp;amp; two.&lt;/p&gt;&lt;p&gt;Three.&lt;/p&gt;"
    source = (
        f"<{feed}><item><title>a &lt; b</title><description>{page}</description></item></{feed}>"
    )
    assert lines(tmp_path, source) == ["a < b", "One bold & two.", "", "Three."]


def test_of_several_forms_of_a_formula_one_is_read(tmp_path: Path):
    tex = r"\documentclass{minimal}\begin{document}$x^2$\end{document}"
    source = (
        f"<a><p>So <alternatives><tex-math>{tex}</tex-math><math><mi>x</mi><mn>2</mn></math>"
        "</alternatives> is it.</p></a>"
    )
    reading = read(tmp_path, source)
    assert reading.documents[0].text == "So $x^2$ is it.\n"
    assert reading.tally.dropped["what stands there in another form"] == len("x2")


def test_a_page_of_a_book_for_programs_that_can_do_more_is_read_once(tmp_path: Path):
    switch = "<switch><case>Ghost</case><default>Shown</default></switch>"
    page = f"<?xml version='1.0'?><html><body>{switch}</body></html>"
    assert lines(tmp_path, page, "a.xhtml") == ["Shown"]


def test_the_head_of_a_long_table_of_latex_is_read_once(tmp_path: Path):
    head = r"Fruit & Taste \\ "
    source = (
        rf"\begin{{longtable}}{{ll}}{head}\endfirsthead {head}\endhead Fig & sweet \\"
        r"\end{longtable}\begin{longtable}{l}A\endfirsthead B\end{longtable}"
    )
    assert lines(tmp_path, source, "a.tex") == ["Fruit\tTaste", "Fig\tsweet", "", "A B"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            r"\def\m{Mist~7B\xspace} \m is here, \m. \m{} too",
            "Mist 7B is here, Mist 7B. Mist 7B too",
        ),
        (r"\parindent=0pt\parskip 1em plus 2pt Text \bf 12 cm long", "Text 12 cm long"),
        (r"\begin{CJK*}{UTF8}{gbsn}Text\end{CJK*}", "Text"),
        (r"\title [mode = title]{A title}[orcid=1] Text", "A title||Text"),
    ],
)
def test_settings_of_latex_are_no_text(tmp_path: Path, source: str, expected: str):
    assert "|".join(lines(tmp_path, source, "a.tex")) == expected
