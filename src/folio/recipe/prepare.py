"""Text -> tokenizer and token files, in a cache that is addressed by what they are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from folio.corpus.corpus import Corpus, read_corpus
from folio.evaluation.score import frequency_loss
from folio.recipe.recipe import Recipe
from folio.storage import cache_folder, write_json
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokens.token_file import VERSION, open_token_file, write_token_file


@dataclass(frozen=True)
class Prepared:
    """What a run needs of its text."""

    tokenizer: Tokenizer
    tokenizer_config: TokenizerConfig
    """With every choice written out."""
    training_file: Path
    validation_file: Path
    record: dict[str, Any]
    """For corpus.json."""
    warnings: list[str]

    def training(self) -> TokenIds:
        """(N,) token ids, mapped from the file."""
        return open_token_file(self.training_file, self.tokenizer.fingerprint)

    def validation(self) -> TokenIds:
        """(N,) token ids, mapped from the file."""
        return open_token_file(self.validation_file, self.tokenizer.fingerprint)


def prepare(recipe: Recipe, tell: Callable[[str], None]) -> Prepared:
    """Read the corpus, learn the vocabulary from its training part, encode both parts.

    Args:
        recipe: names the corpus and the tokenizer.
        tell: takes a line about what is being done.

    Raises:
        UserError: as read_corpus; or a part that is too small to be predicted.
    """
    corpus = read_corpus(recipe.corpus)
    training, validation = corpus.split.training, corpus.split.validation
    config, choice = resolve(recipe.tokenizer, sum(map(len, training)))
    if choice:
        tell(choice)
    tokenizer = train_tokenizer(config, (part.pieces() for part in training))
    if tokenizer.note:
        tell(tokenizer.note)

    folder = cache_folder() / "tokens" / _address(corpus, tokenizer, config.sequence)
    files = {"train": folder / "train.bin", "validation": folder / "validation.bin"}
    for name, parts in (("train", training), ("validation", validation)):
        if not files[name].exists():
            tell(f"encoding the {name} text")
            texts = (part.pieces() for part in parts)
            chunks = encode_documents(tokenizer, texts, config.sequence)
            write_token_file(files[name], chunks, tokenizer.dtype, tokenizer.fingerprint)

    record, warnings = corpus.record(), corpus.reading.warnings()
    prepared = Prepared(tokenizer, config, files["train"], files["validation"], record, warnings)
    train_ids, validation_ids = prepared.training(), prepared.validation()
    n_unknown = 0
    if tokenizer.unknown is not None:
        n_unknown = int(np.count_nonzero(validation_ids == tokenizer.unknown))
    if n_unknown:
        warnings.append(
            f"{n_unknown} of {len(validation_ids)} validation tokens are unknown "
            f"({n_unknown / len(validation_ids):.1%}): the vocabulary, made of the training text, "
            f"does not have them."
        )
    if record["ledger"]["dropped"]:
        reasons = ", ".join(f"{n} ({why})" for why, n in record["ledger"]["dropped"].items())
        warnings.append(f"characters left out: {reasons}")
    record["tokens"] = {
        "training": len(train_ids),
        "validation": len(validation_ids),
        "unknown_in_validation": n_unknown,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.fingerprint,
    }
    if len(validation_ids) > 1:
        record["frequency_loss"] = frequency_loss(train_ids, validation_ids, tokenizer.vocab_size)
    write_json(folder / "corpus.json", record)  # for whoever looks into the cache
    return prepared


def _address(corpus: Corpus, tokenizer: Tokenizer, sequence: str) -> str:
    made_of = {
        "format": VERSION,
        "sequence": sequence,
        "tokenizer": tokenizer.fingerprint,
        "training": [(p.document.sha256, p.start, p.stop) for p in corpus.split.training],
        "validation": [(p.document.sha256, p.start, p.stop) for p in corpus.split.validation],
    }
    return hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()
