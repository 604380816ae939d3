"""The standard tokenizer.json of byte-level byte-pair encoding, converted to and from what Folio
runs.

In that file a token is written with one printable character for each byte, as in GPT-2: bytes that
are printable in Latin-1 represent themselves, the others are U+0100 and following.

Source: https://huggingface.co/docs/tokenizers/api/models, and GPT-2's encoder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from folio.errors import UserError
from folio.tokenizers.base import (
    BEGIN,
    END_OF_DOCUMENT,
    MOST_IDS,
    added_tokens,
    chat_tokens_lacking,
    said_template,
    template_entry,
)
from folio.tokenizers.bpe.patterns import PATTERNS
from folio.tokenizers.bpe.rules import Rules

PRINTABLE = range(0x20, 0x7F)
"""The ASCII bytes that every byte-level vocabulary has."""


AROUND = ("single_word", "lstrip", "rstrip")
"""Settings of an added token that take more or less than its own characters."""


class Contents(NamedTuple):
    """The content of a tokenizer.json."""

    rules: Rules
    pieces: list[bytes]
    pattern: str
    special_tokens: dict[str, int]
    normalization: str | None
    merge_counts: list[int] | None = None
    """How often each pair occurred in the training text when it was merged. The standard has no
    place for it, and the `tokenizers` library ignores it."""
    found_in_text: Mapping[str, int] = MappingProxyType({})
    """Added tokens that match their own name in any text before anything else."""
    normalized_names: frozenset[str] = frozenset()
    """Those of them that are found in the normalized text; the others, in the text as it is."""
    roles: Mapping[str, str] = MappingProxyType({})
    """Names of the special tokens that begin and end a document (keys `begin` and `end`), if they
    differ from ours, and of others that end a text, too (keys with OTHER_END and a number). Stored
    beside the counts."""
    has_chat: bool = False
    """Whether the file declares the chat template."""


@cache
def byte_characters() -> str:
    """The character that represents each of the 256 bytes.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(value if value in printable else next(others)) for value in range(256))


def written(token: bytes) -> str:
    """A token as it is written in the file.

    >>> written(b" the")
    'Ġthe'
    """
    characters = byte_characters()
    return "".join(characters[value] for value in token)


def to_standard(contents: Contents) -> dict[str, Any]:
    """Return the file as a dictionary."""
    rules, pieces = contents.rules, contents.pieces
    names = [written(piece) for piece in pieces]
    for name, token_id in (*contents.special_tokens.items(), *contents.found_in_text.items()):
        names[token_id] = name
    normalizer = {"type": contents.normalization} if contents.normalization else None
    counts = {"merge_counts": contents.merge_counts} if contents.merge_counts else {}
    roles = {"roles": dict(contents.roles)} if contents.roles else {}
    chat = template_entry(contents.has_chat)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(
            contents.special_tokens, contents.found_in_text, contents.normalized_names
        ),
        "normalizer": normalizer,
        "pre_tokenizer": splitter(contents.pattern),
        "post_processor": None,
        "decoder": {**BYTE_LEVEL, "use_regex": True},
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
            **roles,
            **chat,
        },
    }


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def splitter(pattern: str) -> dict[str, Any]:
    """The entry `pre_tokenizer` for a pattern."""
    if pattern == "gpt2":
        return {**BYTE_LEVEL, "use_regex": True}
    if pattern == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        parts = [digits, {**BYTE_LEVEL, "use_regex": True}]
    else:
        expression = {"Regex": PATTERNS[pattern]}
        split = {"type": "Split", "pattern": expression, "behavior": "Isolated", "invert": False}
        parts = [split, {**BYTE_LEVEL, "use_regex": False}]
    return {"type": "Sequence", "pretokenizers": parts}


def from_standard(table: Mapping[str, Any], source: str = "The tokenizer.json") -> Contents:
    """Parse a file.

    Args:
        table: the file as a dictionary.
        source: the file's name in errors.

    Raises:
        UserError: damaged, or of a kind that Folio cannot run.
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
    added: dict[bool, dict[str, int]] = {True: {}, False: {}}
    normalized: set[str] = set()
    for token in table.get("added_tokens") or []:
        is_special = bool(token.get("special", True))
        if not is_special and any(token.get(key) for key in AROUND):
            raise UserError(
                f"{source} finds the token {token['content']!r} in text by what stands around it "
                f"({' or '.join(AROUND)}), which Folio does not do."
            )
        added[is_special][token["content"]] = token["id"]
        if not is_special and token.get("normalized"):
            normalized.add(token["content"])
    vocabulary: dict[str, int] = dict(model["vocab"])  # no Record: what it lacks has its own error
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
        pieces=pieces_from_names(vocabulary, added[True] | added[False], source),
        pattern=_pattern_name(table.get("pre_tokenizer"), source),
        special_tokens=added[True],
        normalization=normalizer["type"] if normalizer else None,
        merge_counts=_merge_counts(model, source),
        found_in_text=added[False],
        normalized_names=frozenset(normalized),
        roles=_roles(model, added[True], source),
        has_chat=_has_chat(model, added[True], source),
    )


def _has_chat(model: Mapping[str, Any], special_tokens: Mapping[str, int], source: str) -> bool:
    has_chat = said_template(model, source)
    if has_chat and (lacking := chat_tokens_lacking(special_tokens)):
        raise UserError(f"{source} is damaged: its special tokens do not have {lacking[0]!r}.")
    return has_chat


def _roles(
    model: Mapping[str, Any], special_tokens: Mapping[str, int], source: str
) -> dict[str, str]:
    usual = {"begin": BEGIN, "end": END_OF_DOCUMENT}
    given = dict(model.get("roles") or {})
    roles = {role: name for role, name in given.items() if name != usual.get(role)}
    if unknown := [name for name in roles.values() if name and name not in special_tokens]:
        raise UserError(f"{source} is damaged: its special tokens do not have {unknown[0]!r}.")
    return roles


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
    # A vocabulary learned from little text may lack bytes that hardly any text has.
    missing = [value for value, name in enumerate(byte_characters()) if name not in vocabulary]
    if any(value in PRINTABLE for value in missing):
        raise UserError(
            f"{source} is not a byte-level vocabulary: it lacks {len(missing)} of the 256 bytes, "
            f"the first is {missing[0]:#04x}."
        )
    whole = {}
    if ignore_merges:
        known = set(byte_characters())
        whole = {_unwritten(name): k for name, k in vocabulary.items() if known.issuperset(name)}
    return Rules(
        np.asarray(pairs, np.int32).reshape(-1, 2),
        np.asarray(new_ids, np.int32),
        np.asarray([vocabulary.get(name, -1) for name in byte_characters()], np.int32),
        whole,
    )


def pieces_from_names(
    vocabulary: Mapping[str, int], special_tokens: Mapping[str, int], source: str
) -> list[bytes]:
    """The bytes of each id; ids that the vocabulary skips have none."""
    n_ids = 1 + max([*vocabulary.values(), *special_tokens.values()])
    if min([*vocabulary.values(), *special_tokens.values()]) < 0 or n_ids > MOST_IDS:
        raise UserError(f"{source} is damaged: its ids go from below 0 or beyond {MOST_IDS:,}.")
    pieces = [b""] * n_ids
    for name, token_id in vocabulary.items():
        if name in special_tokens:
            continue
        try:
            pieces[token_id] = _unwritten(name)
        except KeyError as error:
            raise UserError(
                f"{source} is not a byte-level vocabulary: its token {name!r} has the character "
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
    if kinds == ["Digits", "ByteLevel"] and parts[1].get("use_regex", True):
        alone = parts[0].get("individual_digits")
        return "smollm" if alone else _unknown_pattern(source)
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        expression = parts[0]["pattern"].get("Regex")
        for name, ours in PATTERNS.items():
            if ours == expression and parts[0]["behavior"] == "Isolated":
                return name
    return _unknown_pattern(source)


def _unknown_pattern(source: str) -> NoReturn:
    raise UserError(
        f"{source} splits text in a way that Folio does not know. It knows the patterns of "
        f"{', '.join(PATTERNS)}."
    )
