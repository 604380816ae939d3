"""Subtitles, SRT and WebVTT: what is said, without times; a sentence in one line."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.scripts import joint

_STAMP = r"\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}"
_TIME = re.compile(rf"^{_STAMP}\s*-->(?:{_STAMP})?")
_TAG = re.compile(r"</?(?:[a-zA-Z][^<>]*|\d[\d:.]*)>|\{\\[^{}]*\}")
_ENDS = tuple('.!?…"”»)]。！？」』؟।')


def read_subtitles(data: bytes, notes: Notes) -> Iterator[Passage]:
    """The text, a line for each sentence; a line that begins with a dash is another speaker's."""
    said = ""
    for block in re.split(r"\n[ \t]*\n", decode(data, None, notes).replace("\r\n", "\n")):
        lines = block.strip("\n").split("\n")
        at = next((i for i, line in enumerate(lines) if _TIME.match(line)), None)
        if at is None:
            notes.drop("styles and comments", block.removeprefix("WEBVTT"))
            continue
        for line in lines[:at]:
            notes.drop("names of cues", "" if line.strip().isdecimal() else line)
        notes.drop("styles and comments", _TIME.sub("", lines[at]))
        for line in lines[at + 1 :]:
            for tag in _TAG.findall(line):
                notes.drop("tags", tag)
            text = html.unescape(_TAG.sub("", line)).strip()
            if not text:
                continue
            if said.endswith(_ENDS) or (said and text[0] in "-–—"):
                yield Passage(said + "\n")
                said = ""
            said += joint(said, text) + text
    if said:
        yield Passage(said + "\n")
