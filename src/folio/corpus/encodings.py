"""Chooses the encoding of a text by all of it, never by its first bad byte.

A text that is UTF-8 except for a few bytes is UTF-8: they are replaced and counted. Only if invalid
bytes are no exception is an encoding guessed, from samples that end at whole characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from folio.corpus.formats.magic import what_is_file
from folio.corpus.formats.passage import Notes
from folio.errors import UserError

BLOCK_BYTES = 1 << 18
GUESS_BYTES = 1 << 16
"""Bytes of a file from which its encoding is guessed; as many again from the first invalid byte."""
CHARACTERS_PER_DAMAGE = 4
"""A text with at least this many valid characters beyond ASCII for each invalid byte is damaged
UTF-8. Texts in another encoding have far fewer by chance."""
STRAY = 0.001
"""Largest share of invalid bytes in a text that is otherwise ASCII and makes sense in no other
encoding."""
STRAY_NULS = 0.01
"""Share of NULs above which a file is not text: programs have a tenth and more."""
LATIN = 0.5
"""Share of bytes beyond ASCII below which a text is probably in Latin letters."""

# UTF-32's mark begins with UTF-16's, so it stands first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
DAMAGED = re.compile("[\udc80-\udcff]")
"""An invalid byte, as `surrogateescape` returns it."""
REPLACED = "\ufffd"
SHIFT = "\x1b$"
"""How ISO 2022 switches to a two-byte character set, whose bytes are all below 128."""
SHIFTED = {
    b"\x1b$)C": "iso2022_kr", b"\x1b$(D": "iso2022_jp_ext", b"\x1b$B": "iso2022_jp",
    b"\x1b$@": "iso2022_jp",
}  # fmt: skip
SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030",
    "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "tis-620": "cp874",
}  # fmt: skip
"""What pages and mails are written in that name the encoding on the left, as browsers take it
(https://encoding.spec.whatwg.org)."""
_NO_ASCII = re.compile("iso-?2022|hz|utf-?7", re.IGNORECASE)


class WrongEncodingError(UserError):
    """A text has bytes that are invalid in its encoding."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        """Position of the first invalid byte in the file."""


class Encoding(NamedTuple):
    """How to decode a file."""

    codec: str
    skip: int = 0
    """Length of its byte-order mark in bytes."""
    lenient: bool = False
    """Replace invalid bytes, and drop NULs."""

    @property
    def errors(self) -> str:
        """The argument `errors` of `bytes.decode`."""
        if not self.lenient:
            return "strict"
        return "surrogateescape" if self.codec == "utf-8" else "replace"

    def mended(self, text: str) -> str:
        """Return a stretch of text with invalid bytes replaced and NULs dropped, if lenient."""
        if not self.lenient:
            return text
        return DAMAGED.sub(REPLACED, text).replace("\0", "")


class Damage(NamedTuple):
    """How far a file is from valid UTF-8."""

    n_bytes: int
    """Length of the file in bytes."""
    n_damaged: int
    """Bytes that are not valid UTF-8."""
    n_nuls: int
    n_beyond: int
    """Valid characters beyond ASCII."""
    first: int
    """The value of the first invalid byte."""
    offset: int
    """The position of the first invalid byte."""
    cut_off: bool
    """Whether the only damage is that the last character is cut off."""
    odd_nuls: int
    """NULs at odd offsets, as UTF-16 has when the lower byte comes first."""

    @property
    def is_utf8(self) -> bool:
        """Whether the file is UTF-8 despite its damage."""
        if self.n_nuls > STRAY_NULS * self.n_bytes:
            return False
        enough = self.n_beyond >= CHARACTERS_PER_DAMAGE * self.n_damaged
        return enough or (self.cut_off and self.n_beyond > 0)


def choose_encoding(
    path: Path, encoding: str, error: WrongEncodingError | None, notes: Notes, name: str
) -> Encoding:
    """Choose how to read a file that is not in the encoding that its mark or `encoding` says.

    Args:
        path: the file.
        encoding: what the user named, or `auto`.
        error: what was found; None for a NUL.
        notes: receives a warning, and how many bytes were replaced.
        name: the file's name in messages.

    Raises:
        UserError: not text, no encoding could be guessed, or the named encoding is wrong.
    """
    if kind := what_is_file(path):
        raise UserError(f"{name} is a binary file, {kind}.")
    if encoding == "auto" and (codec := _shifted(path)):
        notes.warnings.append(guess_note(codec))
        return Encoding(codec)
    damage = measure_damage(path)
    marked = codec_of(_head(path), encoding)
    if encoding == "auto" and marked.codec != "utf-8":
        notes.warnings.append(f"some of its {marked.codec} is damaged and was replaced")
        return marked._replace(lenient=True)
    if encoding != "auto" and (error or marked.codec != "utf-8"):
        raise error or _no_text(name, damage, marked.codec)
    if damage.is_utf8:
        return _damaged_utf8(damage, marked, notes)
    if damage.n_nuls:
        raise _no_text(name, damage, marked.codec)
    guessed = _guess_file(path, damage)
    if guessed is None:
        if damage.n_damaged <= STRAY * damage.n_bytes:
            return _damaged_utf8(damage, marked, notes)
        assert error is not None
        raise error
    notes.warnings.append(guess_note(guessed))
    if _reads(path, guessed):
        return Encoding(guessed)
    notes.warnings.append(f"some bytes that {guessed} does not have became U+FFFD")
    return Encoding(guessed, lenient=True)


def measure_damage(path: Path) -> Damage:
    """Read a file as UTF-8, and count what is invalid."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    n_bytes = n_damaged = n_nuls = odd_nuls = n_leads = 0
    first, offset, pending = -1, -1, 0
    for block in _blocks(path):
        begin = n_bytes - len(decoder.getstate()[0])
        text = decoder.decode(block, final=not block)
        data = np.frombuffer(block, np.uint8)
        n_bytes += len(block)
        if b"\0" in block:
            nuls = np.flatnonzero(data == 0)
            n_nuls += len(nuls)
            odd_nuls += int(np.count_nonzero((nuls + n_bytes - len(block)) % 2))
        if not text.isascii():
            found = DAMAGED.search(text)
            n_damaged += len(DAMAGED.findall(text)) if found else 0
            encoded = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
            n_leads += int(np.count_nonzero(encoded >= 0xC0))
            if found and first < 0:
                first = ord(found[0]) - 0xDC00
                before = text[: found.start()].encode("utf-8", "surrogateescape")
                offset = begin + len(before)
        if block:
            pending = len(decoder.getstate()[0])
    cut_off = 0 < n_damaged == pending
    # An invalid byte may look like the first byte of a character.
    n_beyond = max(n_leads - n_damaged, 0)
    return Damage(n_bytes, n_damaged, n_nuls, n_beyond, first, offset, cut_off, odd_nuls)


def codec_of(head: bytes, encoding: str) -> Encoding:
    """The codec of a file that begins with `head`."""
    marked = ((mark, codec) for mark, codec in BYTE_ORDER_MARKS.items() if head.startswith(mark))
    mark, codec = next(marked, (b"", "utf-8"))
    if encoding == "auto":
        return Encoding(codec, len(mark))
    try:
        "".encode(encoding)  # some codecs of Python are of no text
        named = codecs.lookup(encoding).name
    except (LookupError, UnicodeError):
        raise UserError(
            f"corpus.encoding must be 'auto' or a codec of Python, such as utf-8, utf-16, latin-1 "
            f"or cp1252, got '{encoding}'."
        ) from None
    # "utf-16" follows the byte-order mark; codecs with an explicit order would read the mark as a
    # character.
    takes_mark = mark and codec.startswith(named)
    return Encoding(codec, len(mark)) if takes_mark else Encoding(named)


def decode(data: bytes, named: str | None, notes: Notes) -> str:
    """Decode bytes in memory: by their byte-order mark, as UTF-8, by the encoding they declare, by
    the one that the user names, or by a guess.

    Args:
        data: the bytes.
        named: the encoding that they declare, if any; where it cannot read them, the user's does.
        notes: has the encoding that the user names, and receives a line if it was a guess, or if
            something was replaced.

    Raises:
        UserError: there is no encoding of the name that the user gives.
    """
    of_user = "" if notes.encoding == "auto" else codec_of(b"", notes.encoding).codec
    mark, codec = next((m for m in BYTE_ORDER_MARKS.items() if data.startswith(m[0])), (b"", ""))
    if codec or (codec := _wide(data)):
        return data[len(mark) :].decode(codec, errors="replace")
    for name in filter(None, (named, of_user)):
        if _NO_ASCII.match(name):  # its bytes are all below 128, as those of ASCII
            with suppress(LookupError, ValueError):
                return data.decode(name)
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    text = data.decode("utf-8", "surrogateescape")
    n_damaged = len(DAMAGED.findall(text))
    n_beyond = sum(1 for c in text if c > "\x7f") - n_damaged
    if n_beyond >= CHARACTERS_PER_DAMAGE * n_damaged:
        notes.warnings.append(_replaced(n_damaged))
        return DAMAGED.sub(REPLACED, text)
    if named:
        # Some codecs of Python decode no text, or take no `replace`; a name may hold a NUL.
        with suppress(LookupError, ValueError):
            codec = named if of_user else SUPERSETS.get(codecs.lookup(named).name, named)
            text = data.decode(codec, errors="strict" if of_user else "replace")
            notes.warnings += _not_as_named(text, f"{named}, as it says")
            return text
    if of_user:
        text = data.decode(of_user, errors="replace")
        notes.warnings += _not_as_named(text, f"{notes.encoding}, as --corpus.encoding says")
        return text
    guessed = guess(whole_characters(data[: 1 << 20])) or "cp1252"
    notes.warnings.append(guess_note(guessed))
    return data.decode(guessed, errors="replace")


def _not_as_named(text: str, named: str) -> list[str]:
    """The warning that a text has bytes which its encoding does not have; none if it has not."""
    n = text.count(REPLACED)
    bytes_are = "byte is" if n == 1 else "bytes are"
    return [f"{n:,} {bytes_are} not {named}, and became U+FFFD"] if n else []


def _wide(data: bytes) -> str:
    """The UTF-16 or UTF-32 codec of a text whose first characters have zero bytes; empty if none.

    >>> _wide("<?xml".encode("utf-16-be"))
    'utf-16-be'
    """
    n = min(len(data), 64) // 4
    zeros = [i % 4 for i, byte in enumerate(data[: 4 * n]) if byte == 0]
    counts = [zeros.count(i) == n > 0 for i in range(4)]
    codecs_of = {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }
    return codecs_of.get(tuple(counts), "")  # type: ignore[call-overload]


def guess(sample: bytes) -> str | None:
    """Return the encoding that makes most sense of some bytes; None if none does."""
    try:
        from chardet import EncodingEra, detect
    except ImportError:
        return None
    if b"\0" in sample:
        return None
    era = EncodingEra.ALL & ~EncodingEra.MAINFRAME
    found = detect(sample, encoding_era=era, max_bytes=max(len(sample), 1), compat_names=False)
    if found["encoding"] is None:
        return None
    codec = codecs.lookup(found["encoding"]).name
    return SUPERSETS.get(codec, codec)


def whole_characters(sample: bytes) -> bytes:
    """Drop the last character of a sample, which may be cut off.

    In every multi-byte encoding that is read, a line end or a space completes a character.

    >>> whole_characters(b"one two thr")
    b'one two '
    """
    end = max(sample.rfind(b"\n"), sample.rfind(b" ")) + 1
    return sample[:end] if end > len(sample) // 2 else sample


def guess_note(codec: str) -> str:
    """The warning that an encoding was guessed."""
    return f"not UTF-8; read as {codec}, which is a guess (--corpus.encoding names another)"


def advice(share_beyond: float) -> str:
    """Suggest encodings to name for a text with such a share of bytes beyond ASCII."""
    if share_beyond < LATIN:
        return "Name its encoding, as in --corpus.encoding latin-1"
    return (
        "Name its encoding, as in --corpus.encoding gb18030, big5, cp932, cp949, cp1251 or cp1256"
    )


def _guess_file(path: Path, damage: Damage) -> str | None:
    with path.open("rb") as file:
        sample = file.read(GUESS_BYTES)
        if damage.offset >= GUESS_BYTES // 2:  # everything before it is ASCII or UTF-8
            file.seek(damage.offset)
            sample = file.read(GUESS_BYTES)
    whole = whole_characters(sample)
    if whole is not sample or len(sample) < GUESS_BYTES:
        return guess(whole)
    # A text may have no spaces, as in Chinese: one of these ends completes a character.
    ends = (len(sample) - i for i in range(4))
    return next(filter(None, (guess(sample[:end]) for end in ends)), None)


def _shifted(path: Path) -> str:
    """The codec of a file that shifts between character sets, if it can read all of the file."""
    with path.open("rb") as file:
        sample = file.read(GUESS_BYTES)
    codec = next((codec for sign, codec in SHIFTED.items() if sign in sample), "")
    return codec if codec and _reads(path, codec) else ""


def _reads(path: Path, codec: str) -> bool:
    """Whether a codec can read a whole file."""
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for block in _blocks(path):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True


def _damaged_utf8(damage: Damage, marked: Encoding, notes: Notes) -> Encoding:
    if damage.n_damaged:
        at = f", the first is 0x{damage.first:02x} at offset {damage.offset:,}"
        notes.warnings.append(_replaced(damage.n_damaged) + at)
        notes.dropped["bytes that are not UTF-8"] += damage.n_damaged
    if damage.n_nuls:
        notes.warnings.append(f"{damage.n_nuls:,} NULs were dropped")
        notes.dropped["NULs"] += damage.n_nuls
    return Encoding("utf-8", marked.skip, lenient=True)


def _replaced(n: int) -> str:
    return f"{n:,} {'byte is' if n == 1 else 'bytes are'} not UTF-8 and became U+FFFD"


def _no_text(name: str, damage: Damage, codec: str) -> UserError:
    """The error for a file with NULs."""
    begin = f"{name} is a binary file"
    if damage.n_nuls * 3 > damage.n_bytes:
        order = "le" if damage.odd_nuls * 2 > damage.n_nuls else "be"
        return UserError(
            f"{begin}, or text in another encoding than {codec}: it has {damage.n_nuls:,} NULs. "
            f"Give text files, or --corpus.encoding utf-16-{order}."
        )
    return UserError(f"{begin}: it has {damage.n_nuls:,} NULs. Give text files.")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _blocks(path: Path) -> Iterator[bytes]:
    """Blocks of a file, and an empty block at its end."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
    yield b""
