"""Org, LaTeX and XML: their text, or their source where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.formats.latex import read_latex
from folio.corpus.formats.passage import Notes
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


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (":smile:\nThen it rained.\n* Two\nSun.\n", ":smile:\nThen it rained.\nTwo\nSun.\n"),
        (":note:\nSaid.\n:LOG:\nno\n:END:\nSun.\n", ":note:\nSaid.\nSun.\n"),
        (":END:\nSun.\n", ":END:\nSun.\n"),
        ("#+begin_comment\nSaid.\n* Two\nSun.\n", "Said.\nTwo\nSun.\n"),
        ("#+begin_export html\nSaid.\n#+end_comment\n", "Said.\n#+end_comment\n"),
        (":PROPERTIES:\n:ID: 0f3a\n:Effort:\n:END:\nSun.\n", "Sun.\n"),
        ("#+begin_comment\nno\n:smile:\n#+end_comment\nSun.\n", "Sun.\n"),
    ],
)
def test_what_does_not_end_before_a_heading_hides_nothing(tmp_path: Path, lines: str, text: str):
    assert texts(write(tmp_path, "a.org", f"* One\n{lines}")) == [f"One\n{text}"]


LATEX = r"""\documentclass{article} % a comment
\newcommand{\x}[1]{y}
\title{A title}
\begin{document}
\maketitle
\section{One}
Caf\'e \emph{text}~with $x^2 \le 3$ and 50\% \cite{a} left. % not this

\input{secret}
Second \textbf{paragraph}\footnote{A note.}.
\end{document}
after
"""


def latex(source: str) -> str:
    (text,) = [passage.text for passage in read_latex(source.encode(), Notes())]
    return text.removesuffix("\n")


def test_latex_gives_what_is_typeset_with_formulas_as_they_are_written(tmp_path: Path):
    write(tmp_path, "secret.tex", "the content of a file that nobody named")
    corpus = read(write(tmp_path, "a.tex", LATEX))
    assert [document.text for document in corpus.documents] == [
        "A title\n\nOne\n\nCafé text with $x^2 \\le 3$ and 50% left.\n\n"
        "Second paragraph[1].\n\n[1] A note.\n"
    ]
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert dropped.keys() == {
        "the preamble", "comments", "references", "names and settings", "what follows the end",
    }  # fmt: skip
    assert dropped["references"] == 1 and dropped["names and settings"] == len("secret")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"Na\"{\i}ve \c{c}a \'Etat \v s \H{o} \ss{} \o\aa\ \L od\'z",
         "Naïve ça État š ő ß øå Łodź"),
        (r"\& \% \$ \# \_ \{a\} \~{} a~b -- c --- ``d'' \dots", "& % $ # _ {a} ~ a b – c — “d” …"),
        (r"\verb|{%$| and \lstinline!\x! so", r"{%$ and \x so"),
        ("\\begin{verbatim}\n% {a\n  $b\n\\end{verbatim}\nc", "% {a\n  $b\n\nc"),
        ("\\begin{minted}[x]{c}\nint a; % b\n\\end{minted}\nd", "int a; % b\n\nd"),
        (r"\href{http://a.org/%20}{the page}, \url{b.org/%c}", "the page, b.org/%c"),
        (r"\textcolor{red}{word} \unknown[a]{kept} {\bf bold}", "word kept bold"),
        (r"a \iffalse b \fi c\begin{comment} d \end{comment}", "a c"),
        (r"See Fig.~\ref{f}, p.\ 3 \cite[p. 4]{k}.", "See Fig., p. 3."),
        ("\\begin{tabular}{l|r}\na & b \\\\[2pt] \\hline\nc & d\n\\end{tabular}", "a\tb\nc\td"),
        ("\\begin{itemize}\n\\item One\n\\item Two\n\\end{itemize}", "One\nTwo"),
        (r"\begin{align*}a &= b \\ c\end{align*}", r"\begin{align*}a &= b \\ c\end{align*}"),
        (r"It costs 3$ and 5\$.", "It costs 3$ and 5$."),
        (r"at \SI[x=1]{3}{\metre\per\second}, \qty{20}{\percent} in \si{\kg} or \num{2}",
         r"at \SI[x=1]{3}{\metre\per\second}, \qty{20}{\percent} in \si{\kg} or 2"),
        (r"He said \enquote{so \emph{be} it}, \say {yes}.", "He said “so be it”, “yes”."),
        (r"\newcommand{\eg}{for example\xspace}Try, \eg, this.", "Try, for example, this."),
        (r"\def\x#1{no}\newcommand{\y}[2]{#1 no #2}yes", "yes"),
        ("One\nline % gone\n  goes on.\n\nNext.", "One line goes on.\n\nNext."),
        (r"A\footnote{\emph{B}\footnote{C}}.", "A[2].\n\n[1] C\n\n[2] B[1]"),
        (r"Привет, \textbf{мир}. 灯塔", "Привет, мир. 灯塔"),
    ],
)  # fmt: skip
def test_what_latex_typesets(source: str, text: str):
    assert latex(source) == text


def test_latex_says_its_encoding_and_its_language():
    source = r"\usepackage[latin1]{inputenc}\usepackage[ngerman]{babel}\begin{document}"
    body = '"Uber Gr\xf6\xdfe, "`so"\' \\verb|"a| \\enquote{ja}'
    (passage,) = read_latex((source + body).encode("latin-1"), Notes())
    assert passage.text == 'Über Größe, „so“ "a „ja“\n'


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
