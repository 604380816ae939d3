"""Writes and reads a vocabulary in llama.cpp's form.

Byte pairs are its `gpt2` with the name of a pattern. Characters are its `t5`, unigrams with one
probability for all: as byte pairs each would need merges of its bytes, and ids of their own. It has
nothing that cuts a text into whole words.

Source: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from folio.errors import UserError
from folio.tokenizers import TYPES
from folio.tokenizers.base import CHAT_TOKENS, END_OF_DOCUMENT, OTHER_END, UNKNOWN, Tokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.chat import END, jinja_template

NORMAL, UNKNOWN_TYPE, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "smollm": "smollm"}
"""Our split patterns -> llama.cpp's names."""
SPACE = "\u2581"
"""The character that represents a space."""
K = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
OTHER_ENDS = ("eot_token_id", "eom_token_id")
"""Keys of what ends a text for llama.cpp beside `eos_token_id`."""


def vocabulary_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """Make the settings that say a vocabulary.

    Raises:
        UserError: llama.cpp has no such tokenizer.
    """
    if tokenizer.end_of_document is None:
        raise UserError(
            "llama.cpp needs to know which token ends a text, and this vocabulary has none: an "
            "ordinary letter would end it. Give --to hf."
        )
    if isinstance(tokenizer, CharacterTokenizer):
        settings = _characters(tokenizer)
    elif tokenizer.kind == "bpe":
        settings = _byte_pairs(tokenizer.to_json())
    else:
        raise UserError(
            "llama.cpp has no tokenizer that cuts text into whole words. Give --to hf, or train "
            "with --tokenizer.kind bpe."
            if tokenizer.kind == "word"
            else f"llama.cpp has no tokenizer of the kind {tokenizer.kind}. Train with "
            f"--tokenizer.kind bpe."
        )
    begin, end = tokenizer.begin, tokenizer.end_of_document
    others = dict(zip(OTHER_ENDS, tokenizer.ends[1:]))
    if tokenizer.has_chat:
        settings[TEMPLATE] = jinja_template(tokenizer)
        others = {"eot_token_id": tokenizer.special_id(END)}
    settings |= {K + name: token_id for name, token_id in others.items()}
    return settings | {
        f"{K}bos_token_id": end if begin is None else begin,
        f"{K}eos_token_id": end,
        f"{K}padding_token_id": end,
        f"{K}add_bos_token": begin is not None,
        f"{K}add_eos_token": False,
    }


def _characters(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    if SPACE in tokenizer.characters:
        raise UserError(
            "llama.cpp reads U+2581 as a space, and this text has that character. Give --to hf."
        )
    tokens = [SPACE if c == " " else c for c in tokenizer.characters]
    n = len(tokens)
    controls = [name for name in tokenizer.special_tokens if name != UNKNOWN]
    return {
        f"{K}model": "t5",
        f"{K}tokens": [*tokens, UNKNOWN, *controls],
        f"{K}scores": [-1.0] * n + [-100.0] + [0.0] * len(controls),
        f"{K}token_type": [NORMAL] * n + [UNKNOWN_TYPE] + [CONTROL] * len(controls),
        f"{K}unknown_token_id": n,
        f"{K}add_space_prefix": False,
        f"{K}remove_extra_whitespaces": False,
    }


def _byte_pairs(table: Mapping[str, Any]) -> dict[str, Any]:
    from folio.tokenizers.bpe.standard_json import from_standard

    if table["normalizer"]:
        raise UserError(
            f"This vocabulary normalizes text ({table['normalizer']['type']}), which llama.cpp "
            f"does not do. Give --to hf."
        )
    pattern = from_standard(table).pattern
    names = {token_id: name for name, token_id in table["model"]["vocab"].items()}
    added = {token["id"]: token for token in table["added_tokens"]}
    tokens, kinds = [], []
    for token_id in range(1 + max([*names, *added])):
        if token_id in added:
            token = added[token_id]
            tokens.append(token["content"])
            kinds.append(CONTROL if token["special"] else USER_DEFINED)
        else:
            tokens.append(names.get(token_id, f"<unused{token_id}>"))
            kinds.append(NORMAL if token_id in names else UNUSED)
    return {
        f"{K}model": "gpt2",
        f"{K}pre": PRE[pattern],
        f"{K}tokens": tokens,
        f"{K}token_type": kinds,
        f"{K}merges": [" ".join(merge) for merge in table["model"]["merges"]],
    }


# ---- reading -----------------------------------------------------------------------------


def read_vocabulary(settings: Mapping[str, Any], source: str) -> Tokenizer:
    """Make the tokenizer that a file says, with the template for conversations where it is ours.

    Raises:
        UserError: of another kind, or damaged.
    """
    tokenizer = _read_vocabulary(settings, source)
    knows = tokenizer.special_tokens.keys() >= set(CHAT_TOKENS)
    is_ours = knows and settings.get(TEMPLATE) == jinja_template(tokenizer)
    return tokenizer.with_chat() if is_ours else tokenizer


def _read_vocabulary(settings: Mapping[str, Any], source: str) -> Tokenizer:
    model, tokens = settings.get(f"{K}model"), _list(settings, "tokens")
    kinds = _list(settings, "token_type") or [NORMAL] * len(tokens)
    if len(kinds) != len(tokens) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{source} has no list of tokens with a type for each.")
    if model == "t5":
        n = next((i for i, token in enumerate(tokens) if len(token) != 1), len(tokens))
        characters = "".join(" " if c == SPACE else c for c in tokens[:n])
        special = tokens[n:]
        are_names = len(set(special)) == len(special) and all(len(name) > 1 for name in special)
        if special[:2] == [UNKNOWN, END_OF_DOCUMENT] and are_names:
            return CharacterTokenizer(characters, added=special[2:])
    if model != "gpt2":
        raise UserError(
            f"{source} has a vocabulary of the kind {model!r} (SentencePiece and its like), which "
            f"Folio does not run. Take a model with byte-level BPE."
        )
    said = settings.get(f"{K}pre")
    pattern = next((ours for ours, theirs in PRE.items() if theirs == said), None)
    if pattern is None:
        raise UserError(f"{source} splits text as {said!r}; Folio knows {', '.join(PRE.values())}.")
    return TYPES["BPE"](_standard(settings, tokens, kinds, pattern), source)


def _standard(
    settings: Mapping[str, Any], tokens: list[str], kinds: list[int], pattern: str
) -> dict[str, Any]:
    """Say the vocabulary as a tokenizer.json does."""
    from folio.tokenizers.bpe.standard_json import splitter

    added = [
        {"content": name, "id": i, "special": kind == CONTROL}
        for i, (name, kind) in enumerate(zip(tokens, kinds))
        if kind in (CONTROL, USER_DEFINED)
    ]
    special = {token["content"] for token in added if token["special"]}
    left_out = (CONTROL, USER_DEFINED, UNUSED)
    roles = {"end": _name(settings, "eos_token_id", tokens)}
    for number, key in enumerate(OTHER_ENDS, 2):
        name = _name(settings, key, tokens)
        if name not in (None, END, *roles.values()):  # of a turn in our own template
            roles[f"{OTHER_END}{number}"] = name
    if settings.get(f"{K}add_bos_token", pattern == "llama3"):  # llama.cpp's own default there
        roles["begin"] = _name(settings, "bos_token_id", tokens)
    model = {
        "type": "BPE",
        "vocab": {name: i for i, name in enumerate(tokens) if kinds[i] not in left_out},
        "merges": settings.get(f"{K}merges") or [],
        "ignore_merges": pattern == "llama3",  # as llama.cpp does there
        "roles": {role: name for role, name in roles.items() if name in special},
    }
    return {"added_tokens": added, "pre_tokenizer": splitter(pattern), "model": model}


def _list(settings: Mapping[str, Any], key: str) -> list[Any]:
    found = settings.get(K + key)
    return found if isinstance(found, list) else []


def _name(settings: Mapping[str, Any], key: str, tokens: list[str]) -> str | None:
    token_id = settings.get(K + key)
    if type(token_id) is not int or not 0 <= token_id < len(tokens):
        return None
    return tokens[token_id]
