"""One token for each frequent word; everything else is `<unk>`.

The oldest and simplest vocabulary: easy to inspect, but it loses the spaces and every rare word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from folio.console import percent
from folio.errors import UserError
from folio.tokenizers.base import (
    CHAT_TOKENS,
    END_OF_DOCUMENT,
    UNKNOWN,
    TokenIds,
    Tokenizer,
    added_tokens,
    chat_tokens_lacking,
    said_template,
    template_entry,
    unknown_message,
)
from folio.tokenizers.bpe.patterns import with_our_classes

Punctuation = Literal["separate", "drop", "keep"]

_WORD = r"[^\s\p{P}\p{S}]+(?:['’][^\s\p{P}\p{S}]+)*"
EXPRESSIONS: dict[str, str] = {
    "separate": rf"{_WORD}|[\p{{P}}\p{{S}}]",
    "drop": _WORD,
    "keep": r"[^\s]+",
}
"""What counts as a word. separate: each punctuation mark does, too; drop: marks vanish; keep: they
stay with the word. An apostrophe inside a word belongs to it."""


class WordTokenizer(Tokenizer):
    """Words by falling frequency, then `<unk>` and `<|endoftext|>`.

    >>> tokenizer = WordTokenizer.train(["the cat, the dog"], vocab_size=5)
    >>> tokenizer.words
    ['the', ',', 'cat']
    >>> tokenizer.decode(tokenizer.encode("the dog, the cat"))
    'the <unk> , the cat'
    """

    kind = "word"
    lossless = False
    separator = b" "  # the text's own spaces are lost

    def __init__(
        self,
        words: list[str],
        *,
        punctuation: Punctuation = "separate",
        lowercase: bool = False,
        added: Sequence[str] = (),
        has_chat: bool = False,
    ) -> None:
        """
        Args:
            words: the vocabulary without repetitions; the index of a word is its id.
            punctuation: see `EXPRESSIONS`.
            lowercase: whether "The" is "the".
            added: further special tokens, which get the last ids.
            has_chat: whether its tokenizer.json declares the chat template.
        """
        if punctuation not in EXPRESSIONS:
            raise UserError(
                f"Unknown treatment of punctuation {punctuation!r}. "
                f"Choose one of {', '.join(EXPRESSIONS)}."
            )
        self.words = words
        self.punctuation: Punctuation = punctuation
        self.lowercase = lowercase
        self.has_chat = has_chat
        names = (UNKNOWN, END_OF_DOCUMENT, *added)
        self.special_tokens = {name: len(words) + i for i, name in enumerate(names)}
        self.pieces = [
            word.encode("utf-8", "surrogatepass") for word in (*words, *self.special_tokens)
        ]
        self._id_of = {word: token_id for token_id, word in enumerate(words)}
        if len(self._id_of) != len(words):
            raise UserError("The vocabulary of a word tokenizer holds a word twice.")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        min_count: int = 1,
        punctuation: Punctuation = "separate",
        lowercase: bool = False,
    ) -> WordTokenizer:
        """Take the most frequent words; ties are broken alphabetically.

        Args:
            texts: documents, or pieces cut between words (`whole_words`).
            vocab_size: largest number of ids, including the two special tokens.
            min_count: words that occur less often are left out.
            punctuation: see `EXPRESSIONS`.
            lowercase: whether "The" is "the".

        Raises:
            UserError: no room for a word beside the special tokens.
        """
        if vocab_size < 3:
            raise UserError(
                f"vocab_size must be at least 3, two special tokens and a word, got {vocab_size}."
            )
        empty = cls([], punctuation=punctuation, lowercase=lowercase)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(empty.split(text))
        # The name of a special token in the text is not a word; conversations may come later.
        names = {*empty.special_tokens, *CHAT_TOKENS}
        words = [word for word in counts if counts[word] >= min_count and word not in names]
        words.sort(key=lambda word: (-counts[word], word))
        del words[vocab_size - 2 :]
        tokenizer = cls(words, punctuation=punctuation, lowercase=lowercase)
        n_words = counts.total()
        share = (n_words - sum(counts[word] for word in words)) / max(1, n_words)
        tokenizer.note = f"{percent(share, 2)} of the words of the training text are {UNKNOWN}."
        return tokenizer

    def with_chat(self) -> WordTokenizer:
        added = [*self.special_tokens][2:]
        if text := [name for name in chat_tokens_lacking(added) if name in self.words]:
            raise UserError(
                f"In this vocabulary {text[0]} is a word, so no conversation can be written with "
                f"it. Train another one, or take --corpus.conversations text."
            )
        added += chat_tokens_lacking(added)
        kept: Any = {"punctuation": self.punctuation, "lowercase": self.lowercase}
        return WordTokenizer(self.words, added=added, has_chat=True, **kept)

    def normalize(self, text: str) -> str:
        return _lower(text) if self.lowercase else text

    def split(self, text: str) -> list[str]:
        """The words of a text, known and unknown."""
        return with_our_classes(EXPRESSIONS[self.punctuation]).findall(self.normalize(text))

    def encode_ordinary(self, text: str) -> TokenIds:
        unknown = self.special_tokens[UNKNOWN]
        return np.array([self._id_of.get(word, unknown) for word in self.split(text)], self.dtype)

    def describe_unknown(self, text: str) -> str:
        strange = dict.fromkeys(word for word in self.split(text) if word not in self._id_of)
        return unknown_message([repr(word[:40]) for word in strange])

    def encode_stream(self, texts: Iterable[str]) -> Iterator[TokenIds]:
        return map(self.encode_ordinary, whole_words(texts, self.punctuation))

    def to_json(self) -> dict[str, Any]:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added_tokens(self.special_tokens),
            "normalizer": {"type": "Lowercase"} if self.lowercase else None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": EXPRESSIONS[self.punctuation]},
                "behavior": "Removed",
                "invert": True,
            },
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": self._id_of | {UNKNOWN: self.special_tokens[UNKNOWN]},
                "unk_token": UNKNOWN,
                **template_entry(self.has_chat),
            },
        }

    @classmethod
    def from_json(
        cls, table: Mapping[str, Any], source: str = "The tokenizer.json"
    ) -> WordTokenizer:
        """Invert `to_json`."""
        try:
            expression = table["pre_tokenizer"]["pattern"]["Regex"]
            punctuation: Any = {value: key for key, value in EXPRESSIONS.items()}[expression]
            vocabulary = sorted(table["model"]["vocab"].items(), key=lambda item: item[1])
            words = [word for word, _ in vocabulary if word != UNKNOWN]
            lowercase = bool(table.get("normalizer"))
            tokenizer = cls(
                words,
                punctuation=punctuation,
                lowercase=lowercase,
                added=[token["content"] for token in table["added_tokens"]][2:],
                has_chat=said_template(table["model"], source),
            )
            if tokenizer.to_json()["model"] != table["model"]:
                raise ValueError("its ids are not 0, 1, 2 ...")
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{source} is damaged, or not a word tokenizer of Folio "
                f"({type(error).__name__}: {error}). Train it again."
            ) from error
        return tokenizer


def whole_words(parts: Iterable[str], punctuation: Punctuation) -> Iterator[str]:
    """Regroup the parts of a text into pieces that end between words; memory holds a part and the
    word that it begins.

    >>> list(whole_words(["I do", "n't kn", "ow. W", "hy?"], "separate"))
    ['I ', "don't ", 'know. ', 'Why?']
    """
    # After such a character no word goes on.
    between = with_our_classes(r"\s" if punctuation == "keep" else r"(?!['’])[\s\p{P}\p{S}]")
    waiting: list[str] = []
    for part in parts:
        last = between.search(part[::-1])
        end = len(part) - last.start() if last else 0
        if end:
            yield "".join([*waiting, part[:end]])
            waiting = []
        waiting.append(part[end:])
    if rest := "".join(waiting):
        yield rest


def _lower(text: str) -> str:
    # Only Python lower-cases a capital sigma at the end of a word differently.
    return text.lower() if "Σ" not in text else "".join(map(str.lower, text))
