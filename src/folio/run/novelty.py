"""The guard of a run: its table is made once for a training text, and kept in the cache."""

from __future__ import annotations

import numpy as np

from folio.generation.guard import Guard, NoveltyTable, make_table
from folio.run.directory import Run
from folio.storage import atomic_write, cache_folder, sha256_of
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import TokenText

VERSION = 1


def guard_of(run: Run, tokens: TokenIds, tokenizer: Tokenizer, novel: int) -> Guard:
    """A guard against more than `novel` letters in a row of a run's training text.

    Raises:
        UserError: novel is below 1.
    """
    name = f"{sha256_of(run.tokens_file('train'))}-{novel}-{VERSION}.bloom"
    path = cache_folder() / "novel" / name
    if novel >= 1 and path.exists():
        return Guard(NoveltyTable(novel, np.fromfile(path, np.uint8)), tokenizer)
    table = make_table(TokenText(tokens, tokenizer), novel)
    with atomic_write(path, "wb") as file:
        file.write(table.bits.data)
    return Guard(table, tokenizer)
