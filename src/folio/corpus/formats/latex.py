"""LaTeX by its text: what is typeset, with formulas as they are written."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*")
_BEGIN, _END = r"\begin{document}", r"\end{document}"
_BLANK_LINES = re.compile(r"\n\s*\n\s*")
_NOT_TYPESET = (
    "cite", "citep", "citet", "citealp", "citeauthor", "citeyear", "parencite", "textcite",
    "autocite", "footcite", "ref", "eqref", "pageref", "autoref", "cref", "Cref", "label", "index",
    "includegraphics", "bibliography", "bibliographystyle", "addbibresource", "input", "include",
    "vspace", "hspace", "setlength", "newcommand", "renewcommand", "providecommand", "hypersetup",
    "usepackage", "documentclass", "pagestyle", "thispagestyle", "graphicspath",
)  # fmt: skip
"""Macros whose arguments are names and numbers, not text."""


def read_latex(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The text of a file, without its preamble; no other file is read.

    Raises:
        UserError: its groups are nested deeper than anybody writes.
    """
    source = decode(data, None, notes).replace("\r\n", "\n")
    begin, end = source.find(_BEGIN), source.rfind(_END)
    if begin >= 0:
        end = end if end > begin else len(source)
        notes.drop("the preamble", source[:begin])
        notes.drop("what follows the end", source[end + len(_END) :])
        source = source[begin + len(_BEGIN) : end]
    for comment in _COMMENT.finditer(source):
        notes.drop("comments", comment[0][len(comment[1]) :])
    source = _COMMENT.sub(r"\1", source)
    try:
        text = _converter().latex_to_text(source, tolerant_parsing=True)
    except RecursionError:
        raise UserError("its groups are nested too deeply") from None
    text = _BLANK_LINES.sub("\n\n", text).strip()
    if text:
        yield Passage(text + "\n")


@cache
def _converter() -> Any:
    from pylatexenc.latex2text import (
        LatexNodes2Text,
        MacroTextSpec,
        get_default_latex_context_db,
    )

    logging.getLogger("pylatexenc").setLevel(logging.CRITICAL)  # what it passes over, line by line
    known = get_default_latex_context_db()
    silent = [MacroTextSpec(name, discard=True) for name in _NOT_TYPESET]
    known.add_context_category("folio", macros=silent, prepend=True)
    return LatexNodes2Text(latex_context=known, math_mode="verbatim")
