"""Finds strings in a text that look like secrets: e-mail addresses, phone, account and card
numbers, and keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

CARRIED = 400
"""Characters that are looked at again with the next piece, so that nothing is cut in two."""

HIDDEN = "•"
MOST_KEPT = 2
"""Characters of a secret that its mask shows."""
GIVEN = "given"
"""The kind of the strings that the user calls secrets."""
_PATTERNS = {
    "e-mail address": re.compile(
        r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])"
    ),
    "account": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "card": re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])"),
    # Beginning with +, 0 or a bracket: seven digits with separators alone are tables and dates.
    # No country's code begins with 0, and numbers beside it in the line are a table.
    "telephone number": re.compile(
        r"(?<![\w.,+/-])(?<!\d\s)(?<!\d\s\s)(?:\+(?=[1-9(])|\(\+?\d{1,5}\)|00?(?=[1-9(]))"
        r"(?:[ ./-]?\(?\d\)?){6,14}(?![\w/]|[.,-]\d|[ \t]+\d)"
    ),
    "key": re.compile(
        r"(?<![\w-])(?=[A-Za-z0-9_-]{20})(?=[\w-]*[A-Za-z])(?=[\w-]*\d)[A-Za-z0-9_-]+(?![\w-])"
    ),
}
"""Patterns of each kind, tried in this order: what is one kind is no other. None matches across a
line end."""
_DIGITS = re.compile(r"\d(?:[^\n\w]{0,3}\d){6}")
_HINTS = {
    "e-mail address": re.compile("@"),
    "account": re.compile(r"[A-Z]{2}\d{2}"),
    "card": _DIGITS,
    "telephone number": _DIGITS,
    "key": re.compile("[A-Za-z0-9_-]{20}"),
}
"""What a line must contain to be searched for a kind, since a search takes several times as
long."""
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_DATE = re.compile(rf"\A{_DAY}([./-]){_DAY}\1(?:19|20)\d\d(?!\d)")
_CODE = re.compile(r"(?=\w*\d)(?=\w*[A-Za-z]|\d{4})[A-Za-z\d]+")
"""What words are not: digits with letters, or several of them."""


@dataclass(frozen=True)
class Found:
    """A string found in a text."""

    kind: str
    string: str
    start: int
    """The character at which it begins."""


def find_personal(text: str) -> Iterator[Found]:
    """Strings of a text that look like secrets, by kind."""
    taken = bytearray(len(text))  # 1 for each character that is part of one
    for kind, pattern in _PATTERNS.items():
        for first, last in _lines_with(_HINTS[kind], text):
            for match in pattern.finditer(text, first, last):
                start, stop = match.span()
                if not any(taken[start:stop]) and _is_one(kind, match[0]):
                    taken[start:stop] = b"\1" * (stop - start)
                    yield Found(kind, match[0], start)


def find_in_pieces(pieces: Iterable[str], strings: Sequence[str]) -> Iterator[Found]:
    """Search a text that is given in pieces, also for some fixed strings.

    Args:
        pieces: the text.
        strings: the user's own secrets.
    """
    given_ones = set(strings)
    own = _longest_at_each_place(strings)
    carried = max([CARRIED, *(2 * len(string) for string in strings)])
    window, begin, told = "", 0, 0  # told: characters of the whole text that were looked at
    for text, is_last in _with_last(pieces):
        window += text
        # What touches the end may go on in the next piece.
        safe = len(window) if is_last else max(len(window) - carried // 2, 0)
        matches = own.finditer(window) if strings else ()
        hits = [
            Found(GIVEN, begun, match.start())
            for match in matches
            for begun in accumulate(match[1])  # one may begin another
            if begun in given_ones
        ]
        given = [(hit.start, hit.start + len(hit.string)) for hit in hits]
        hits += [
            hit
            for hit in find_personal(window)
            if all(hit.start >= b or hit.start + len(hit.string) <= a for a, b in given)
        ]
        for hit in sorted(hits, key=lambda hit: hit.start):
            if told <= begin + hit.start < begin + safe:
                yield Found(hit.kind, hit.string, begin + hit.start)
        told = begin + safe
        drop = max(len(window) - carried, 0)
        window, begin = window[drop:], begin + drop


def _lines_with(hint: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Start and stop of each line that has something."""
    stop = 0
    while match := hint.search(text, stop):
        start = text.rfind("\n", 0, match.start()) + 1
        stop = text.find("\n", match.end())
        stop = len(text) if stop < 0 else stop
        yield start, stop


def _longest_at_each_place(strings: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds strings, as its first group, also where they overlap; of those that
    begin at one place the longest.
    """
    longest_first = sorted(set(strings), key=len, reverse=True)
    return re.compile(f"(?=({'|'.join(map(re.escape, longest_first)) or '(?!)'}))")


def masked(string: str, kind: str = "") -> str:
    """Mask nearly all characters of a secret; the length is kept.

    >>> masked("jane@mail.org", "e-mail address"), masked("+49 30 1234567"), masked("pass.w@rd9")
    ('j•••@m•••.org', '+4• •• •••••••', 'pa••••••••')
    """
    if kind == "e-mail address":
        head, dot, top = string.rpartition(".")
        return re.sub(r"^.(?=@)|(?<=[^@])[^@]", HIDDEN, head) + dot + top
    kept = MOST_KEPT if len(string) > 6 else 1
    return string[:kept] + re.sub(r"\S", HIDDEN, string[kept:])


class Mask:
    """Hides, in any text that is shown, what looks like a secret and what the user called one."""

    def __init__(self, strings: Sequence[str]) -> None:
        """Strings that are hidden wherever they stand, also where an edge of a text cuts them."""
        strings = [*filter(None, strings)]
        self.own = _longest_at_each_place(strings)
        self.joined = "\0".join(["", *dict.fromkeys(strings), ""])
        self.longest = max(map(len, strings), default=0)

    def __call__(self, text: str) -> str:
        """The text, of the same length."""
        own = [Found(GIVEN, match[1], match.start()) for match in self.own.finditer(text)]
        hidden = [*text]
        for found in [*own, *find_personal(text)]:
            for place, shown in enumerate(masked(found.string, found.kind), found.start):
                if shown == HIDDEN:
                    hidden[place] = HIDDEN
        first, last = self._cut(text)
        hidden[:first] = HIDDEN * first
        hidden[last:] = HIDDEN * (len(text) - last)
        return "".join(hidden)

    def _cut(self, text: str) -> tuple[int, int]:
        """Start and stop of what an edge of the text does not cut out of a secret. MOST_KEPT
        characters of one may be left, as its mask leaves them.
        """
        whole = text.strip("\ufffd")  # halves of characters
        start = len(text) - len(text.lstrip("\ufffd"))
        if len(whole) > MOST_KEPT and whole in self.joined:
            return 0, 0
        first, last = 0, len(text)
        for n in range(MOST_KEPT + 1, min(len(whole), self.longest)):
            if f"{whole[:n]}\0" in self.joined:
                first = start + n
            if f"\0{whole[-n:]}" in self.joined:
                last = start + len(whole) - n
        return first, last


def _with_last(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each piece, and whether it is the last one."""
    waiting: str | None = None
    for piece in pieces:
        if waiting is not None:
            yield waiting, False
        waiting = piece
    yield waiting or "", True


def _is_one(kind: str, string: str) -> bool:
    """Check what a pattern alone cannot, such as check digits."""
    if kind == "account":  # ISO 13616: the remainder by 97 is 1
        letters = string.replace(" ", "")
        moved = letters[4:] + letters[:4]
        return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1 and len(letters) >= 15
    if kind == "card":  # Luhn, ISO/IEC 7812
        digits = [int(c) for c in string if c.isdigit()][::-1]
        doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
        return sum(doubled) % 10 == 0 and len(set(digits)) > 1
    if kind == "telephone number":
        if re.fullmatch(r"\+\d+\.\d+", string):  # a number with its sign
            return False
        return 7 <= sum(c.isdigit() for c in _DATE.sub("", string)) <= 15
    if kind == "key":  # words that are joined are a name
        parts = re.split("[-_]", string)
        return 2 * sum(map(len, filter(_CODE.fullmatch, parts))) >= sum(map(len, parts))
    return True
