"""Opens a store for a training."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from folio.corpus.corpus import CorpusConfig
from folio.errors import UserError
from folio.store.directory import Store
from folio.tokenizers import Tokenizer, load
from folio.tokenizers.config import TokenizerConfig
from folio.tokens.token_file import open_token_file


class Opened(NamedTuple):
    """What a training needs of a store."""

    tokenizer: Tokenizer
    tokenizer_config: TokenizerConfig
    files: dict[str, Path]
    """Token files: `train` and `validation`."""
    record: dict[str, Any]
    """The content of the run's corpus.json."""


def open_store(store: Store, corpus: CorpusConfig, tokenizer: TokenizerConfig) -> Opened:
    """Open a finished store.

    Args:
        store: the store.
        corpus, tokenizer: the settings of the recipe, which must say nothing that only the making
            of a store can heed.

    Raises:
        UserError: they do; or the store is not finished, or damaged.
    """
    index, own = store.index(), load(store.tokenizer_file)
    _require_settings(store, corpus, tokenizer)
    files = {name: store.tokens_file(name) for name in ("train", "validation")}
    for name, count in (("train", "training"), ("validation", "validation")):
        n_tokens = len(open_token_file(files[name], own.fingerprint))
        if n_tokens != index["tokens"][count]:
            raise UserError(
                f"{files[name]} is damaged: it must have {index['tokens'][count]:,} tokens, and "
                f"has {n_tokens:,}. Delete {store.index_file}, and run again what made the store: "
                f"folio tokens SOURCES --into {shlex.quote(str(store.path))}"
            )
    path = str(store.tokenizer_file.resolve())
    config = TokenizerConfig(kind="file", path=path, sequence=store.sequence)
    return Opened(own, config, files, _record(store, index))


def _require_settings(store: Store, corpus: CorpusConfig, tokenizer: TokenizerConfig) -> None:
    usual = CorpusConfig()
    if replace(corpus, sources=usual.sources) != usual:
        raise UserError(
            f"Settings of corpus must be left out for the store {store.path}, which was made with "
            f"its own. Make another one: folio tokens SOURCES --into FOLDER --corpus..."
        )
    store.require_vocabulary(tokenizer)
    if not tokenizer.path and tokenizer != TokenizerConfig():
        raise UserError(
            f"Settings of tokenizer must be left out for the store {store.path}, which has its "
            f"vocabulary. Make another one: folio tokens SOURCES --into FOLDER --tokenizer..."
        )


def _record(store: Store, index: dict[str, Any]) -> dict[str, Any]:
    characters = dict(index["characters"])
    everything = sum(characters.values())
    copies = characters.pop("exact copies")
    record = {
        "documents": sum(index["documents"].values()),
        "sources": [
            {"source": shard["name"], **{n: shard[n] for n in ("documents", "characters")}}
            for shard in index["shards"]
        ],
        "refused": index["refused"],
        "split": "documents",
        "ledger": {
            "characters_in": everything,
            **characters,
            "dropped": {"exact copies": copies} if copies else {},
        },
        "tokens": index["tokens"],
        "families": {"validation": []},
        "store": str(store.path.resolve()),
    }
    return record | {n: index[n] for n in ("frequency_loss",) if n in index}
