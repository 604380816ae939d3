"""The guard of a run: its table is made once for a training text, and kept in the cache."""

from __future__ import annotations

import numpy as np

from folio.console import say
from folio.errors import UserError
from folio.generation.guard import Guard, NoveltyTable, make_table
from folio.run.directory import Run
from folio.storage import atomic_write, cache_folder, sha256_of
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import TokenText

VERSION = 1


def guard_of(run: Run, tokens: TokenIds, tokenizer: Tokenizer, novel: int) -> Guard:
    """A guard against more than `novel` letters in a row of a run's training text.

    Where the cache cannot be read or written, its table is made anew.

    Raises:
        UserError: novel is below 1.
    """
    name = f"{sha256_of(run.tokens_file('train'))}-{novel}-{VERSION}.bloom"
    path = cache_folder() / "novel" / name
    try:
        bits = np.fromfile(path, np.uint8)
    except OSError:  # not made yet
        bits = np.zeros(0, np.uint8)
    if len(bits):
        return Guard(NoveltyTable(novel, bits), tokenizer)
    table = make_table(TokenText(tokens, tokenizer), novel)
    try:
        with atomic_write(path, "wb") as file:
            file.write(table.bits.data)
    except UserError as error:
        say(f"warning: the table of --novel is made anew each time: {error}")
    return Guard(table, tokenizer)
