"""The interface of every tokenizer, and what they all share.

Ids 0 ... vocab_size - 1 each represent some UTF-8 bytes. Special tokens represent none: they are
never found in text unless the caller allows it.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folio.errors import UserError
from folio.storage import atomic_write

TokenIds = NDArray[np.unsignedinteger]
"""(n,) token ids, in the smallest unsigned type that holds the vocabulary."""

MOST_IDS = 1 << 24
"""Of a vocabulary; the largest that are known have a few hundred thousand."""
END_OF_DOCUMENT = "<|endoftext|>"
UNKNOWN = "<unk>"
BEGIN, END = "<bos>", "<eos>"
OTHER_END = "end_"
"""Before a number: the role of a special token that ends a text, beside the one called `end`."""
CHAT_TOKENS = ("<|user|>", "<|assistant|>", "<|end|>")
"""Mark who speaks, and the end of each turn; see chat.py."""
CHAT_KEY = "conversations"
CHAT_TEMPLATE = {
    "user": "<|user|>TEXT<|end|>",
    "assistant": "<|assistant|>TEXT<|end|>",
}
"""The chat template that a model was trained with, stored in `model` of its tokenizer.json under
CHAT_KEY: the standard has no place for it, and the `tokenizers` library ignores it."""


def added_tokens(
    special_tokens: dict[str, int],
    found_in_text: Mapping[str, int] | None = None,
    normalized: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The `added_tokens` of a standard tokenizer.json: special tokens, and tokens that match their
    own name in text, some of them in the normalized text, in the order of their ids.
    """
    everything = special_tokens | dict(found_in_text or {})
    return [
        {
            "id": token_id,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": name in normalized,
            "special": name in special_tokens,
        }
        for name, token_id in sorted(everything.items(), key=lambda item: item[1])
    ]


def template_entry(has_chat: bool) -> dict[str, Any]:
    """The entry of a tokenizer.json that declares the chat template; empty without one."""
    return {CHAT_KEY: CHAT_TEMPLATE} if has_chat else {}


def chat_tokens_lacking(names: Collection[str]) -> list[str]:
    """The CHAT_TOKENS that are missing among these names, in order."""
    return [name for name in CHAT_TOKENS if name not in names]


def said_template(model: Mapping[str, Any], source: str) -> bool:
    """Whether the model of a tokenizer.json declares our chat template.

    Raises:
        UserError: it declares another one.
    """
    if CHAT_KEY in model and model[CHAT_KEY] != CHAT_TEMPLATE:
        raise UserError(
            f"{source} has a template for conversations that this version does not know: "
            f"{str(model[CHAT_KEY])[:80]}. Update Folio, or take {CHAT_KEY} out of the file."
        )
    return CHAT_KEY in model


def unknown_message(names: Sequence[str]) -> str:
    """The error for a prompt with characters or words of these names, of which five are told."""
    return (
        f"The vocabulary lacks {', '.join(names[:5])}{', ...' if names[5:] else ''}, so "
        f"the model cannot read it. Leave it out of the prompt."
    )


class Tokenizer(ABC):
    """Converts text to token ids and back."""

    kind: str
    """The value of tokenizer.kind in a recipe."""
    lossless: bool
    """Whether decode(encode(text)) equals any text in which no token is unknown."""

    separator: bytes = b""
    """What decoding puts between two tokens."""

    note: str = ""
    """What the user should know about the training of the vocabulary; usually empty."""

    begin_name: str = BEGIN
    """Name of the special token that begins a document, if the vocabulary has one."""
    end_name: str = END_OF_DOCUMENT
    """Name of the special token between documents."""
    other_end_names: Sequence[str] = ()
    """Special tokens that end a text, too; models from elsewhere may have learned several."""

    has_chat: bool = False
    """Whether its tokenizer.json declares the chat template."""

    special_tokens: dict[str, int]
    """Names and ids of the tokens that represent no text."""

    pieces: Sequence[bytes]
    """The UTF-8 bytes of each id; for a special token, its name."""

    @abstractmethod
    def encode_ordinary(self, text: str) -> TokenIds:
        """Token ids of a text; whatever looks like a special token is plain text."""

    def normalize(self, text: str) -> str:
        """Return the text that is cut into tokens, where it is another one than that given."""
        return text

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return a standard tokenizer.json, which the `tokenizers` library can load."""

    def behaviour(self) -> dict[str, Any]:
        """Return the part of `to_json` that decides the ids; the chat template is not in it."""
        table = self.to_json()
        if self.has_chat:
            model = {key: value for key, value in table["model"].items() if key != CHAT_KEY}
            table |= {"model": model}
        return table

    def with_chat(self) -> Tokenizer:
        """Return this tokenizer with the chat template, and missing CHAT_TOKENS as its last ids.

        Raises:
            UserError: this kind of vocabulary cannot have them.
        """
        raise UserError(
            f"A tokenizer of kind {self.kind} has no tokens for conversations. Take kind character "
            f"or bpe, or --corpus.conversations text."
        )

    # ---- shared by all ---------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special tokens."""
        return len(self.pieces)

    @cached_property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every id."""
        return np.min_scalar_type(self.vocab_size - 1)

    @property
    def begin(self) -> int | None:
        """The id that begins a document."""
        return self.special_tokens.get(self.begin_name)

    @property
    def end_of_document(self) -> int | None:
        """The id of the token between documents."""
        return self.special_tokens.get(self.end_name)

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a text."""
        names = (self.end_name, *self.other_end_names)
        return tuple(self.special_tokens[name] for name in names if name in self.special_tokens)

    @property
    def unknown(self) -> int | None:
        """The id of everything that the vocabulary lacks; None if it lacks nothing."""
        return self.special_tokens.get(UNKNOWN)

    def special_id(self, name: str) -> int:
        """The id of a special token.

        Raises:
            UserError: the vocabulary does not have it.
        """
        if name not in self.special_tokens:
            raise UserError(
                f"This vocabulary has no special token {name}; it has "
                f"{', '.join(self.special_tokens) or 'none'}."
            )
        return self.special_tokens[name]

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> TokenIds:
        """Token ids of a text.

        Args:
            text: any text.
            allowed_special: names of special tokens to recognize in the text, the longest match
                first; all others are plain text.

        Raises:
            UserError: the vocabulary does not have one of these.
        """
        if not allowed_special:
            return self.encode_ordinary(text)
        ids = {name: self.special_id(name) for name in allowed_special}
        return self._encode_around(text, ids, self.encode_ordinary)

    def _encode_around(
        self, text: str, ids: Mapping[str, int], encode: Callable[[str], TokenIds]
    ) -> TokenIds:
        """Encode a text in which some names represent one id each; the longest match wins."""
        names = sorted(ids, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
        encoded = [
            np.array([ids[part]], self.dtype) if number % 2 else encode(part)
            for number, part in enumerate(parts)
        ]
        return np.concatenate(encoded)

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text."""
        return [self.encode_ordinary(text) for text in texts]

    def encode_stream(self, texts: Iterable[str]) -> Iterator[TokenIds]:
        """Token ids of a text that is given in pieces, as if it were whole."""
        return map(self.encode_ordinary, texts)

    def lost_bytes(self, texts: Iterable[str]) -> tuple[int, int]:
        """How many bytes of some texts have no id and are silently dropped, and the total number of
        bytes. Bytes that become the unknown token do not count.
        """
        return 0, 0

    def unknown_share(self, documents: Iterable[Iterable[str]]) -> float:
        """Share of unknown tokens in some texts, each given in pieces; 0 to 1."""
        n_tokens = n_unknown = 0
        for pieces in documents:
            for token_ids in self.encode_stream(pieces):
                n_tokens += len(token_ids)
                n_unknown += 0 if self.unknown is None else int((token_ids == self.unknown).sum())
        return n_unknown / max(1, n_tokens)

    def encode_prompt(self, text: str) -> TokenIds:
        """Token ids of a text that the vocabulary must cover completely.

        Raises:
            UserError: the text has something that the vocabulary lacks.
        """
        token_ids = self.encode(text)
        if self.unknown is not None and (token_ids == self.unknown).any():
            raise UserError(self.describe_unknown(text))
        return token_ids

    def describe_unknown(self, text: str) -> str:
        """Describe what the vocabulary lacks of this text."""
        return f"The prompt {text[:40]!r} has what the training text does not have. Leave it out."

    def decode(self, token_ids: ArrayLike, skip_special: bool = False) -> str:
        """Text of some token ids; invalid UTF-8 becomes U+FFFD.

        Raises:
            UserError: an id outside the vocabulary.
        """
        return self.decode_bytes(token_ids, skip_special).decode("utf-8", errors="replace")

    def decode_bytes(self, token_ids: ArrayLike, skip_special: bool = False) -> bytes:
        """UTF-8 bytes of some token ids, which may begin or end inside a character."""
        ids = np.atleast_1d(np.asarray(token_ids)).tolist()
        skipped = set(self.special_tokens.values()) if skip_special else ()
        pieces = self.pieces
        for token_id in ids:
            if not 0 <= token_id < len(pieces):
                raise UserError(
                    f"Token id {token_id} does not exist: this vocabulary has the ids "
                    f"0 to {len(pieces) - 1}."
                )
        return self.separator.join([pieces[i] for i in ids if i not in skipped])

    def decode_stream(self, token_ids: Iterable[ArrayLike], prompt: str = "") -> Iterator[str]:
        """Decode tokens as they arrive, after a prompt.

        Special tokens are left out; an incomplete character waits for its remaining bytes.

        Args:
            token_ids: some ids at a time.
            prompt: yielded first, unchanged.
        """
        decoder = TextDecoder(self, prompt)
        yield prompt
        yield from map(decoder.take, token_ids)
        yield decoder.end()

    @cached_property
    def bytes_per_token(self) -> NDArray[np.int64]:
        """(vocab_size,) number of UTF-8 bytes of each id; 0 for special tokens."""
        return self._measure(len)

    @cached_property
    def characters_per_token(self) -> NDArray[np.int64]:
        """(vocab_size,) number of characters that begin in each id; 0 for special tokens."""
        # In UTF-8 each character has one byte that is not of the form 10xxxxxx.
        return self._measure(lambda piece: sum(byte & 0xC0 != 0x80 for byte in piece))

    def _measure(self, measure: Any) -> NDArray[np.int64]:
        lengths = np.array([measure(piece) for piece in self.pieces], dtype=np.int64)
        lengths[list(self.special_tokens.values())] = 0
        return lengths

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the tokenizer; equal for equal ids and behaviour."""
        canonical = json.dumps(self.behaviour(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def save(self, path: Path) -> None:
        """Write a standard tokenizer.json, atomically."""
        # One entry per line by means of the separator: indent is ten times as slow in Python 3.11.
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",\n", ": "))
        with atomic_write(path) as file:
            file.write(text + "\n")


class TextDecoder:
    """Decodes tokens as they arrive: special ones are left out, and an incomplete character waits
    for its remaining bytes.
    """

    def __init__(self, tokenizer: Tokenizer, behind: str = "") -> None:
        """Begin a text.

        Args:
            tokenizer: the tokenizer of the ids that will come.
            behind: the text that they continue; empty if they begin one.
        """
        self.tokenizer = tokenizer
        self._between = tokenizer.separator if behind else b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, token_ids: ArrayLike) -> str:
        """Return the text that these tokens complete."""
        piece = self.tokenizer.decode_bytes(token_ids, skip_special=True)
        if not piece:
            return ""
        between, self._between = self._between, self.tokenizer.separator
        return self._decoder.decode(between + piece)

    def end(self) -> str:
        """Return what is still incomplete; tokens that come after this begin a text anew."""
        self._between = b""
        return self._decoder.decode(b"", final=True)


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """The name of a token: its text, or its bytes in OpenAI's notation if they are not text.

    >>> from folio.tokenizers.bpe.tokenizer import BPETokenizer
    >>> token_text(BPETokenizer.from_merges([]), 0xE2)
    'bytes:\\\\xe2'
    """
    piece = tokenizer.pieces[token_id]
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
