"""Documents as the model reads them, with the special tokens between and inside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np

from folio.corpus.turns import Conversation
from folio.tokenizers.base import END, TokenIds, Tokenizer
from folio.tokenizers.chat import encode_turns

Sequence = Literal["none", "document", "line", "sentence"]

# Up to . ! ? with quotes, brackets and whitespace after it, or their full-width forms, or the end.
_SENTENCE = re.compile(r".+?(?:[.!?…][\"'”’)\]]*\s+|[。！？]+[”’」』）]*\s*|\Z)", re.DOTALL)
_BATCH = 4096


def sequences(text: str, per: Sequence) -> list[str]:
    """The lines or sentences of a text, each with the whitespace after it; joined they give the
    text.

    >>> sequences("One. Two?  Three", "sentence")
    ['One. ', 'Two?  ', 'Three']
    >>> sequences("One. Two?\\nThree", "line")
    ['One. Two?\\n', 'Three']
    """
    if per == "line":
        return text.splitlines(keepends=True)
    if per == "sentence":
        return _SENTENCE.findall(text)
    return [text]


def stream_sequences(pieces: Iterable[str], per: Sequence) -> Iterator[str]:
    """The same for a text that is given in pieces.

    >>> list(stream_sequences(["One. T", "wo? ", " Three"], "sentence"))
    ['One. ', 'Two?  ', 'Three']
    """
    waiting = ""
    for piece in pieces:
        *whole, waiting = sequences(waiting + piece, per) or [""]
        yield from whole
    if waiting:
        yield waiting


def encode_documents(
    tokenizer: Tokenizer,
    documents: Iterable[Iterable[str] | Conversation],
    per: Sequence = "none",
) -> Iterator[TokenIds]:
    """Encode documents, with an end-of-document token between them.

    Args:
        tokenizer: if it has no end-of-document token, nothing is put between documents.
        documents: the pieces of each, or its turns if it is a conversation.
        per: what gets `<bos>` before and `<eos>` after it; a conversation has tokens of its own.

    Raises:
        UserError: the vocabulary lacks `<bos>` or `<eos>`, or CHAT_TOKENS, and they are needed.
    """
    between = tokenizer.end_of_document
    for number, pieces in enumerate(documents):
        if number and between is not None:
            yield np.array([between], tokenizer.dtype)
        if isinstance(pieces, Conversation):
            yield encode_turns(tokenizer, pieces)
        else:
            yield from encode_document(tokenizer, pieces, per)


def encode_each(tokenizer: Tokenizer, texts: list[str], per: Sequence = "none") -> list[TokenIds]:
    """Encode whole documents, faster than one by one; as `encode_documents` does, but apart."""
    if per == "none":
        return tokenizer.encode_batch(texts)
    return [np.concatenate(list(encode_document(tokenizer, [text], per))) for text in texts]


def encode_document(
    tokenizer: Tokenizer, pieces: Iterable[str], per: Sequence
) -> Iterator[TokenIds]:
    """Encode one document that comes in pieces; arguments as in `encode_documents`."""
    if per == "none":
        yield from tokenizer.encode_stream(pieces)
        return
    names = (tokenizer.begin_name, END)
    begin, end = (np.array([tokenizer.special_id(name)], tokenizer.dtype) for name in names)
    if per == "document":
        yield begin
        yield from tokenizer.encode_stream(pieces)
        yield end
        return
    texts = stream_sequences(pieces, per)
    while batch := list(islice(texts, _BATCH)):
        parts = [part for ids in tokenizer.encode_batch(batch) for part in (begin, ids, end)]
        yield np.concatenate(parts)
