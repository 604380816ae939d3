"""Byte-level byte-pair encoding as a tokenizer: any text, any bytes, in ids and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from folio.errors import UserError
from folio.storage import read_json
from folio.tokenizers.base import BEGIN, END, END_OF_DOCUMENT, TokenIds, Tokenizer
from folio.tokenizers.bpe import reference
from folio.tokenizers.bpe.patterns import PATTERNS, check_pattern, safe_pieces, split_slowly
from folio.tokenizers.bpe.rules import Rules, encode_slowly
from folio.tokenizers.bpe.standard_json import Contents, from_standard, to_standard
from folio.tokenizers.sequences import Sequence as Per
from folio.tokenizers.sequences import sequences

if TYPE_CHECKING:
    import tiktoken

    from folio.tokenizers.bpe.encode import Encoder

SPECIAL_TOKENS = (END_OF_DOCUMENT, BEGIN, END)


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
        self.lossless = contents.normalization is None

    # ---- making one ----------------------------------------------------------------------

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
            vocab_size: number of ids: 256 bytes, merges and special tokens. It is smaller in the
                end when the text has no more pairs to merge; then `note` says so.
            pattern: how text is split before merging: gpt2, llama3 or qwen2.
            special_tokens: their names; they get the last ids.

        Raises:
            UserError: fewer ids than bytes and special tokens, or an unknown pattern.
        """
        check_pattern(pattern)
        n_merges = vocab_size - 256 - len(special_tokens)
        if n_merges < 0:
            raise UserError(
                f"vocab_size is {vocab_size}; the 256 bytes and {len(special_tokens)} special "
                f"tokens need {vocab_size - n_merges} at least."
            )
        merges = _learn_merges(texts, pattern, n_merges)
        tokenizer = cls.from_merges(merges, pattern=pattern, special_tokens=special_tokens)
        if len(merges) < n_merges:
            tokenizer.note = (
                f"The text has no more than {len(merges):,} pairs to merge, so the vocabulary has "
                f"{tokenizer.vocab_size:,} ids instead of {vocab_size:,}."
            )
        return tokenizer

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[tuple[int, int]] | np.ndarray,
        *,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ) -> BPETokenizer:
        """One with these merges; merge k makes the id 256 + k."""
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
        return cls(Contents(rules, pieces, pattern, special, None))

    @classmethod
    def from_json(cls, table: dict[str, Any], source: str = "The tokenizer.json") -> BPETokenizer:
        """Take back what `to_json` gave; byte-level BPE of the `tokenizers` library also goes."""
        return cls(from_standard(table, source))

    @classmethod
    def load(cls, path: Path | str) -> BPETokenizer:
        """Read a tokenizer.json."""
        return cls.from_json(read_json(Path(path)), str(path))

    # ---- text to ids ---------------------------------------------------------------------

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The merged pairs in the order in which they were learned."""
        pairs = self._contents.rules.pairs.tolist()
        return [(self.pieces[left], self.pieces[right]) for left, right in pairs]

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> TokenIds:
        """Token ids of a text.

        Args:
            text: any text.
            allowed_special: names of special tokens that are found in the text; others are text.
        """
        if allowed_special:
            return self._encode_with_special(text, allowed_special)
        if self._contents.normalization:
            text = unicodedata.normalize(self._contents.normalization, text)  # type: ignore[arg-type]
        if self._encoder is not None:
            return self._encoder.encode(text).astype(self.dtype)
        return self._encode_slowly(text)

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each of many texts, on two threads when there is enough to do."""
        if self._encoder is None or self._contents.normalization:
            return [self.encode(text) for text in texts]
        return [ids.astype(self.dtype) for ids in self._encoder.encode_batch(texts)]

    def encode_stream(self, texts: Iterable[str]) -> Iterator[TokenIds]:
        """Token ids of one text that comes in pieces, as if it were whole."""
        return map(self.encode, safe_pieces(texts))

    def encode_sequences(self, text: str, per: Per = "document") -> TokenIds:
        """Token ids with `<bos>` and `<eos>` around the document, each line or each sentence.

        >>> tokenizer = BPETokenizer.from_merges([])
        >>> tokenizer.decode(tokenizer.encode_sequences("Yes. No!", per="sentence"))
        '<bos>Yes. <eos><bos>No!<eos>'
        """
        begin, end = (np.array([self.special_id(name)], self.dtype) for name in (BEGIN, END))
        parts = [
            part for ids in map(self.encode, sequences(text, per)) for part in (begin, ids, end)
        ]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _encode_with_special(self, text: str, allowed: Collection[str]) -> TokenIds:
        ids = {name: self.special_id(name) for name in allowed}
        longest_first = sorted(allowed, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        encoded = [
            np.array([ids[part]], self.dtype) if k % 2 else self.encode(part)
            for k, part in enumerate(parts)
        ]
        return np.concatenate(encoded)

    @cached_property
    def _encoder(self) -> Encoder | None:
        try:
            from folio.tokenizers.bpe.encode import Encoder
        except ImportError:  # no numba here
            return None
        return Encoder(self._contents.rules, self.pattern)

    def _encode_slowly(self, text: str) -> TokenIds:
        chunks = [
            chunk.encode("utf-8", "surrogatepass") for chunk in split_slowly(text, self.pattern)
        ]
        known = {chunk: encode_slowly(chunk, self._contents.rules) for chunk in set(chunks)}
        return np.array([token_id for chunk in chunks for token_id in known[chunk]], self.dtype)

    # ---- other forms ---------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return to_standard(self._contents)

    def to_tiktoken(self) -> tiktoken.Encoding:
        """The same as a tiktoken encoding, with the same ids.

        Raises:
            UserError: the ids are not in the order of the merges, which tiktoken needs.
        """
        import tiktoken

        new_ids = self._contents.rules.new_ids
        if self._contents.normalization or (np.diff(new_ids) <= 0).any():
            raise UserError(
                "tiktoken cannot run this vocabulary: it needs ids in the order of the merges, "
                "and no normalization."
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


def _learn_merges(
    texts: Iterable[str], pattern: str, n_merges: int
) -> np.ndarray | list[tuple[int, int]]:
    try:
        from folio.tokenizers.bpe.count import count_texts
        from folio.tokenizers.bpe.train import learn_merges
    except ImportError:  # no numba here
        chunks = (chunk for text in texts for chunk in split_slowly(text, pattern))
        return reference.learn_merges(reference.count_chunks(chunks), n_merges=n_merges)
    return learn_merges(count_texts(texts, pattern), n_merges).merges
