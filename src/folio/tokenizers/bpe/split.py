"""Cut text into chunks without a regular-expression engine: `patterns`, written out over UTF-8
bytes.

Each pattern is a list of alternatives of which the first that matches wins; here the first
character decides which of them can. `next_cut` is also compiled into the loops that count and
encode chunks, so that text is read only once.

Bytes that are not UTF-8 are cut somewhere; none is lost.
"""

from __future__ import annotations

import numpy as np

from folio.jit import kernel
from folio.tokenizers.bpe.patterns import PATTERNS, check_pattern
from folio.tokenizers.bpe.unicode_classes import (
    LETTER,
    N_CODE_POINTS,
    NUMBER,
    OTHER,
    WHITESPACE,
    class_table,
)

PATTERN_CODES = {name: code for code, name in enumerate(PATTERNS)}
GPT2, LLAMA3, QWEN2, SMOLLM = (
    PATTERN_CODES[name] for name in ("gpt2", "llama3", "qwen2", "smollm")
)

_SPACE, _NEWLINE, _RETURN, _APOSTROPHE = 0x20, 0x0A, 0x0D, 0x27


def split(text: str, pattern: str = "gpt2") -> list[bytes]:
    """The chunks of a text as UTF-8; joined they give its bytes.

    >>> split("We'll see 100  things.")
    [b'We', b"'ll", b' see', b' 100', b' ', b' things', b'.']
    >>> split("We'll see 100  things.", "llama3")
    [b'We', b"'ll", b' see', b' ', b'100', b' ', b' things', b'.']
    """
    return split_bytes(text.encode("utf-8", "surrogatepass"), pattern)


def split_bytes(data: bytes, pattern: str = "gpt2") -> list[bytes]:
    """The chunks of some bytes, which need not be valid UTF-8."""
    code = PATTERN_CODES[check_pattern(pattern)]
    cuts = np.empty(len(data), np.int64)
    n_cuts = find_cuts(np.frombuffer(data, np.uint8), class_table(), code, cuts)
    cuts = cuts[:n_cuts].tolist()
    return [data[start:stop] for start, stop in zip([0, *cuts], cuts, strict=False)]


@kernel(allocates=False)
def find_cuts(data, classes, pattern, cuts):
    """Write the end of each chunk, in bytes, to cuts (int64); returns the number of chunks."""
    n_cuts = 0
    position = 0
    while position < len(data):
        position = next_cut(data, position, len(data), classes, pattern)
        cuts[n_cuts] = position
        n_cuts += 1
    return n_cuts


@kernel(allocates=False)
def next_cut(data, start, stop, classes, pattern):
    """The end of the chunk that begins at `start`, in a text that ends at `stop`."""
    if data[start] == _APOSTROPHE:
        any_case = pattern in (LLAMA3, QWEN2)
        end = end_of_contraction(data, start, stop, any_case)
        if end > 0:
            return end
    if pattern in (GPT2, SMOLLM):
        return gpt2_cut(data, start, stop, classes, pattern == SMOLLM)
    return llama3_cut(data, start, stop, classes, 3 if pattern == LLAMA3 else 1)


@kernel(allocates=False)
def gpt2_cut(data, start, stop, classes, digits_alone):
    r"""Matches ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+`, then whitespace; or `\p{N}` and
    `\s+(?=\p{N})`.
    """
    first = start + 1 if data[start] == _SPACE and start + 1 < stop else start
    kind, width = classify(data, first, stop, classes)
    if kind == NUMBER and digits_alone:
        return first if first > start else first + width
    if kind != WHITESPACE:
        return end_of_run(data, first + width, stop, classes, kind)
    return end_of_whitespace(data, start, stop, classes, False, digits_alone)


@kernel(allocates=False)
def llama3_cut(data, start, stop, classes, max_digits):
    r"""Matches the following, then whitespace.

    `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+`
    """
    kind, width = classify(data, start, stop, classes)
    after = start + width
    if kind == LETTER:
        return end_of_run(data, after, stop, classes, LETTER)
    if kind == NUMBER:
        n_digits = 1
        while n_digits < max_digits and after < stop:
            kind, width = classify(data, after, stop, classes)
            if kind != NUMBER:
                break
            after += width
            n_digits += 1
        return after
    if after < stop and data[start] != _NEWLINE and data[start] != _RETURN:
        next_kind, next_width = classify(data, after, stop, classes)
        if next_kind == LETTER:
            return end_of_run(data, after + next_width, stop, classes, LETTER)
        if data[start] == _SPACE and next_kind == OTHER:
            kind, after = next_kind, after + next_width
    if kind == OTHER:
        end = end_of_run(data, after, stop, classes, OTHER)
        while end < stop and (data[end] == _NEWLINE or data[end] == _RETURN):
            end += 1
        return end
    return end_of_whitespace(data, start, stop, classes, True, False)


@kernel(allocates=False)
def end_of_whitespace(data, start, stop, classes, newlines_end_it, digits_alone):
    """Matches `\\s+(?!\\S)|\\s+`: all of it at the end of the text; before a word its last
    character is left to the word.

    With `newlines_end_it` also `\\s*[\\r\\n]+` before that: up to the last newline, if there is
    one. With `digits_alone` nothing is left to a number.
    """
    position = last_start = start
    after_newline = -1
    while position < stop:
        kind, width = classify(data, position, stop, classes)
        if kind != WHITESPACE:
            break
        last_start = position
        position += width
        if data[last_start] == _NEWLINE or data[last_start] == _RETURN:
            after_newline = position
    if newlines_end_it and after_newline > 0:
        return after_newline
    if digits_alone and position < stop and classify(data, position, stop, classes)[0] == NUMBER:
        return position
    return position if position == stop or last_start == start else last_start


@kernel(allocates=False)
def end_of_contraction(data, start, stop, any_case):
    """Where `'s|'t|'re|'ve|'m|'ll|'d` ends, or -1 if there is none at `start`."""
    fold = 0x20 if any_case else 0  # the bit that distinguishes "s" from "S"
    if start + 1 >= stop:
        return -1
    one = data[start + 1] | fold
    if one == 0x73 or one == 0x74 or one == 0x6D or one == 0x64:  # s t m d
        return start + 2
    if start + 2 >= stop:
        return -1
    two = data[start + 2] | fold
    if (two == 0x65 and (one == 0x72 or one == 0x76)) or (two == 0x6C and one == 0x6C):  # re ve ll
        return start + 3
    # The long s, U+017F, is the only other character that equals one of these if case is ignored.
    if any_case and data[start + 1] == 0xC5 and data[start + 2] == 0xBF:
        return start + 3
    return -1


@kernel(allocates=False)
def end_of_run(data, position, stop, classes, wanted):
    """The end of the run of characters of one class."""
    while position < stop:
        byte = data[position]
        if byte < 0x80:
            if classes[byte] != wanted:
                break
            position += 1
        else:
            kind, width = classify(data, position, stop, classes)
            if kind != wanted:
                break
            position += width
    return position


@kernel(allocates=False)
def classify(data, position, stop, classes):
    """The class of the character at `position`, and its width in bytes."""
    lead = np.int64(data[position])
    if lead < 0x80:
        return classes[lead], 1
    left = stop - position
    if lead >= 0xF0 and left >= 4:
        point = (
            (lead & 0x07) << 18
            | (np.int64(data[position + 1]) & 0x3F) << 12
            | (np.int64(data[position + 2]) & 0x3F) << 6
            | (np.int64(data[position + 3]) & 0x3F)
        )
        return classes[point] if point < N_CODE_POINTS else np.uint8(OTHER), 4
    if lead >= 0xE0 and left >= 3:
        point = (
            (lead & 0x0F) << 12
            | (np.int64(data[position + 1]) & 0x3F) << 6
            | (np.int64(data[position + 2]) & 0x3F)
        )
        return classes[point], 3
    if lead >= 0xC0 and left >= 2:
        return classes[(lead & 0x1F) << 6 | (np.int64(data[position + 1]) & 0x3F)], 2
    return np.uint8(OTHER), 1
