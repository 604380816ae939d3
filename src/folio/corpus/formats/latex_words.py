"""Commands and environments of LaTeX whose arguments are not text, and symbols by name."""

from __future__ import annotations


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _counted(**names: str) -> dict[str, int]:
    counts = {"one": 1, "two": 2, "three": 3, "four": 4}
    return {name: counts[count] for count, all_ in names.items() for name in all_.split()}


REFERENCES = _names(
    "cite citep citet citealp citealt citeauthor citeyear citeyearpar citenum parencite textcite "
    "autocite footcite fullcite supercite smartcite nocite ref eqref pageref autoref nameref cref "
    "Cref vref label index glossary bibitem hyperref"
)
ARGUMENTS = _counted(
    one="includegraphics includesvg includepdf bibliography bibliographystyle addbibresource input "
    "include includeonly subfile vspace hspace vskip hskip hypersetup usepackage RequirePackage "
    "documentclass documentstyle pagestyle thispagestyle pagenumbering graphicspath color "
    "fontsize selectfont fontfamily fontseries fontshape linespread stepcounter refstepcounter "
    "newcounter newlength newif hyphenation setstretch bibliographyunit cline cmidrule vphantom "
    "phantom hphantom usetikzlibrary geometry captionsetup lstset newpage selectlanguage "
    "enlargethispage todo raisebox parbox foreignlanguage textcolor colorbox scalebox rotatebox "
    "href makebox framebox dmvspace tikzset pgfplotsset crefname listfiles date",
    two="setlength addtolength setcounter addtocounter newcommand renewcommand providecommand "
    "DeclareMathOperator newtheorem theoremstyle definecolor newcolumntype resizebox multirow "
    "multicolumn rule fcolorbox titleformat newacronym sisetup DeclareRobustCommand "
    "addcontentsline settowidth",
    three="newenvironment renewenvironment newglossaryentry titlespacing",
)
"""How many arguments of each command are names, sizes, colors or programs; what follows them is
text."""
AS_WRITTEN = _counted(one="si unit", two="SI SIlist qty qtylist", three="SIrange qtyrange")
"""How many arguments of a number with a unit are kept as they are written, as formulas are."""
QUOTES = _names("enquote textquote say")
ENVIRONMENT_ARGUMENTS = _counted(
    one="tabular array longtable supertabular thebibliography minipage multicols list adjustbox "
    "subfigure subtable figwindow spacing otherlanguage tcolorbox",
    two="CJK tabular* tabularx tabulary wrapfigure wraptable tabu",
)
_OPTION = r"(?:\[[^]\n]*\])?"
VERBATIM = {
    "verbatim": "", "alltt": "", "code": "", "Verbatim": _OPTION, "lstlisting": _OPTION,
    "minted": _OPTION + r"\{[^{}\n]*\}",
}  # fmt: skip
"""Environments whose lines are kept as they are, and a pattern of the settings before them."""
COMMENTS = {
    "comment": "comments",
    "tikzpicture": "drawings", "picture": "drawings", "pspicture": "drawings",
    "pgfpicture": "drawings", "tikzcd": "drawings", "filecontents": "other files",
}  # fmt: skip
"""Environments that are left out, and the reason."""
FORMULAS = _names(
    "equation align alignat flalign gather multline eqnarray displaymath math split dmath "
    "subequations IEEEeqnarray"
)
HEADINGS = _names(
    "title part chapter section subsection subsubsection paragraph subparagraph caption "
    "subtitle frametitle framesubtitle author institute affiliation"
)
LENGTHS = ("skip", "indent", "width", "height", "sep", "margin", "penalty", "stretch", "tolerance")
"""Suffixes of command names after which a number is not text."""
FOOTNOTES = _names("footnote footnotetext thanks endnote marginpar sidenote")
ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304",
    ".": "\u0307", "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "d": "\u0323",
    "b": "\u0331", "k": "\u0328", "r": "\u030a", "t": "\u0361",
}  # fmt: skip
"""Commands that put an accent on the letter after them, and that accent."""
SYMBOLS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł",
    "aa": "å", "AA": "Å", "i": "ı", "j": "ȷ", "dh": "ð", "DH": "Ð", "th": "þ", "TH": "Þ",
    "dj": "đ", "DJ": "Đ", "ng": "ŋ", "NG": "Ŋ", "S": "§", "P": "¶", "dag": "†", "ddag": "‡",
    "copyright": "©", "textcopyright": "©", "textregistered": "®", "texttrademark": "™",
    "pounds": "£", "euro": "€", "texteuro": "€", "EUR": "€", "ldots": "…", "dots": "…",
    "textellipsis": "…", "textendash": "–", "textemdash": "—", "textquoteleft": "‘",
    "textquoteright": "’", "textquotedblleft": "“", "textquotedblright": "”",
    "textquotedbl": '"', "quotedblbase": "„", "glqq": "„", "grqq": "“", "flqq": "«", "frqq": "»",
    "guillemotleft": "«", "guillemotright": "»", "og": "« ", "fg": " »", "textbackslash": "\\",
    "textasciitilde": "~", "textasciicircum": "^", "textunderscore": "_", "textbar": "|",
    "textless": "<", "textgreater": ">", "textbraceleft": "{", "textbraceright": "}",
    "textdegree": "°", "degree": "°", "textbullet": "•", "textperiodcentered": "·",
    "textexclamdown": "¡", "textquestiondown": "¿", "LaTeX": "LaTeX", "TeX": "TeX",
    "LaTeXe": "LaTeX2e", "BibTeX": "BibTeX", "quad": " ", "qquad": " ", "enspace": " ",
    "space": " ", "nobreakspace": " ", "hfill": " ", "slash": "/", "par": "\n\n",
    "newline": "\n", "linebreak": "\n", "tabularnewline": "\n", "No": "№",
}  # fmt: skip
GERMAN = {
    "a": "ä", "o": "ö", "u": "ü", "A": "Ä", "O": "Ö", "U": "Ü", "s": "ß", "z": "ß", "`": "„",
    "'": "“", "<": "«", ">": "»", "-": "", "~": "-", "=": "-", "|": "", '"': "",
}  # fmt: skip
"""What follows a quotation mark in shorthands of babel for German."""
ENCODINGS = {"ansinew": "cp1252", "applemac": "mac_roman", "utf8x": "utf-8", "latin9": "iso8859-15"}
"""Encodings that Python knows by another name."""
