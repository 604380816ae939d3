"""The guard of a run: its table is made once for a training text, and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from folio.console import say
from folio.errors import UserError
from folio.generation.guard import Guard, NoveltyTable, make_table
from folio.run.directory import Run
from folio.storage import atomic_write, cache_folder, read_json, sha256_of
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import TokenText

VERSION = 1


def guard_of(run: Run, texts: Sequence[TokenIds], tokenizer: Tokenizer, novel: int) -> Guard:
    """A guard against more than `novel` letters in a row of what a run learned from.

    Where the cache cannot be read or written, its table is made anew. A run that began with another
    one, and kept nothing of its text, says that it is not looked at.

    Args:
        run: in which the texts lie.
        texts: `Model.learned()`.
        tokenizer: that made them.
        novel: letters and digits in a row that may be written.

    Raises:
        UserError: novel is below 1.
    """
    digest = sha256_of(run.tokens_file("train"))
    if len(texts) > 1:
        digest = f"{digest[:32]}{sha256_of(run.tokens_file('kept'))[:32]}"
    elif run.start_file.exists():
        say(
            f"--novel does not know the text that {read_json(run.start_file)['run']} learned from, "
            f"which this run began with"
        )
    name = f"{digest}-{novel}-{VERSION}.bloom"
    path = cache_folder() / "novel" / name
    try:
        bits = np.fromfile(path, np.uint8)
    except OSError:  # not made yet
        bits = np.zeros(0, np.uint8)
    if len(bits):
        return Guard(NoveltyTable(novel, bits), tokenizer)
    table = make_table([TokenText(tokens, tokenizer) for tokens in texts], novel)
    try:
        with atomic_write(path, "wb") as file:
            file.write(table.bits.data)
    except UserError as error:
        say(f"warning: the table of --novel is made anew each time: {error}")
    return Guard(table, tokenizer)
