"""What stands in a file is read or counted by a reason: markup hides nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.corpus.formats.known import WHATSAPP, format_of
from folio.corpus.formats.passage import Notes
from tests.corpus import making

LONG = "hidden words " * 100
MAIL = """Subject: §
X-Any: §
Content-Type: multipart/mixed; boundary="X"

before §
--X
Content-Type: multipart/alternative; boundary=Y

--Y
Content-Type: text/plain; charset=utf-8
X-Inner: §

Hello §
> quoted §
-- 
signed §
--Y
Content-Type: text/html

<p>Hello §</p>
--Y--
--X
Content-Type: text/calendar; name="§"

BEGIN §
--X
Content-Disposition: attachment; filename="§"

§
--X
Content-Type: message/rfc822

Subject: inner §

Inner body §
--X--
after §
"""  # noqa: W291
TELEGRAM = {
    "about": "§",
    "personal_information": {"bio": "§"},
    "chats": {"list": [{"name": "§", "messages": [
        {"type": "service", "date": "2026", "actor": "§", "text": ""},
        {"type": "message", "date": "2026", "from": "Ben", "forwarded_from": "§",
         "text": ["See ", {"type": "link", "text": "§", "href": "§"}]},
        {"type": "message", "date": "2026", "from": "Ben", "text": "", "poll": {"question": "§"}},
    ]}]},
    "left_chats": {"list": [{"messages": [{"date": "2026", "from": "Eva", "text": "§"}]}]},
}  # fmt: skip
CHATGPT = [{
    "title": "§",
    "mapping": {
        "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["Why? §"]}}},
        "b": {"parent": "a", "message": {"author": {"role": "assistant", "name": "§"},
              "content": {"content_type": "code", "text": "§"}}},
        "c": {"parent": "b", "message": {"author": {"role": "assistant"}, "metadata": {"x": "§"},
              "content": {"parts": ["So.", {"asset_pointer": "§"}]}}},
        "d": {"parent": "a", "message": {"author": {"role": "assistant"},
              "content": {"parts": ["Otherwise. §"]}}},
    },
    "current_node": "c",
}]  # fmt: skip
TURNS = [
    {"role": "user", "content": "Why? §", "name": "§"},
    {"role": "assistant", "content": None, "tool_calls": [{"arguments": "§"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "§"}, {"image": "§"}]},
]
NOTEBOOK = {"metadata": {"title": "§"}, "cells": [
    {"cell_type": "markdown", "source": ["Text §"], "attachments": {"a": {"image/png": "§"}}},
    {"cell_type": "code", "source": "x", "outputs": [{"text": ["§"]}, {"traceback": ["§"]}]},
]}  # fmt: skip
LATEX = r"""% §
\documentclass[§]{a} \title{§}
\begin{document} \section[§]{§} \label{§} Text § $§$ \[§\] \cite[§]{§} \href{§}{§} \unknown[§]{§}
\footnote{§} \includegraphics[§]{§} \iffalse § \fi \verb|§| \newcommand{\x}[1]{§} \def\y#1{§}
\begin{verbatim}§\end{verbatim} \begin{comment}§\end{comment} \begin{minted}[§]{§}§\end{minted}
\begin{tikzpicture}§\end{tikzpicture} \begin{tabular}{§}a & §\end{tabular} \item[§] § \\[§]
\begin{align}§\end{align} \begin{theorem}[§]§\end{theorem} % §
\end{document} §"""
PLACES: dict[str, str | dict[str, str]] = {
    "a.html": "<title>§</title><meta content='§'><style>§</style><script>§</script><!-- § -->"
    "<h1 title='§'>§</h1><p>Body <img alt='§' src='§'> <a href='§'>§</a></p><noscript>§</noscript>"
    "<template><p>§</p></template><input value='§' placeholder='§'><textarea>§</textarea>"
    "<svg><text>§</text></svg><iframe>§</iframe><p hidden>§</p><button aria-label='§'>§</button>"
    "<ruby>b<rt>§</rt></ruby><math>§</math><select><option label='§'>§</select>",
    "a.xhtml": "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title>§"
    "</title><script>§</script></head><body><!-- § --><?p §?><p title='§'>§</p></body></html>",
    "a.eml": MAIL,
    "a.mhtml": MAIL,
    "a.opml": "<opml><head><t>§</t></head><outline text='§' url='§'><outline text='§' _note='§'/>"
    "</outline></opml>",
    "a.ass": "[Info]\nTitle: §\nDialogue: 0,1,2,A,§,0,0,0,,{\\i1 §}Said §\\N§{\\p1}§{\\p0}\n"
    "Comment: §\n",
    "b.srt": "{1}{2}{y:i}Said §|§\n§\n",
    "a.mbox": f"before §\nFrom a § Mon\n{MAIL}\nFrom b Tue Jan  2 12:00 2024\n\n> only quoted §\n",
    "telegram.json": json.dumps(TELEGRAM),
    "chatgpt.json": json.dumps(CHATGPT),
    "slack.json": json.dumps(
        [
            {"user": "U1", "text": "§", "ts": "1.0", "blocks": [{"text": "§"}], "files": ["§"]},
            {"user": "U1", "text": "§", "ts": "2.0", "subtype": "channel_join"},
        ]
    ),
    "records.json": json.dumps({"about": "§", "data": [{"text": "One.", "note": "§"}]}),
    "a.jsonl": '{"text": "One. §", "deep": {"x": ["§"]}}\n{"other": "§"}\n{"text": "Two."}\n',
    "turns.jsonl": json.dumps({"messages": TURNS, "tools": [{"name": "§"}]}) + "\n",
    "a.ipynb": json.dumps(NOTEBOOK),
    "a.csv": "id,text,note\n1,One. §,§\n2,Two.,x,§\n3\n",
    "a.srt": "1 §\n00:01,000 --> 00:02,000 X1:§\nSaid § <font color='§'>so</font>\n\nno block §\n",
    "a.vtt": "WEBVTT §\n\nNOTE §\n\nname §\n00:01.000 --> 00:02.000 align:§\n<v §>Said</v> §\n",
    "a.org": "#+TITLE: §\n#+AUTHOR: §\n# §\n* TODO Head § :§:\nSCHEDULED: <2026 §>\n:PROPERTIES:\n"
    ":X: §\n:END:\nText [[§][shown §]] §\n#+begin_src python :§\ncode §\n#+end_src\n"
    "#+begin_comment\n§\n#+end_comment\n: fixed §\n| a | § |\n#+TBLFM: §\n",
    "a.tex": LATEX,
    "a.xml": "<?xml version='1.0'?><!-- § --><?style §?><a b='§'><t>Text</t>§<p>so <i>§</i> §</p>"
    "<!-- § --><binary>§</binary><![CDATA[§]]></a>",
    "whatsapp.txt": "before §\n1/2/24, 10:00 - Reported §\n1/2/24, 10:01 - Ann: Hi §\nmore §\n"
    "1/2/24, 10:02 - Ben: <attached: §>\n",
    "a.docx": {
        "word/document.xml": "<d xmlns:w='w'><body><p><r><t>Text §</t></r><del><delText>§</delText>"
        "</del><r><instrText>§</instrText><drawing><docPr descr='§' title='§'/></drawing></r>"
        "<ruby><rt><t>§</t></rt><rubyBase><t>b</t></rubyBase></ruby></p><sdt><sdtContent><p><t>§"
        "</t></p></sdtContent></sdt></body></d>",
        "word/_rels/document.xml.rels": "<r><x Type='/footnotes' Target='footnotes.xml'/></r>",
        "word/footnotes.xml": "<f><footnote id='7'><p><t>§</t></p></footnote></f>",
        "word/comments.xml": "<c><t>§</t></c>",
        "word/header1.xml": "<c><t>§</t></c>",
        "word/charts/chart1.xml": "<c>§</c>",
    },
    "a.odt": {
        "content.xml": "<o xmlns:t='t'><body><text><tracked-changes><p>§</p></tracked-changes><p>"
        "Text §<annotation><p>§</p></annotation><frame><title>§</title></frame><ruby><ruby-base>b"
        "</ruby-base><ruby-text>§</ruby-text></ruby><hidden-text t:string-value='§'/></p>loose §"
        "<table><title>§</title><table-row><table-cell><p>§</p></table-cell><covered-table-cell>"
        "<p>§</p></covered-table-cell></table-row></table><h>§</h></text></body></o>",
        "meta.xml": "<m>§</m>",
    },
    "a.epub": {
        "META-INF/container.xml": "<c><rootfile full-path='b.opf'/></c>",
        "b.opf": "<p><metadata><title>§</title></metadata><manifest><item id='c' href='c.xhtml' "
        "media-type='application/xhtml+xml'/></manifest><spine><itemref idref='c'/></spine></p>",
        "c.xhtml": making.xhtml("<p>Text §</p><!-- § -->"),
        "toc.ncx": "<n>§</n>",
    },
    "a.xlsx": {
        "xl/sharedStrings.xml": "<s><si><t>One §</t><rPh><t>§</t></rPh></si><si><t>§</t></si></s>",
        "xl/worksheets/sheet1.xml": "<w><sheetData><row><c t='s'><v>0</v></c><c><f>§</f><v>3</v>"
        "</c><c t='inlineStr'><is><t>§</t></is></c><c t='str'><v>§</v></c><c t='s'><v>9§</v></c>"
        "</row></sheetData><headerFooter>§</headerFooter><rule prompt='§'>§</rule></w>",
        "xl/comments1.xml": "<c><author>§</author><text><t>§</t></text></c>",
    },
    "a.pptx": {
        "ppt/slides/slide1.xml": "<s><cNvPr descr='§'/><p><t>Slide §</t></p><x>§</x></s>",
        "ppt/notesSlides/notesSlide1.xml": "<n><p><t>§</t></p></n>",
        "ppt/notesSlides/notesSlide7.xml": "<n><p><t>§</t></p></n>",
        "ppt/comments/comment1.xml": "<c>§</c>",
    },
}
"""Files in which something stands at each §; parts of a zip by their names."""


def filled(name: str, place: int) -> tuple[bytes, int]:
    """A file that has LONG at one of its places and x at the others, and how many they are."""
    n = 0

    def fill(template: str) -> str:
        nonlocal n
        head, *rest = template.split("§")
        for part in rest:
            head += (LONG.strip() if n == place else "x") + part
            n += 1
        return head

    parts = PLACES[name]
    if isinstance(parts, str):
        return fill(parts).encode(), n
    return making.zip_of({part: fill(text) for part, text in parts.items()}), n


def accounted(name: str, data: bytes, folder: Path) -> int:
    """Bytes of a file that are read, or left out for a reason."""
    known = WHATSAPP if name == "whatsapp.txt" else format_of(name)
    assert known is not None and known.accounts
    notes, read = Notes(), known.load()
    if known.takes == "rows":
        passages = read(iter(data.decode().splitlines(keepends=True)), "", notes)
    elif known.takes == "path":
        passages = read(making.write(folder, name, data), {"mail_headers": ()}, notes)
    else:
        passages = read(data, notes)
    return sum(len(passage.text.encode()) for passage in passages) + notes.dropped.total()


@pytest.mark.parametrize("name", PLACES)
def test_whatever_stands_anywhere_is_read_or_counted(tmp_path: Path, name: str):
    data, n_places = filled(name, -1)
    before = accounted(name, data, tmp_path)
    for place in range(n_places):
        grown = accounted(name, filled(name, place)[0], tmp_path) - before
        assert grown > 0.9 * len(LONG), f"place {place} of {name}"
