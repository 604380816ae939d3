"""The guard of a run against copies; its table is made once per training text and cached."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from folio.console import say
from folio.errors import UserError
from folio.generation.guard import Guard, NoveltyTable, make_table
from folio.run.directory import Run
from folio.run.old_texts import old_texts
from folio.storage import atomic_write, cache_folder, sha256_of
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import TokenText

VERSION = 2


def guard_of(run: Run, texts: Sequence[TokenIds], tokenizer: Tokenizer, novel: int) -> Guard:
    """A guard against copying more than `novel` consecutive letters of what a run learned from, and
    of what the runs before it did.

    If the cache cannot be read or written, the table is rebuilt. The user is told which old text is
    not there, so that it is not checked.

    Args:
        run: the run of the texts.
        texts: `Model.learned()`.
        tokenizer: the tokenizer that made them.
        novel: most consecutive letters and digits that may be copied.

    Raises:
        UserError: novel is below 1.
    """
    old = old_texts(run)
    if old.missing:
        say(f"warning: --novel cannot check {old.missing}: it is not there any more")
    files = [run.tokens_file("train"), *old.files.values()]
    digest = sha256("".join(map(sha256_of, files)).encode()).hexdigest()
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
