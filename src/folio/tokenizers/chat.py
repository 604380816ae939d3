"""Conversations as token ids: one token marks who speaks, another the end of each turn.

    <|user|>Why?<|end|><|assistant|>Rain.<|end|>

What is said is plain text. Other programs look for special tokens in the whole conversation, so the
name of one inside a message gets a space: `<|end| >`. Thus they give the same ids as Folio,
whatever is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from folio.corpus.turns import Turn
from folio.errors import UserError
from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer

USER, ASSISTANT, END = CHAT_TOKENS


def harmless(text: str, tokenizer: Tokenizer) -> str:
    """Break names of special tokens in a text: each gets a space before its last character.

    >>> from folio.tokenizers.character import CharacterTokenizer
    >>> harmless("<|end|>", CharacterTokenizer("a").with_chat())
    '<|end| >'
    """
    for name in _names(tokenizer):
        text = text.replace(name, _harmless_name(name))
    return text


def _names(tokenizer: Tokenizer) -> list[str]:
    """Names of all special tokens in the order of their ids, so that one vocabulary has one
    template.
    """
    return sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)


def _harmless_name(name: str) -> str:
    return f"{name[:-1]} {name[-1]}"


def encode_turns(
    tokenizer: Tokenizer,
    turns: Iterable[Turn],
    encode: Callable[[Sequence[str]], Sequence[TokenIds]] | None = None,
) -> TokenIds:
    """Encode a conversation.

    Args:
        tokenizer: a vocabulary with CHAT_TOKENS.
        turns: who says what.
        encode: maps texts to ids; by default the tokenizer's `encode_batch`.

    Raises:
        UserError: the vocabulary lacks CHAT_TOKENS.
    """
    user, assistant, end = (
        np.array([tokenizer.special_id(name)], tokenizer.dtype) for name in CHAT_TOKENS
    )
    turns = list(turns)
    encode = encode or tokenizer.encode_batch
    texts = encode([harmless(turn.text, tokenizer) for turn in turns])
    parts = [np.zeros(0, tokenizer.dtype)]
    for turn, ids in zip(turns, texts):
        parts += [assistant if turn.role == "assistant" else user, ids, end]
    return np.concatenate(parts)


def prompt_ids(tokenizer: Tokenizer, turns: Sequence[Turn]) -> TokenIds:
    """Encode a conversation that the assistant is to continue.

    Raises:
        UserError: the vocabulary lacks something of what is said.
    """
    ids = encode_turns(tokenizer, turns, lambda texts: [*map(tokenizer.encode_prompt, texts)])
    return np.append(ids, np.array([tokenizer.special_id(ASSISTANT)], tokenizer.dtype))


def jinja_template(tokenizer: Tokenizer) -> str:
    """The Jinja `chat_template` from which other programs make the same ids."""
    said = "message['content']"
    for name in _names(tokenizer):
        said += f" | replace({_quoted(name)}, {_quoted(_harmless_name(name))})"
    is_first = "loop.first or messages[loop.index0 - 1]['role'] == 'assistant'"
    is_last = "loop.last or messages[loop.index0 + 1]['role'] == 'assistant'"
    return (
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{{{- {_quoted(ASSISTANT)} + ({said}) + {_quoted(END)} -}}}}"
        "{%- else -%}"
        f"{{%- if {is_first} -%}}{{{{- {_quoted(USER)} -}}}}"
        "{%- else -%}{{- '\\n\\n' -}}{%- endif -%}"
        f"{{{{- {said} -}}}}"
        f"{{%- if {is_last} -%}}{{{{- {_quoted(END)} -}}}}{{%- endif -%}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {_quoted(ASSISTANT)} -}}}}{{%- endif -%}}"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def require_chat(tokenizer: Tokenizer, of: str) -> None:
    """Refuse a vocabulary without the chat template.

    Args:
        tokenizer: the vocabulary.
        of: the run, as a command names it.

    Raises:
        UserError: it has no template.
    """
    if not tokenizer.has_chat:
        raise UserError(
            f"The run {of} has no template for conversations (its tokenizer.json says none). "
            f"Teach it: folio train CHATS.jsonl --from {of}, with messages or prompt and "
            f"completion in each line."
        )
