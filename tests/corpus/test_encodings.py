"""What bytes mean whose encoding is named, and named too narrowly."""

from __future__ import annotations

import pytest

from folio.corpus.encodings import decode
from folio.corpus.formats.passage import Notes


@pytest.mark.parametrize(
    ("named", "written_in", "text"),
    [
        ("iso-8859-1", "cp1252", "It’s “fine” – wait… and go, €5 au café"),
        ("us-ascii", "cp1252", "an – en dash"),
        ("ISO-8859-9", "cp1254", "“İstanbul”"),
        ("gb2312", "gbk", "朱镕基和陳"),
        ("shift_jis", "cp932", "①第一章　髙橋さん"),
        ("ks_c_5601-1987", "cp949", "똠방각하"),
        ("koi8-r", "koi8-r", "привет"),
    ],
)
def test_a_name_stands_for_what_browsers_read_by_it(named: str, written_in: str, text: str):
    notes = Notes()
    assert decode(text.encode(written_in), named, notes) == text
    assert notes.warnings == []


def test_what_is_not_in_the_encoding_that_is_named_is_told():
    notes = Notes()
    assert decode(b"caf\xe9 \x81", "iso-8859-1", notes) == "café \ufffd"
    assert notes.warnings == ["1 byte is not iso-8859-1, as it says, and became U+FFFD"]
