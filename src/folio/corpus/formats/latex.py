"""LaTeX: the typeset text, with formulas and code as they are written.

A file is walked once from left to right without recursion, so that no nesting is too deep. Unknown
commands are markup, and what is inside their braces is text. The parser of pylatexenc changed
headings, lost `\\verb` and ended at `\\href`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from folio.corpus.encodings import decode
from folio.corpus.formats.latex_ends import Ends, pairs
from folio.corpus.formats.latex_words import (
    ACCENTS,
    ARGUMENTS,
    AS_WRITTEN,
    COMMENTS,
    ENCODINGS,
    ENVIRONMENT_ARGUMENTS,
    FOOTNOTES,
    FORMULAS,
    GERMAN,
    HEADINGS,
    LENGTHS,
    QUOTES,
    REFERENCES,
    SYMBOLS,
    VERBATIM,
)
from folio.corpus.formats.passage import Notes, Passage

_BEGIN, _END = r"\begin{document}", r"\end{document}"
_INPUT_ENCODING = re.compile(rb"\\usepackage\[([\w-]+)\]\{inputenc\}")
_IS_GERMAN = re.compile(r"\\usepackage\[[^]]*german[^]]*\]\{babel\}|\\usepackage\{n?german\}")
_OWN = re.compile(
    r"\\(?:newcommand|renewcommand|providecommand|def)\*?\s*\{?\\([A-Za-z]+)\}?\s*"
    r"\{([^{}\\$#&%]{1,100})(?:(\\xspace)|\\@)?\}"
)
"""Macros of the author's own that stand for a few words, and whether a space follows them."""
_LENGTH = re.compile(
    r"\s*(?P<is>=?)\s*-?(?:\d+\.?\d*|\.\d+)\s*(?:pt|em|ex|cm|mm|in|bp|pc|true\s?\w\w)?\b"
    r"(?:\s*(?:plus|minus)\s*-?[\d.]+\s*[a-z]+)*"
)
"""The value that a length is set to."""
_TOKEN = re.compile(
    r"\\(?P<word>[A-Za-z@]+\*?)|\\(?P<sign>.)|(?P<comment>%[^\n]*(?:\n[ \t]*+(?!\n))?)|"
    r"(?P<special>[{}]|\$\$?|[~&\"]|---?|``|''|`|\n[ \t]*\n\s*)|[^\\%{}$~&\"`'\n-]+|.",
    re.DOTALL,
)
_OPTION = re.compile(r"\[((?:[^][{}\\]|\\.|\{[^{}]*\})*)\]", re.DOTALL)
_BLANKS = re.compile(r"[ \t]*(?:\n[ \t]*(?!\s*\n))?")
_DEFINED = re.compile(r"\\?[A-Za-z@]*[^{\\\n]*")
_SPACES = re.compile(r"\s+")


def read_latex(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read the text of a file, its title and the body of its document; included files are
    not read.
    """
    named = _INPUT_ENCODING.search(data)
    encoding = named[1].decode("ascii") if named else None
    source = decode(data, ENCODINGS.get(encoding or "", encoding), notes).replace("\r\n", "\n")
    own = {
        name: _SPACES.sub(" ", words.replace("~", " ").replace("--", "–"))
        + ("\0" if spaced else "")
        for name, words, spaced in _OWN.findall(source)
    }
    german = _IS_GERMAN.search(source) is not None
    begin, end = source.find(_BEGIN), source.rfind(_END)
    title = ""
    if begin >= 0:
        end = end if end > begin else len(source)
        preamble = source[:begin]
        title = _title(preamble)
        notes.drop("the preamble", preamble.replace(title, "") if title else preamble)
        notes.drop("what follows the end", source[end + len(_END) :])
        source = source[begin + len(_BEGIN) : end]
    text = _Walk(f"{title}\n\n{source}" if title else source, notes, own, german).text()
    if text:
        yield Passage(text + "\n")


def _title(preamble: str) -> str:
    found = re.search(r"\\title\s*(?:\[[^]\n]*\]\s*)?\{", preamble)
    end = pairs(preamble).get(found.end() - 1) if found else None
    return preamble[found.start() : end + 1] if found and end else ""


class _Walk:
    """A source, the position in it, and the text so far."""

    def __init__(self, source: str, notes: Notes, own: dict[str, str], german: bool) -> None:
        self.source = source
        self.notes = notes
        self.own = own
        self.german = german
        self.at = 0
        self.closing = pairs(source)
        self.ends = Ends(source)
        self.groups: list[tuple[int, Callable[[], None]]] = []  # what to do when each brace closes
        self.parts: list[str] = []
        self.outer: list[list[str]] = []  # texts around the open footnotes
        self.footnotes: list[str] = []
        self.n_footnotes = 0
        self.reference_left_out = False

    def text(self) -> str:
        """Read the source to its end, and return what it says."""
        while self.at < len(self.source):
            token = _TOKEN.match(self.source, self.at)
            assert token is not None
            self.at = token.end()
            if token["word"]:
                self.command(token["word"].rstrip("*"), token.start())
            elif token["sign"]:
                self.sign(token["sign"])
            elif token["comment"]:
                self.notes.drop("comments", token[0])
            elif token["special"]:
                self.special(token["special"], token.start())
            else:
                self.say(token[0])
        while self.outer:
            self.end_footnote()
        self.end_line(2)
        return "".join(self.parts).strip()

    # ---- text ----

    def say(self, text: str) -> None:
        """Append words; spaces and line ends collapse to one space."""
        text = _SPACES.sub(" ", text)
        last = self.parts[-1][-1:] if self.parts else ""
        if self.reference_left_out and text[:1] in ".,;:)" and last == " ":
            self.parts[-1] = self.parts[-1][:-1]
        self.reference_left_out = False
        if last in ("", " ", "\n", "\t"):
            text = text.lstrip(" ")
        if text:
            self.parts.append(text)

    def end_line(self, n: int) -> None:
        """Make sure that `n` line ends precede the next word; footnotes follow their paragraph."""
        before = ""
        while self.parts and not before:
            last = self.parts.pop()
            before = last.rstrip(" \n")
            n = max(n, min(last.count("\n", len(before)), 2))
        if before:
            self.parts += [before, "\n" * n]
        if n == 2 and not self.outer:
            waiting, self.footnotes = self.footnotes, []
            self.parts += [f"{note}\n\n" for note in waiting]

    def end_footnote(self) -> None:
        """Keep the text of a footnote until its paragraph ends, and continue the paragraph."""
        note = "".join(self.parts).strip()
        self.parts = self.outer.pop()
        self.n_footnotes += 1
        self.parts.append(f"[{self.n_footnotes}]")
        self.footnotes.append(f"[{self.n_footnotes}] {note}")

    def end_heading(self) -> None:
        """Skip settings after a heading or an author, and end the line."""
        self.option()
        self.end_line(2)

    def raw(self, text: str) -> None:
        """Append text as it is written, on lines of its own if it has several."""
        if "\n" in text:
            self.end_line(1)
        self.parts.append(text)
        if "\n" in text:
            self.end_line(1)

    # ---- tokens ----

    def special(self, sign: str, start: int) -> None:
        """Handle braces, formulas, quotation marks, dashes, ties, cells, and empty lines."""
        if sign == "}":
            if self.groups and self.groups[-1][0] == start:
                self.groups.pop()[1]()
        elif sign.startswith("$"):
            end = self.ends.next(sign, self.at)
            paragraph = self.ends.next("\n\n", self.at)
            if end is None or (paragraph is not None and paragraph < end):
                self.parts.append(sign)
            else:
                self.at = end + len(sign)
                self.parts.append(self.source[start : self.at])
        elif sign[0] == "\n":
            self.end_line(2)
        elif sign == '"' and self.german and self.source[self.at : self.at + 1] in GERMAN:
            self.say(GERMAN[self.source[self.at]])
            self.at += 1
        elif sign == "&":
            if self.parts:
                self.parts[-1] = self.parts[-1].rstrip(" ")
            self.parts.append("\t")
        elif sign != "{":
            signs = {"~": " ", "--": "–", "---": "—", "``": "“", "''": "”", "`": "‘"}
            self.say(signs.get(sign, sign))

    def sign(self, sign: str) -> None:
        """Handle a command whose name is not a letter."""
        if sign in "([":
            self.formula("\\)" if sign == "(" else "\\]", self.at - 2)
        elif sign == "\\":
            self.at += self.source[self.at : self.at + 1] == "*"
            self.option()
            self.end_line(1)
        elif sign in ACCENTS:
            self.accent(ACCENTS[sign])
        elif sign in " ,;:>\n\t":
            self.say(" ")
        elif sign not in "!@/-<":
            self.say(sign)

    def command(self, name: str, start: int) -> None:
        """Handle a command whose name is a word."""
        if name in ("begin", "end"):
            environment = self.argument() or ""
            self.begin(environment, start) if name == "begin" else self.end_line(2)
        elif name in ("verb", "lstinline", "mintinline"):
            self.verbatim(name)
        elif name in ("url", "path", "nolinkurl"):
            self.say(self.argument() or "")
        elif name in self.own or name in SYMBOLS:
            self.blanks()
            words = self.own.get(name) or SYMBOLS[name]
            self.symbol(words.removesuffix("\0"))
            if words.endswith("\0") and self.source[self.at : self.at + 1].isalnum():
                self.say(" ")
        elif name in ACCENTS:
            self.accent(ACCENTS[name])
        elif name in REFERENCES:
            self.leave_out(1, "references")
            self.reference_left_out = True
        elif name in ARGUMENTS:
            self.leave_out(ARGUMENTS[name], "names and settings")
        elif name in AS_WRITTEN:
            self.as_written(AS_WRITTEN[name], start)
        elif name in QUOTES:
            self.quote()
        elif name in FOOTNOTES:
            self.option()
            if self.group(self.end_footnote):
                self.outer.append(self.parts)
                self.parts = []
        elif name in HEADINGS:
            self.blanks()
            self.option()
            self.end_line(2)
            self.group(self.end_heading)
        elif name == "endfirsthead":
            self.drop_until(r"\endhead", "heads of further pages", before=r"\end{longtable}")
        elif name == "iffalse":
            self.drop_until(r"\fi", "comments")
        elif name in ("def", "gdef", "edef", "let"):
            self.definition()
        elif name == "item":
            self.end_line(1)
            self.blanks()
        else:
            self.length(name)
            self.option()
            self.blanks()

    def begin(self, environment: str, start: int) -> None:
        """Begin an environment, and treat its content accordingly."""
        name = environment.rstrip("*")
        end = rf"\end{{{environment}}}"
        if name in FORMULAS:
            self.end_line(1)
            self.formula(end, start)
            self.end_line(1)
        elif name in COMMENTS:
            self.drop_until(end, COMMENTS[name])
        elif name in VERBATIM:
            stop = self.ends.next(end, self.at)
            if settings := re.compile(VERBATIM[name]).match(self.source, self.at):
                self.notes.drop("names and settings", settings[0])
                self.at = settings.end()
            if stop is not None:
                self.end_line(2)
                self.raw(self.source[self.at : stop].strip("\n") + "\n")
                self.at = stop
        else:
            n = ENVIRONMENT_ARGUMENTS.get(environment, ENVIRONMENT_ARGUMENTS.get(name, 0))
            self.end_line(2)
            self.leave_out(n, "names and settings")

    # ---- parts of commands ----

    def blanks(self) -> None:
        """Skip spaces and one line end."""
        blank = _BLANKS.match(self.source, self.at)
        self.at = blank.end() if blank else self.at

    def option(self) -> None:
        """Skip an optional argument in brackets."""
        while option := _OPTION.match(self.source, self.at):
            self.notes.drop("names and settings", option[1])
            self.at = option.end()

    def length(self, name: str) -> None:
        """Skip the value that a length is set to."""
        found = _LENGTH.match(self.source, self.at)
        if found and (found["is"] or name.endswith(LENGTHS)):
            self.notes.drop("names and settings", found[0])
            self.at = found.end()

    def argument(self) -> str | None:
        """The content of the next braces, if they follow immediately."""
        before = self.at
        self.blanks()
        end = self.closing.get(self.at)
        if end is None:
            self.at = before
            return None
        begin, self.at = self.at + 1, end + 1
        return self.source[begin:end]

    def leave_out(self, n: int, reason: str) -> None:
        """Skip `n` arguments, and options among them, and count them."""
        self.option()
        for _ in range(n):
            self.notes.drop(reason, self.argument())
            self.option()

    def group(self, then: Callable[[], None]) -> bool:
        """Enter the next braces, and call `then` when they close."""
        self.blanks()
        end = self.closing.get(self.at)
        if end is not None:
            self.groups.append((end, then))
            self.at += 1
        return end is not None

    def drop_until(self, mark: str, reason: str, before: str = "") -> None:
        """Skip everything up to and including a mark; nothing if `before` comes first."""
        end = self.ends.next(mark, self.at)
        other = self.ends.next(before, self.at) if before else None
        if end is not None and (other is None or end < other):
            self.notes.drop(reason, self.source[self.at : end])
            self.at = end + len(mark)

    def formula(self, mark: str, start: int) -> None:
        """Append a formula as it is written, from `start` up to a mark."""
        end = self.ends.next(mark, self.at)
        if end is not None:
            self.at = end + len(mark)
            self.parts.append(self.source[start : self.at])

    def as_written(self, n: int, start: int) -> None:
        """Append a command from `start` with its options and `n` arguments as it is written."""
        for _ in range(n):
            while option := _OPTION.match(self.source, self.at):
                self.at = option.end()
            self.argument()
        self.parts.append(self.source[start : self.at])

    def quote(self) -> None:
        """Enter what stands between quotation marks, those of the document's language."""
        opening, closing = "„“" if self.german else "“”"
        self.option()
        if self.group(lambda: self.say(closing)):
            self.say(opening)

    def definition(self) -> None:
        """Skip a macro's name, its parameters and what it stands for, and count them."""
        defined = _DEFINED.match(self.source, self.at)
        assert defined is not None
        self.notes.drop("names and settings", defined[0])
        self.at = defined.end()
        self.leave_out(1, "names and settings")

    def verbatim(self, name: str) -> None:
        """Append inline code between two equal signs or braces."""
        self.option()
        if name == "mintinline":
            self.notes.drop("names and settings", self.argument())
        sign = self.source[self.at : self.at + 1]
        end = self.closing.get(self.at) if sign == "{" else self.source.find(sign, self.at + 1)
        if sign and end is not None and end > self.at:
            self.parts.append(self.source[self.at + 1 : end])
            self.at = end + 1

    def accent(self, sign: str) -> None:
        """Append a letter with an accent."""
        self.blanks()
        braced = self.argument()
        letter = braced
        if braced is None:
            token = _TOKEN.match(self.source, self.at)
            letter = token[0] if token else ""
            letter = letter if letter.startswith("\\") else letter[:1]
            self.at += len(letter)
        letter = (letter or "").strip()
        letter = {"\\i": "i", "\\j": "j"}.get(letter) or SYMBOLS.get(letter[1:], letter)
        if letter:
            self.parts.append(unicodedata.normalize("NFC", letter[:1] + sign) + letter[1:])
        else:  # the bare sign, as in a web address
            self.say({"\u0303": "~", "\u0302": "^"}.get(sign, ""))

    def symbol(self, text: str) -> None:
        """Append a symbol, or end the line."""
        self.end_line(text.count("\n")) if text.startswith("\n") else self.say(text)
