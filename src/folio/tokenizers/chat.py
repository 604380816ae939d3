"""A conversation in token ids: who speaks is a token, and so is the end of what is said.

    <|user|>Why?<|end|><|assistant|>Rain.<|end|>

What is said is text and nothing else. Other programs look for special tokens in the whole of a
conversation, so a name of one that somebody writes gets a blank: `<|end| >`. Thus they give the ids
that Folio gives, whatever is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from folio.corpus.turns import Turn
from folio.errors import UserError
from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer

USER, ASSISTANT, END = CHAT_TOKENS


def harmless(text: str, tokenizer: Tokenizer) -> str:
    """A text without names of special tokens: each gets a blank before its last character.

    >>> from folio.tokenizers.character import CharacterTokenizer
    >>> harmless("<|end|>", CharacterTokenizer("a").with_chat())
    '<|end| >'
    """
    for name in _names(tokenizer):
        text = text.replace(name, _harmless_name(name))
    return text


def _names(tokenizer: Tokenizer) -> list[str]:
    """Of all special tokens, by their ids, so that one vocabulary has one template."""
    return sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)


def _harmless_name(name: str) -> str:
    return f"{name[:-1]} {name[-1]}"


def encode_turns(
    tokenizer: Tokenizer,
    turns: Iterable[Turn],
    encode: Callable[[Sequence[str]], Sequence[TokenIds]] | None = None,
) -> TokenIds:
    """The ids of a conversation.

    Args:
        tokenizer: with the tokens of conversations.
        turns: who says what.
        encode: texts to ids, where it is not to be the tokenizer's `encode_batch`.

    Raises:
        UserError: the vocabulary has no such tokens.
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
    """The ids of a conversation that the assistant is to go on with.

    Raises:
        UserError: something that is said has what the vocabulary lacks.
    """
    ids = encode_turns(tokenizer, turns, lambda texts: [*map(tokenizer.encode_prompt, texts)])
    return np.append(ids, np.array([tokenizer.special_id(ASSISTANT)], tokenizer.dtype))


def jinja_template(tokenizer: Tokenizer) -> str:
    """What programs that read `chat_template` make the same ids by."""
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
    """Refuse a vocabulary that nobody taught conversations.

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
