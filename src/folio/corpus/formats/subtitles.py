"""Subtitles: what is said, without times; one sentence per line.

SRT, WebVTT and SBV put a time before each cue; SubStation Alpha (ASS, SSA) and MicroDVD have one
per line. Files are told apart by their content, since any of them may be named `.srt`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.scripts import joint

_STAMP = r"\s*(?:\d+:)?\d{1,2}:\d{2}(?:[.,:]\d{1,3})?"
_TIME = re.compile(rf"^{_STAMP}\s*(?:--?>|,(?=\s*\d+:\d))(?:{_STAMP})?")
_TAG = re.compile(r"</?(?:[a-zA-Z][^<>]*|\d[\d:.]*)>|\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}")
_ENDS = tuple('.!?…"”»)]。！？」』؟।')
_ALPHA = re.compile(r"^Dialogue:\s*(?:[^,\n]*,){9}", re.MULTILINE)
"""What precedes the text in a line of SubStation Alpha."""
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?:\{[^{}]*\\p0[^{}]*\}|$)")
_MICRODVD = re.compile(r"^\{\d+\}\{\d*\}", re.MULTILINE)


def read_subtitles(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read the text, one sentence per line; a line that begins with a dash has another speaker."""
    text = decode(data, None, notes)
    for line_end in ("\r\r\n", "\r\n", "\r"):
        text = text.replace(line_end, "\n")
    if _ALPHA.search(text):
        lines = _one_a_line(text, _ALPHA, r"\\[Nn]", notes)
    elif _MICRODVD.match(text.lstrip("\ufeff\n ")):
        lines = _one_a_line(text, _MICRODVD, r"\|", notes)
    elif any(map(_TIME.match, text.split("\n"))):
        lines = _blocks(text, notes)
    else:
        notes.warnings.append("it has no times of subtitles, and is read as it lies there")
        yield Passage(text)
        return
    said = ""
    for line in lines:
        for tag in _TAG.findall(line):
            notes.drop("tags", tag)
        shown = html.unescape(_TAG.sub("", line)).strip()
        if not shown:
            continue
        if said.endswith(_ENDS) or (said and shown[0] in "-–—"):
            yield Passage(said + "\n")
            said = ""
        said += joint(said, shown) + shown
    if said:
        yield Passage(said + "\n")


def _blocks(text: str, notes: Notes) -> Iterator[str]:
    """The lines of cues: a cue ends before the next one, in WebVTT also at an empty line."""
    is_vtt = text.lstrip("\ufeff").startswith("WEBVTT")
    lines = text.split("\n")
    is_time = [_TIME.match(line) is not None for line in lines]
    is_first = True  # in its block
    in_cue = False
    for i, line in enumerate(lines):
        if is_time[i]:
            notes.drop("styles and comments", _TIME.sub("", line))
            in_cue, is_first = True, False
        elif not line.strip():
            in_cue = in_cue and not (is_vtt and line == "")
            is_first = not in_cue
        elif i + 1 < len(lines) and is_time[i + 1] and (is_first or line.strip().isdecimal()):
            notes.drop("names of cues", "" if line.strip().isdecimal() else line)
        elif in_cue:
            yield line
        else:
            is_first = False
            notes.drop("styles and comments", line.removeprefix("WEBVTT"))


def _one_a_line(text: str, head: re.Pattern[str], line_end: str, notes: Notes) -> Iterator[str]:
    for line in text.split("\n"):
        found = head.match(line)
        if found is None:
            notes.drop("styles and comments", line)
            continue
        for name in found[0].split(",")[3:]:  # style, speaker, margins, effect
            notes.drop("names of cues", "" if name.isdecimal() else name)
        for drawing in _DRAWING.findall(line):
            notes.drop("drawings", drawing)
        shown = _DRAWING.sub("", line[found.end() :]).replace(r"\h", " ")
        yield from re.split(line_end, shown)
