"""Byte-level byte-pair encoding as a tokenizer, for any text and any bytes."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from folio import jit
from folio.console import amount
from folio.errors import UserError
from folio.tokenizers.base import (
    BEGIN,
    END,
    END_OF_DOCUMENT,
    MOST_IDS,
    OTHER_END,
    TokenIds,
    Tokenizer,
    chat_tokens_lacking,
)
from folio.tokenizers.bpe import reference
from folio.tokenizers.bpe.patterns import PATTERNS, check_pattern, safe_pieces, split_slowly
from folio.tokenizers.bpe.rules import Rules, encode_slowly
from folio.tokenizers.bpe.standard_json import Contents, from_standard, to_standard

if TYPE_CHECKING:
    import tiktoken

    from folio.tokenizers.bpe.encode import Encoder

SPECIAL_TOKENS = (END_OF_DOCUMENT, BEGIN, END)

SHORT = 1000
"""Characters, below which a prompt is encoded without kernels."""


IN_UTF8 = [value for value in range(0xF5) if value not in (0xC0, 0xC1)]
"""The bytes that UTF-8 has (RFC 3629); some vocabularies lack the others."""


class Merge(NamedTuple):
    """A pair of ids, the id it is merged into, and how often it occurred in the training text when
    it was merged, if known.
    """

    left: int
    right: int
    token: int
    occurrences: int | None


class BPETokenizer(Tokenizer):
    """Bytes 0 to 255, then one id for each merge, then the special tokens.

    Loaded from elsewhere, the ids are those of the file.

    >>> tokenizer = BPETokenizer.train(["hug pug hug bug"], vocab_size=261)
    >>> tokenizer.encode("hugs").tolist()
    [257, 115]
    >>> tokenizer.decode([257, 115])
    'hugs'
    >>> [tokenizer.pieces[token_id] for token_id in (256, 257)]
    [b'ug', b'hug']
    """

    kind = "bpe"
    lossless = True

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.special_tokens = contents.special_tokens
        self.pieces = contents.pieces
        self.pattern = contents.pattern
        lacks = (contents.rules.byte_ids < 0)[IN_UTF8].any()
        self.lossless = contents.normalization is None and not lacks
        self.has_chat = contents.has_chat
        self.begin_name = contents.roles.get("begin", BEGIN)
        self.end_name = contents.roles.get("end", END_OF_DOCUMENT)
        self.other_end_names = [
            name for role, name in contents.roles.items() if role.startswith(OTHER_END)
        ]

    # ---- construction --------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ) -> BPETokenizer:
        """Learn a vocabulary from the training part of a corpus.

        Args:
            texts: documents, or safe pieces of them (`patterns.safe_pieces`).
            vocab_size: number of ids: 256 bytes, merges and special tokens. It becomes smaller if
                the text runs out of pairs to merge; then `note` says so.
            pattern: how text is split before merging: a name in `patterns.PATTERNS`.
            special_tokens: their names; they get the last ids.

        Raises:
            UserError: fewer ids than bytes and special tokens, or an unknown pattern.
        """
        check_pattern(pattern)
        if vocab_size > MOST_IDS:
            raise UserError(f"vocab_size must be at most {MOST_IDS:,}, got {vocab_size:,}.")
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise UserError(
                f"vocab_size must be at least {vocab_size - n_merges}, the 256 bytes and "
                f"{amount(len(special_tokens), 'special token')}, got {vocab_size}."
            )
        merges, counts = _learn_merges(texts, pattern, n_merges)
        tokenizer = cls.from_merges(
            merges, pattern=pattern, special_tokens=special_tokens, counts=counts
        )
        if len(merges) < n_merges:
            tokenizer.note = (
                f"The text has no more than {amount(len(merges), 'pair')} to merge, so the "
                f"vocabulary has {n_merges - len(merges):,} ids fewer than it may have."
            )
        return tokenizer

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[tuple[int, int]] | np.ndarray,
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        counts: list[int] | None = None,
    ) -> BPETokenizer:
        """Build a tokenizer with these merges; merge k makes the id 256 + k, and its pair occurred
        `counts[k]` times.
        """
        for name in special_tokens:
            if len(split_slowly(name, check_pattern(pattern))) < 2:
                raise UserError(
                    f"The special token {name!r} could be a word of the text. Put it in brackets, "
                    f"such as '<{name}>'."
                )
        rules = Rules.from_merges(merges)
        pieces = reference.token_bytes(rules.pairs.tolist())
        special = {name: len(pieces) + k for k, name in enumerate(special_tokens)}
        pieces += [name.encode("utf-8") for name in special]
        return cls(Contents(rules, pieces, pattern, special, None, counts))

    @classmethod
    def from_json(cls, table: dict[str, Any], source: str = "The tokenizer.json") -> BPETokenizer:
        """Invert `to_json`; also reads byte-level BPE of the `tokenizers` library."""
        return cls(from_standard(table, source))

    def with_chat(self) -> BPETokenizer:
        contents = self._contents
        lacking = chat_tokens_lacking(contents.special_tokens)
        if text := [name for name in lacking if name in contents.found_in_text]:
            raise UserError(
                f"In this vocabulary {text[0]} is text, so no conversation can be written with it. "
                f"Take another vocabulary, or --corpus.conversations text."
            )
        n = self.vocab_size
        added = {name: n + i for i, name in enumerate(lacking)}
        pieces = [*contents.pieces, *(name.encode("utf-8") for name in lacking)]
        special = contents.special_tokens | added
        return BPETokenizer(contents._replace(pieces=pieces, special_tokens=special, has_chat=True))

    # ---- what was learned ----------------------------------------------------------------

    @property
    def merges(self) -> list[Merge]:
        """The merges in the order in which they were learned."""
        rules, counts = self._contents.rules, self._contents.merge_counts
        pairs, new_ids = rules.pairs.tolist(), rules.new_ids.tolist()
        return [
            Merge(left, right, new_id, count)
            for (left, right), new_id, count in zip(pairs, new_ids, counts or [None] * len(pairs))
        ]

    # ---- text to ids ---------------------------------------------------------------------

    def encode_ordinary(self, text: str) -> TokenIds:
        return self._encode_ordinary(text, self._encode_chunks)

    def _encode_ordinary(self, text: str, encode: Callable[[str], TokenIds]) -> TokenIds:
        """Encode around names that stand for themselves: as `tokenizers` does, some are found in
        the text as it is, and the others in the normalized rest.
        """
        in_text, in_rest = self._names

        def encode_rest(rest: str) -> TokenIds:
            rest = self.normalize(rest)
            return self._encode_around(rest, in_rest, encode) if in_rest else encode(rest)

        return self._encode_around(text, in_text, encode_rest) if in_text else encode_rest(text)

    @cached_property
    def _names(self) -> tuple[dict[str, int], dict[str, int]]:
        names, normalized = self._contents.found_in_text, self._contents.normalized_names
        in_text = {name: i for name, i in names.items() if name not in normalized}
        return in_text, {self.normalize(name): names[name] for name in normalized}

    def encode_prompt(self, text: str) -> TokenIds:
        """Token ids of a text that the vocabulary must cover completely.

        Raises:
            UserError: the vocabulary lacks a byte of the text.
        """
        byte_ids = self._contents.rules.byte_ids
        present = set(self.normalize(text).encode("utf-8", "surrogatepass"))
        if lacking := [value for value in sorted(present) if byte_ids[value] < 0]:
            raise UserError(
                f"The vocabulary lacks the byte {lacking[0]:#04x}, which the text "
                f"{text[:40]!r} has. Leave it out."
            )
        # The kernels of the encoder would take longer to load than a short prompt takes without.
        is_short = len(text) < SHORT and "_encoder" not in vars(self)
        return self._encode_ordinary(text, self._encode_slowly if is_short else self._encode_chunks)

    def lost_bytes(self, texts: Iterable[str]) -> tuple[int, int]:
        lacking = self._contents.rules.byte_ids < 0
        if not lacking.any():
            return 0, 0
        counts = np.zeros(256, np.int64)
        for text in texts:
            data = self.normalize(text).encode("utf-8", "surrogatepass")
            counts += np.bincount(np.frombuffer(data, np.uint8), minlength=256)
        return int(counts[lacking].sum()), int(counts.sum())

    def _encode_chunks(self, text: str) -> TokenIds:
        if self._encoder is None:
            return self._encode_slowly(text)
        return self._encoder.encode(text).astype(self.dtype)

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, computed on two threads if there are enough."""
        if self._contents.found_in_text:
            return [self.encode_ordinary(text) for text in texts]
        texts = [self.normalize(text) for text in texts]
        if self._encoder is None:
            return [self._encode_slowly(text) for text in texts]
        return [ids.astype(self.dtype) for ids in self._encoder.encode_batch(texts)]

    def encode_stream(self, texts: Iterable[str]) -> Iterator[TokenIds]:
        """Token ids of a text that is given in pieces, as if it were whole; uses two threads."""
        if self._contents.found_in_text:  # a cut could split their names
            return iter([self.encode_ordinary("".join(texts))])
        if self._contents.normalization:
            texts = map(self.normalize, _cut_before_ascii(texts))
        pieces = safe_pieces(texts)
        if self._encoder is None:
            return map(self._encode_slowly, pieces)
        return (ids.astype(self.dtype) for ids in self._encoder.encode_stream(pieces))

    def normalize(self, text: str) -> str:
        form: Any = self._contents.normalization
        return unicodedata.normalize(form, text) if form else text

    @cached_property
    def _encoder(self) -> Encoder | None:
        if not jit.available():
            return None
        from folio.tokenizers.bpe.encode import Encoder

        return Encoder(self._contents.rules, self.pattern)

    def _encode_slowly(self, text: str) -> TokenIds:
        chunks = [
            chunk.encode("utf-8", "surrogatepass") for chunk in split_slowly(text, self.pattern)
        ]
        known = {chunk: encode_slowly(chunk, self._contents.rules) for chunk in set(chunks)}
        return np.array([token_id for chunk in chunks for token_id in known[chunk]], self.dtype)

    # ---- conversion ----------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return to_standard(self._contents)

    def behaviour(self) -> dict[str, Any]:
        return to_standard(self._contents._replace(merge_counts=None, has_chat=False))

    def to_tiktoken(self) -> tiktoken.Encoding:
        """Convert to a tiktoken encoding with the same ids.

        Raises:
            UserError: tiktoken has no such vocabulary.
        """
        import tiktoken

        new_ids = self._contents.rules.new_ids
        lacks = (self._contents.rules.byte_ids < 0).any() or (np.diff(new_ids) <= 0).any()
        if self._contents.normalization or self._contents.found_in_text or lacks:
            raise UserError(
                "tiktoken cannot run this vocabulary: it needs all bytes, ids in the order of the "
                "merges, no normalization, and no added tokens that stand for themselves in a text."
            )
        special = set(self.special_tokens.values())
        return tiktoken.Encoding(
            "folio",
            pat_str=PATTERNS[self.pattern],
            mergeable_ranks={
                piece: k for k, piece in enumerate(self.pieces) if k not in special and piece
            },
            special_tokens=self.special_tokens,
        )


def _cut_before_ascii(texts: Iterable[str]) -> Iterator[str]:
    """Regroup a text into pieces that can be normalized separately: no Unicode normalization form
    composes an ASCII character with what precedes it.
    """
    waiting = ""
    for text in texts:
        waiting += text
        cut = next((k for k in reversed(range(len(waiting))) if waiting[k].isascii()), 0)
        yield waiting[:cut]
        waiting = waiting[cut:]
    yield waiting


def _learn_merges(
    texts: Iterable[str], pattern: str, n_merges: int
) -> tuple[np.ndarray | list[tuple[int, int]], list[int] | None]:
    """Learn the merges, and how often the pair of each occurred."""
    if not jit.available():
        chunks = (chunk for text in texts for chunk in split_slowly(text, pattern))
        return reference.learn_merges(reference.count_chunks(chunks), n_merges), None
    from folio.tokenizers.bpe.count import count_texts
    from folio.tokenizers.bpe.train import learn_merges

    learned = learn_merges(count_texts(texts, pattern), n_merges)
    return learned.merges, learned.counts.tolist()
