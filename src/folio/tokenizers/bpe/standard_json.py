"""The standard tokenizer.json of byte-level byte-pair encoding, to and from what Folio runs.

In that file a token is written with one printable character for each byte, as GPT-2 began it:
bytes that print in Latin-1 stand for themselves, the others are U+0100 and following.

Source: https://huggingface.co/docs/tokenizers/api/models, and GPT-2's encoder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from folio.errors import UserError
from folio.tokenizers.base import added_tokens
from folio.tokenizers.bpe.patterns import PATTERNS
from folio.tokenizers.bpe.rules import Rules


class Contents(NamedTuple):
    """What a tokenizer.json says."""

    rules: Rules
    pieces: list[bytes]
    pattern: str
    special_tokens: dict[str, int]
    normalization: str | None
    merge_counts: list[int] | None = None
    """How often each pair occurred in the training text when it was merged. The standard does
    not know it; the `tokenizers` library reads over it."""


@cache
def byte_characters() -> str:
    """The character that each of the 256 bytes is written as.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(value if value in printable else next(others)) for value in range(256))


def written(token: bytes) -> str:
    """A token as the file has it.

    >>> written(b" the")
    'Ġthe'
    """
    characters = byte_characters()
    return "".join(characters[value] for value in token)


def to_standard(contents: Contents) -> dict[str, Any]:
    """The file as a dictionary."""
    rules, pieces = contents.rules, contents.pieces
    names = [written(piece) for piece in pieces]
    for name, token_id in contents.special_tokens.items():
        names[token_id] = name
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if contents.pattern == "gpt2":
        splitter: dict[str, Any] = {**byte_level, "use_regex": True}
    else:
        split = {
            "type": "Split",
            "pattern": {"Regex": PATTERNS[contents.pattern]},
            "behavior": "Isolated",
            "invert": False,
        }
        parts = [split, {**byte_level, "use_regex": False}]
        splitter = {"type": "Sequence", "pretokenizers": parts}
    normalizer = {"type": contents.normalization} if contents.normalization else None
    counts = {"merge_counts": contents.merge_counts} if contents.merge_counts else {}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(contents.special_tokens),
        "normalizer": normalizer,
        "pre_tokenizer": splitter,
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": bool(rules.whole_chunks),
            "vocab": {name: token_id for token_id, name in enumerate(names) if name},
            "merges": [[names[left], names[right]] for left, right in rules.pairs.tolist()],
            **counts,
        },
    }


def from_standard(table: Mapping[str, Any], source: str = "The tokenizer.json") -> Contents:
    """What a file says.

    Args:
        table: the file as a dictionary.
        source: how errors call it.

    Raises:
        UserError: damaged, or something that Folio does not run.
    """
    try:
        return _from_standard(table, source)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source} is damaged ({type(error).__name__}: {error}). Save the tokenizer again, "
            f"or copy the file anew."
        ) from error


def _from_standard(table: Mapping[str, Any], source: str) -> Contents:
    model = table["model"]
    if model["type"] != "BPE":
        raise UserError(f"{source} has a model of type {model['type']!r}; only 'BPE' is read here.")
    for option in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise UserError(
                f"{source} sets model.{option} = {model[option]!r}; byte-level BPE has none. "
                f"Use a byte-level tokenizer.json."
            )
    special_tokens = {token["content"]: token["id"] for token in table.get("added_tokens") or []}
    vocabulary: dict[str, int] = model["vocab"]
    rules = rules_from_names(
        vocabulary, model["merges"], source, ignore_merges=bool(model.get("ignore_merges"))
    )
    normalizer = table.get("normalizer")
    if normalizer and normalizer["type"] not in ("NFC", "NFD", "NFKC", "NFKD"):
        raise UserError(
            f"{source} normalizes text with {normalizer['type']!r}, which Folio does not do."
        )
    return Contents(
        rules=rules,
        pieces=pieces_from_names(vocabulary, special_tokens, source),
        pattern=_pattern_name(table.get("pre_tokenizer"), source),
        special_tokens=special_tokens,
        normalization=normalizer["type"] if normalizer else None,
        merge_counts=_merge_counts(model, source),
    )


def _merge_counts(model: Mapping[str, Any], source: str) -> list[int] | None:
    counts = model.get("merge_counts")
    if counts is None:
        return None
    if len(counts) != len(model["merges"]) or not all(type(count) is int for count in counts):
        raise UserError(f"{source} is damaged: its merge_counts are not a number for each merge.")
    return counts


def rules_from_names(
    vocabulary: Mapping[str, int],
    merges: Sequence[str | Sequence[str]],
    source: str,
    *,
    ignore_merges: bool = False,
) -> Rules:
    """Rules from written tokens; merges, in the order of ranks, are "left right" or a pair."""
    pairs, new_ids = [], []
    for rank, entry in enumerate(merges):
        left, right = entry.split(" ") if isinstance(entry, str) else entry
        try:
            pairs.append((vocabulary[left], vocabulary[right]))
            new_ids.append(vocabulary[left + right])
        except KeyError as error:
            raise UserError(
                f"{source} is damaged: merge {rank} needs the token {error.args[0]!r}, "
                f"which the vocabulary does not have."
            ) from None
    missing = [value for value, name in enumerate(byte_characters()) if name not in vocabulary]
    if missing:
        raise UserError(
            f"{source} is no byte-level vocabulary: it lacks {len(missing)} of the 256 bytes, "
            f"the first is {missing[0]:#04x}."
        )
    whole = {}
    if ignore_merges:
        known = set(byte_characters())
        whole = {_unwritten(name): k for name, k in vocabulary.items() if known.issuperset(name)}
    return Rules(
        np.asarray(pairs, np.int32).reshape(-1, 2),
        np.asarray(new_ids, np.int32),
        np.asarray([vocabulary[name] for name in byte_characters()], np.int32),
        whole,
    )


def pieces_from_names(
    vocabulary: Mapping[str, int], special_tokens: Mapping[str, int], source: str
) -> list[bytes]:
    """The bytes of each id; ids that the vocabulary leaves out stand for none."""
    n_ids = 1 + max([*vocabulary.values(), *special_tokens.values()])
    if min([*vocabulary.values(), *special_tokens.values()]) < 0 or n_ids > 1 << 24:
        raise UserError(f"{source} is damaged: its ids go from below 0 or beyond {1 << 24:,}.")
    pieces = [b""] * n_ids
    for name, token_id in vocabulary.items():
        if name in special_tokens:
            continue
        try:
            pieces[token_id] = _unwritten(name)
        except KeyError as error:
            raise UserError(
                f"{source} is no byte-level vocabulary: its token {name!r} has the character "
                f"{error.args[0]!r}, which stands for no byte."
            ) from None
    for name, token_id in special_tokens.items():
        pieces[token_id] = name.encode("utf-8")
    return pieces


def _unwritten(name: str) -> bytes:
    values = _byte_values()
    return bytes([values[character] for character in name])


@cache
def _byte_values() -> dict[str, int]:
    return {character: value for value, character in enumerate(byte_characters())}


def _pattern_name(pre_tokenizer: Mapping[str, Any] | None, source: str) -> str:
    parts = [pre_tokenizer] if pre_tokenizer else []
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        parts = pre_tokenizer["pretokenizers"]
    if any(part.get("add_prefix_space") for part in parts):
        raise UserError(
            f"{source} puts a space before each text (add_prefix_space), which Folio does not do."
        )
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt2"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        expression = parts[0]["pattern"].get("Regex")
        for name, ours in PATTERNS.items():
            if ours == expression and parts[0]["behavior"] == "Isolated":
                return name
    raise UserError(
        f"{source} splits text in a way that Folio does not know. It knows the patterns of "
        f"{', '.join(PATTERNS)}."
    )
