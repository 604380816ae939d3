"""The settings of a run's tokenizer, and how they choose and train one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from folio.config import unknown_choice
from folio.errors import UserError
from folio.storage import local
from folio.tokenizers import load
from folio.tokenizers.base import BEGIN, END, END_OF_DOCUMENT, MOST_IDS, UNKNOWN, Tokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import Sequence, stream_sequences

AUTO_CHARACTERS = 2_000_000
"""Characters of training text from which `auto` takes byte-pair encoding. In five minutes it lowers
the bits per byte by a fifth on 4.5 million characters and raises them by 4 % on 0.3 million, which
it memorizes (docs/experiments.md, "Longer windows"); the threshold between the two is an
assumption."""
CHARACTERS_PER_ID = 1200
"""Assumption: as in that measurement, 4,096 ids for 4.5 million characters. Even rare ids then
occur often enough to be learned."""
SMALLEST, LARGEST = 1024, 32_768
IDS_IN_FIVE_MINUTES = 8192
"""Most ids for a training of five minutes on a processor, where each costs a row of products at
every token: with 4,096, 8,192 and 16,384 ids a model of 17 MB of documentation had 1.547, 1.525 and
1.604 bits per byte (docs/experiments.md, "Longer texts in five minutes")."""
LONGER = 1 / 3
"""Power of the time by which there may be more of them. An assumption: the best vocabulary grows
more slowly than the model (Tao et al. 2024, https://arxiv.org/abs/2407.13623), and that as the root
of the time."""
MEANT_FOR = {
    "vocab_size": ("bpe", "word"),
    "pattern": ("bpe",),
    "sequence": ("bpe", "file"),
    "min_count": ("word",),
    "punctuation": ("word",),
    "lowercase": ("word",),
}
"""The kinds to which each setting applies."""
BUILT_IN = ("auto", "character", "bpe", "word", "gpt2", "file")
"""A kind that is not among these may take any setting."""

Documents = Iterable[Iterable[str]]
"""Each document is given in pieces, so that it may be larger than memory."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text is turned into token ids."""

    kind: str = "auto"
    """auto, character, bpe, word, gpt2 or file: characters of the training text; byte-pair encoding
    learned from it; its frequent words, which loses the rest; GPT-2's published vocabulary; or the
    file that tokenizer.path names. `auto` takes characters for a short text and bpe for a long one,
    and says so."""

    vocab_size: int = 0
    """Size of a bpe or word vocabulary, special tokens included. 0 lets the size of the text
    decide."""

    pattern: Literal["gpt2", "llama3", "qwen2", "smollm"] = "gpt2"
    """How bpe splits text before merging."""

    sequence: Sequence = "none"
    """What gets <bos> before and <eos> after it; for bpe, or a file that has the two."""

    min_count: int = 1
    """Words that occur less often are left out of the vocabulary."""

    punctuation: Literal["separate", "drop", "keep"] = "separate"
    """What happens to punctuation in kind word: each mark is a word of its own, is dropped, or
    stays with its word."""

    lowercase: bool = False
    """Whether "The" is the word "the"."""

    path: str = ""
    """A tokenizer.json for kind file; the folder of vocab.bpe and encoder.json for kind gpt2."""

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *KINDS):
            raise UserError(unknown_choice("tokenizer.kind", self.kind, ("auto", *KINDS)))
        if self.kind == "file" and not self.path:
            raise UserError("tokenizer.kind is file, but tokenizer.path is empty. Name the file.")
        if self.path and self.kind not in ("auto", "file", "gpt2"):
            raise UserError(
                f"tokenizer.path is given, but tokenizer.kind is {self.kind}. "
                f"Leave one of them out, or give --tokenizer.kind file."
            )
        if self.vocab_size < 0:
            raise UserError(f"tokenizer.vocab_size must be 0 or more, got {self.vocab_size}.")
        if self.vocab_size > MOST_IDS:
            raise UserError(
                f"tokenizer.vocab_size must be at most {MOST_IDS:,}, got {self.vocab_size:,}."
            )
        if self.min_count < 1:
            raise UserError(f"tokenizer.min_count must be at least 1, got {self.min_count}.")
        kind = self.kind_by_settings
        for name in self._given():
            if kind in BUILT_IN and kind not in MEANT_FOR[name]:
                raise UserError(
                    f"tokenizer.{name} is {getattr(self, name)}, which means nothing for kind "
                    f"{kind}. Leave it out, or take kind {MEANT_FOR[name][0]}."
                )
        self._check_size(())

    def with_room_for(self, added: tuple[str, ...]) -> TokenizerConfig:
        """Return the config of a vocabulary that has `vocab_size` ids once these special tokens are
        added to it.

        Raises:
            UserError: there is no room for them.
        """
        if not self.vocab_size:
            return self
        self._check_size(added)
        return replace(self, vocab_size=self.vocab_size - len(added))

    def _check_size(self, added: tuple[str, ...]) -> None:
        if self.kind_by_settings == "bpe":
            n, least, special = 256, "the 256 bytes", self.special_tokens + added
        elif self.kind_by_settings == "word":
            n, least, special = 1, "a word", (UNKNOWN, END_OF_DOCUMENT, *added)
        else:
            return
        if 0 < self.vocab_size < n + len(special):
            raise UserError(
                f"tokenizer.vocab_size must be at least {n + len(special)}, {least} and "
                f"{', '.join(special)}, got {self.vocab_size}."
            )

    @property
    def kind_by_settings(self) -> str:
        """The kind, as far as it does not depend on the text: `auto` becomes file with a path, and
        bpe with a setting of bpe.
        """
        if self.kind == "auto" and self.path:
            return "file"
        if self.kind == "auto" and any("bpe" in MEANT_FOR[name] for name in self._given()):
            return "bpe"
        return self.kind

    def _given(self) -> list[str]:
        """The settings in `MEANT_FOR` that differ from their defaults."""
        settings = (field for field in fields(self) if field.name in MEANT_FOR)
        return [field.name for field in settings if getattr(self, field.name) != field.default]

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The special tokens of a bpe vocabulary; only those that are used, since each costs
        embedding rows.
        """
        return (END_OF_DOCUMENT,) if self.sequence == "none" else (END_OF_DOCUMENT, BEGIN, END)


def resolve(
    config: TokenizerConfig, n_characters: int, minutes: float = 0.0
) -> tuple[TokenizerConfig, str]:
    """Fill in what the config leaves open.

    Args:
        config: as the user gave it.
        n_characters: size of the training text.
        minutes: that a processor has for the training, if it is limited in time.

    Returns:
        The config without `auto` and without a size of 0, and a line that says what was chosen
        and why; empty if nothing was open.

    >>> resolve(TokenizerConfig(), 18_000)[1]
    'tokenizer: characters, since the training text has 18,000 of them, fewer than 2,000,000'
    """
    kind = config.kind_by_settings
    if config.path:
        return replace(config, kind=kind, path=str(local(config.path).resolve())), ""
    if kind == "auto" and n_characters < AUTO_CHARACTERS:
        return replace(config, kind="character"), (
            f"tokenizer: characters, since the training text has {n_characters:,} of them, fewer "
            f"than {AUTO_CHARACTERS:,}"
        )
    kind = "bpe" if kind == "auto" else kind
    if config.vocab_size or kind not in MEANT_FOR["vocab_size"]:
        choice = "" if kind == config.kind else f"tokenizer: {kind}, since its settings are given"
        return replace(config, kind=kind), choice
    wanted, most, size = n_characters / CHARACTERS_PER_ID, float(LARGEST), SMALLEST
    if minutes:
        most = min(IDS_IN_FIVE_MINUTES * (minutes / 5) ** LONGER, LARGEST)
    while size < wanted and 2 * size <= most:
        size *= 2
    reason = f"the training text has {n_characters:,} characters"
    if size < wanted and most < LARGEST:
        reason = f"a processor cannot learn more in {minutes:g} minutes"
    return replace(config, kind=kind, vocab_size=size), (
        f"tokenizer: {kind} with {size:,} ids, since {reason}"
    )


def train_tokenizer(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    """Train a vocabulary on the training text, or load one.

    Args:
        config: a config from `resolve`.
        documents: the training text.

    Raises:
        UserError: a size that is too small, or a file that cannot be read.
    """
    return KINDS[config.kind](config, documents)


def _learn_characters(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    return CharacterTokenizer.train(piece for pieces in documents for piece in pieces)


def _learn_byte_pairs(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    # Imported here, since most runs need only characters.
    from folio.tokenizers.bpe.tokenizer import BPETokenizer

    return BPETokenizer.train(
        _texts(config, documents),
        config.vocab_size,
        pattern=config.pattern,
        special_tokens=config.special_tokens,
    )


def _learn_words(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    from folio.tokenizers.word import WordTokenizer, whole_words

    return WordTokenizer.train(
        (text for pieces in documents for text in whole_words(pieces, config.punctuation)),
        config.vocab_size,
        min_count=config.min_count,
        punctuation=config.punctuation,
        lowercase=config.lowercase,
    )


def _load_gpt2(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    from folio.tokenizers.gpt2 import load_gpt2

    return load_gpt2(config.path or None)


def _load_file(config: TokenizerConfig, documents: Documents) -> Tokenizer:
    return load(config.path)


def _texts(config: TokenizerConfig, documents: Documents) -> Iterator[str]:
    """Pieces whose chunks are those of the whole."""
    from folio.tokenizers.bpe.patterns import safe_pieces

    for pieces in documents:
        if config.sequence in ("line", "sentence"):
            yield from stream_sequences(pieces, config.sequence)
        else:
            yield from safe_pieces(pieces)


KINDS: dict[str, Callable[[TokenizerConfig, Documents], Tokenizer]] = {
    "character": _learn_characters,
    "bpe": _learn_byte_pairs,
    "word": _learn_words,
    "gpt2": _load_gpt2,
    "file": _load_file,
}
"""tokenizer.kind -> its constructor, called with the config and the training text. To add your own,
put an entry here, and one in `folio.tokenizers.TYPES`, which loads it."""
