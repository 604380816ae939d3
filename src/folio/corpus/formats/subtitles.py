"""Subtitles: what is said, without times; one sentence per line.

SRT, WebVTT and SBV put a time before each cue; SubStation Alpha (ASS, SSA) and MicroDVD have one
per line. Files are told apart by their content, since any of them may be named `.srt`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.scripts import joint

_STAMP = r"\s*(?:\d+:)?\d{1,2}:\d{2}(?:[.,:]\d{1,3})?"
_TIME = re.compile(rf"^({_STAMP})\s*(?:--?>|,(?=\s*\d+:\d))({_STAMP})?")
_TAG = re.compile(r"</?(?:[a-zA-Z][^<>]*|\d[\d:.]*)>|\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}")
_ENDS = tuple('.!?…"”»)]。！？」』؟।')
_ALPHA = re.compile(r"^Dialogue:\s*(?:[^,\n]*,){9}", re.MULTILINE)
"""What precedes the text in a line of SubStation Alpha."""
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?:\{[^{}]*\\p0[^{}]*\}|$)")
_MICRODVD = re.compile(
    r"^\{\d+\}\{\d*\}(?:(?<=\{[01]\}\{[01]\})\d\d(?:[.,]\d+)?[ \t]*$)?", re.MULTILINE
)
"""The frames of a line, or a line that says how many there are in a second."""


class _Cue(NamedTuple):
    """What is displayed from one time to another; the times as they are written."""

    begin: str
    end: str
    lines: list[str]


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
        lines = _said_once(_cues(text, notes), notes)
    else:
        notes.warnings.append("it has no times of subtitles, and is read as it lies there")
        yield Passage(text)
        return
    said = ""
    for shown in lines:
        if said.endswith(_ENDS) or (said and shown[0] in "-–—"):
            yield Passage(said + "\n")
            said = ""
        said += joint(said, shown) + shown
    if said:
        yield Passage(said + "\n")


def _shown(line: str, notes: Notes) -> str:
    for tag in _TAG.findall(line):
        notes.drop("tags", tag)
    return html.unescape(_TAG.sub("", line)).strip()


def _cues(text: str, notes: Notes) -> list[_Cue]:
    """The cues of a file: one ends before the next one, in WebVTT also at an empty line."""
    cues: list[_Cue] = []
    is_vtt = text.lstrip("\ufeff").startswith("WEBVTT")
    lines = text.split("\n")
    times = [_TIME.match(line) for line in lines]
    is_first = True  # in its block
    in_cue = False
    for i, line in enumerate(lines):
        if time := times[i]:
            notes.drop("styles and comments", line[time.end() :])
            cues.append(_Cue(time[1].strip(), (time[2] or "").strip(), []))
            in_cue, is_first = True, False
        elif not line.strip():
            in_cue = in_cue and not (is_vtt and line == "")
            is_first = not in_cue
        elif i + 1 < len(lines) and times[i + 1] and (is_first or line.strip().isdecimal()):
            notes.drop("names of cues", "" if line.strip().isdecimal() else line)
        elif in_cue:
            cues[-1].lines.extend(filter(None, [_shown(line, notes)]))
        else:
            is_first = False
            notes.drop("styles and comments", line.removeprefix("WEBVTT"))
    return cues


def _said_once(cues: Sequence[_Cue], notes: Notes) -> Iterator[str]:
    """The lines of cues, without those that a scrolling display shows again.

    It scrolls if most cues begin as the last one ends: when it does, and with its last lines.
    """
    again = [0, *(_n_again(last, cue) for last, cue in pairwise(cues))]
    scrolls = 2 * sum(map(bool, again)) >= len(again) > 2
    for cue, n_again in zip(cues, again):
        n = n_again if scrolls else 0
        notes.drop("lines that scroll on", "\n".join(cue.lines[:n]))
        yield from cue.lines[n:]


def _n_again(last: _Cue, cue: _Cue) -> int:
    most = min(len(last.lines), len(cue.lines)) if cue.begin == last.end else 0
    return next((n for n in range(most, 0, -1) if last.lines[-n:] == cue.lines[:n]), 0)


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
        yield from filter(None, (_shown(part, notes) for part in re.split(line_end, shown)))
