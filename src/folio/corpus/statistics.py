"""Describes a corpus: lengths, scripts, types of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.corpus.document import Document
from folio.corpus.turns import MARKS

CODE_POINTS = 0x110000

# First code point of each range; a range ends where the next begins. Rare blocks count as other.
_SCRIPTS = (
    (0x0000, ""), (0x0041, "Latin"), (0x005B, ""), (0x0061, "Latin"), (0x007B, ""),
    (0x00AA, "Latin"), (0x00AB, ""), (0x00B5, "Greek"), (0x00B6, ""), (0x00BA, "Latin"),
    (0x00BB, ""), (0x00C0, "Latin"), (0x00D7, ""), (0x00D8, "Latin"), (0x00F7, ""),
    (0x00F8, "Latin"), (0x02B0, ""), (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"),
    (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0700, "other"), (0x0900, "Devanagari"),
    (0x0980, "Bengali"), (0x0A00, "other"), (0x0B80, "Tamil"), (0x0C00, "other"), (0x0E00, "Thai"),
    (0x0E80, "other"), (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"),
    (0x13A0, "other"), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x2C00, "other"),
    (0x2C60, "Latin"), (0x2C80, "other"), (0x2E00, ""), (0x3040, "Kana"), (0x3100, "Han"),
    (0x3130, "Hangul"), (0x3190, "Han"), (0xA000, "other"), (0xAC00, "Hangul"), (0xD7B0, "other"),
    (0xE000, "private use"), (0xF900, "Han"), (0xFB00, "Latin"), (0xFB13, "Armenian"),
    (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, ""), (0xFE70, "Arabic"), (0xFEFF, ""),
    (0xFF21, "Latin"), (0xFF3B, ""), (0xFF41, "Latin"), (0xFF5B, ""), (0xFF66, "Kana"),
    (0xFFA0, "Hangul"), (0xFFE0, ""), (0x10000, "other"), (0x1D000, ""), (0x1F000, "emoji"),
    (0x1FB00, "other"), (0x20000, "Han"), (0x32000, "other"), (0xE0000, ""),
    (0xF0000, "private use"),
)  # fmt: skip


def describe(documents: Sequence[Document]) -> dict[str, Any]:
    """Count lengths, scripts and file types of some documents, for `folio corpus`.

    Returns:
        `lengths`: documents by the power of two below their characters; `scripts`: letters and
        emoji by script; `different_characters`; `lines`; `kinds`: documents and characters by the
        end of the file name.
    """
    counts = _character_counts(documents)
    kinds: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for document in documents:
        kind = _kind(document)
        kinds[kind] += 1
        characters[kind] += document.n_characters
    lengths = Counter(document.n_characters.bit_length() - 1 for document in documents)
    present = sorted(lengths)
    return {
        "lengths": [
            {"from": 1 << power, "below": 2 << power, "documents": lengths[power]}
            for power in range(present[0], present[-1] + 1)
        ],
        "scripts": _scripts(counts),
        "different_characters": int(np.count_nonzero(counts)),
        "lines": int(counts[ord("\n")]),
        "kinds": {
            kind: {"documents": n, "characters": characters[kind]}
            for kind, n in kinds.most_common()
        },
    }


def _character_counts(documents: Sequence[Document]) -> NDArray[np.int64]:
    """(CODE_POINTS,) how often each character occurs."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for document in documents:
        for piece in document.pieces():
            codes = np.frombuffer(piece.encode("utf-32-le", errors="replace"), np.uint32)
            found = np.bincount(codes)
            if document.is_conversation:  # its marks are not characters of the text
                found[[ord(mark) for mark in MARKS if ord(mark) < len(found)]] = 0
            counts[: len(found)] += found
    return counts


def _scripts(counts: NDArray[np.int64]) -> dict[str, int]:
    sums = np.add.reduceat(counts, [first for first, _ in _SCRIPTS])
    scripts: Counter[str] = Counter()
    for (_, name), count in zip(_SCRIPTS, sums.tolist()):
        if name and count:
            scripts[name] += count
    return dict(scripts.most_common())


def _kind(document: Document) -> str:
    if document.provenance is None:
        return "built-in"
    if document.source == "-":
        return "standard input"
    name = document.provenance.path.rpartition("/")[2]
    end = name.rpartition(".")[2].lower() if "." in name else ""
    return f".{end}" if end else "no ending"
