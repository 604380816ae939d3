"""Org, LaTeX and XML: their text, or their source where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.errors import UserError
from tests.corpus.making import write


def read(path: Path, **settings: object) -> Corpus:
    """A corpus whose ledger adds up to the bytes of the file."""
    corpus = read_corpus(CorpusConfig(sources=(str(path),), **settings))  # type: ignore[arg-type]
    ledger = corpus.record()["ledger_bytes"]
    parts = sum(sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten"))
    assert ledger["in"] == path.stat().st_size == parts
    return corpus


def texts(path: Path, **settings: object) -> list[str]:
    return [document.text for document in read(path, **settings).documents]


ORG = """#+TITLE: The lamp
#+STARTUP: overview
# to be left out
* TODO [#A] First *bold* part :home:work:
  SCHEDULED: <2026-01-02 Fri>
:PROPERTIES:
:ID: 12
:END:
See [[https://example.org][the page]], [[file:a.txt]] and a/b/c, 2 * 3 * 4.
#+begin_src python
x = a *b* c
#+end_src
#+begin_comment
hidden
#+end_comment
| a | b |
|---+---|
| 1 | 2 |
"""


def test_org_gives_headings_prose_code_and_tables(tmp_path: Path):
    corpus = read(write(tmp_path, "a.org", ORG))
    assert corpus.documents[0].text == (
        "The lamp\nFirst bold part\nSee the page, file:a.txt and a/b/c, 2 * 3 * 4.\n"
        "x = a *b* c\n| a | b |\n| 1 | 2 |\n"
    )
    assert set(corpus.record()["ledger_bytes"]["dropped"]) == {
        "settings of the file", "comments", "tags", "times of tasks", "drawers", "targets of links",
    }  # fmt: skip


LATEX = r"""\documentclass{article} % a comment
\newcommand{\x}{y}
\begin{document}
\section{One}
Caf\'e \emph{text}~with $x^2 \le 3$ and 50\% \cite{a} left. % not this

\input{secret}
Second \textbf{paragraph}\footnote{A note.}.
\end{document}
after
"""


def test_latex_gives_what_is_typeset_with_formulas_as_they_are_written(tmp_path: Path):
    write(tmp_path, "secret.tex", "the content of a file that nobody named")
    corpus = read(write(tmp_path, "a.tex", LATEX))
    (text,) = [document.text for document in corpus.documents]
    words = text.split()
    for word in ("Café", "text", "with", "50%", "left.", "Second"):
        assert word in words
    assert r"$x^2 \le 3$" in text and "A note." in text
    assert not any(word in text for word in ("documentclass", "after", "not this", "nobody", "cit"))
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert {"the preamble", "comments", "what follows the end"} <= set(dropped)


XML = """<?xml version="1.0"?>
<!-- a comment -->
<book lang="en"><head>The lamp</head>
  <p n="1">It was <hi>very</hi> late,
     and <!-- no --> dark.</p>
  <p>A &amp; B</p><list><item>one</item><item>two</item></list>
  <binary>AAAA</binary></book>
"""


def test_xml_gives_a_line_for_each_element_with_text(tmp_path: Path):
    corpus = read(write(tmp_path, "a.xml", XML))
    assert corpus.documents[0].text == ("The lamp\nIt was very late, and  dark.\nA & B\none\ntwo\n")
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert dropped == {"comments": 15, "attributes": 3, "encoded bytes": 4}


def test_a_named_element_of_xml_is_a_document_each(tmp_path: Path):
    path = write(tmp_path, "a.xml", XML)
    assert texts(path, text_column="item") == ["one", "two"]
    with pytest.raises(UserError, match="no element 'page'; it has binary, book, head"):
        read(path, text_column="page")


@pytest.mark.parametrize(("name", "source"), [("a.org", ORG), ("a.tex", LATEX), ("a.xml", XML)])
def test_the_source_is_learned_where_that_is_wanted(tmp_path: Path, name: str, source: str):
    assert texts(write(tmp_path, name, source), markup="source") == [source]
