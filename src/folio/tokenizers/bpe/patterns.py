r"""Four published patterns, as regular expressions, that cut text into chunks before any merging.

`gpt2` is GPT-2's; `smollm` is the same with each digit alone, and no space before it; `llama3` and
`qwen2` are those of the models of the same name, which differ from each other in how many digits
stay together (three or one). `split` runs them without a regular-expression engine; here they are
for reading, for the names in `tokenizer.json`, and as a slow stand-in built on the standard
library's `re`, which lacks \p{L} and \p{N}.

Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py, and `pre_tokenizer` in the
published tokenizer.json files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from folio.errors import UserError
from folio.tokenizers.bpe.unicode_classes import LETTER, NUMBER, class_table, read_ranges

PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "smollm": (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"
        r"|\s+(?=\p{N})|\s+(?!\S)|\s+"
    ),
}


def check_pattern(name: str) -> str:
    """Return the name, or raise a UserError that lists the known ones."""
    if name not in PATTERNS:
        raise UserError(f"Unknown split pattern {name!r}. Choose one of {', '.join(PATTERNS)}.")
    return name


def split_slowly(text: str, pattern: str = "gpt2") -> list[str]:
    """The chunks of a text; joined they give the text.

    >>> split_slowly("We'll see 100  things.")
    ['We', "'ll", ' see', ' 100', ' ', ' things', '.']
    """
    return with_our_classes(PATTERNS[check_pattern(pattern)]).findall(text)


def safe_pieces(parts: Iterable[str], n_characters: int = 1 << 20) -> Iterator[str]:
    """Regroup the parts of a text into pieces that have the same chunks as the whole.

    A cut is safe after a letter that is not followed by a letter, and after a number that is not
    followed by a number: both end their chunk in every pattern, and no pattern looks back. A text
    without such a position stays whole.

    >>> list(safe_pieces(["The first wo", "rds, ", "  the last"], n_characters=12))
    ['The first', ' words,   the', ' last']
    """
    waiting: list[str] = []
    n_waiting = 0
    for part in parts:
        for start in range(0, len(part), n_characters):
            text = (waiting.pop() if waiting else "") + part[start : start + n_characters]
            n_waiting += min(n_characters, len(part) - start)
            cut = _last_safe_cut(text) if n_waiting >= n_characters else 0
            if cut > 0:
                yield "".join([*waiting, text[:cut]])
                waiting, text = [], text[cut:]
                n_waiting = len(text)
            waiting += [text[:-1], text[-1:]]  # the last is seen again
    if n_waiting:
        yield "".join(waiting)


def _last_safe_cut(text: str) -> int:
    """The last position at which every pattern cuts, or 0."""
    classes = _classes()
    after = classes[ord(text[-1])] if text else 0
    for place in range(len(text) - 1, 0, -1):
        before = classes[ord(text[place - 1])]
        if before != after and before in (LETTER, NUMBER):
            return place
        after = before
    return 0


@cache
def _classes() -> bytes:
    return class_table().tobytes()  # bytes give an int faster than an array does


@cache
def with_our_classes(expression: str) -> re.Pattern[str]:
    r"""Compile an expression for `re`, with \p{L}, \p{N}, \s and \S spelled out as ranges of our
    table.

    In brackets it may also have \p{P}\p{S}, punctuation and signs, the two side by side.
    """
    spans = {
        escape: "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in read_ranges()[name])
        for escape, name in _CLASS_OF_ESCAPE.items()
    } | {r"\p{S}": ""}
    parts, inside_brackets = [], False
    for part in re.findall(r"\\p\{\w\}|\\.|.", expression):
        if part in spans:
            parts.append(spans[part] if inside_brackets else f"[{spans[part]}]")
        elif part == r"\S":
            parts.append("[^" + spans[r"\s"] + "]")
        else:
            inside_brackets = part == "[" or (inside_brackets and part != "]")
            parts.append(part)
    return re.compile("".join(parts))


_CLASS_OF_ESCAPE = {
    r"\p{L}": "letter",
    r"\p{N}": "number",
    r"\s": "whitespace",
    r"\p{P}": "symbol",
}
