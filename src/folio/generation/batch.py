"""Texts written side by side: each may join and leave at any step, and is the same as alone.

Every text has a length, a seed and settings of its own (continuous batching, Yu et al. 2022,
https://www.usenix.org/conference/osdi22/presentation/yu).
"""

from __future__ import annotations

from folio.generation.reader import Reader
from folio.generation.row import Drawn, Request, Row
from folio.generation.sampling import Mask
from folio.tokenizers.base import Tokenizer


class Batch:
    """The texts that a model writes now.

        batch = Batch(PlainReader(model), capacity=8)
        batch.add(Request(prompt=[1, 2, 3]))
        while batch.rows:
            for row, drawn in batch.step():
                print(row.request, drawn.token_id, drawn.ended)

    For one thread at a time.
    """

    def __init__(
        self,
        reader: Reader,
        capacity: int,
        *,
        tokenizer: Tokenizer | None = None,
        excluded: Mask | None = None,
    ) -> None:
        """Reserve room; memory is taken as texts fill it.

        Args:
            reader: reads what is written.
            capacity: most texts at a time.
            tokenizer: for `Drawn.text` and stop strings; None leaves them to the caller.
            excluded: (V,) tokens that are never drawn.
        """
        self.reader, self.tokenizer, self.excluded = reader, tokenizer, excluded
        self.rows: list[Row] = []
        """The texts that have not ended."""
        self.free = list(reader.caches(capacity))
        """Caches that no text uses."""

    def add(self, request: Request) -> Row:
        """Let a text join, for which there must be a `free` cache; the next step writes its first
        token.
        """
        assert self.free, "the batch is full"
        row = Row(request, self.free.pop(0), self.reader, self.tokenizer, self.excluded)
        self.rows.append(row)
        return row

    def drop(self, row: Row) -> None:
        """Let a text leave, wherever it is; the others do not notice. Twice is once."""
        if row in self.rows:
            self.rows.remove(row)
            self.free.insert(0, row.cache)

    def step(self) -> list[tuple[Row, Drawn]]:
        """Write a token of each text; those that end by it leave."""
        rows = list(self.rows)
        if not rows:
            return []
        logits = self.reader.read([row.unread for row in rows], [row.cache for row in rows])
        drawn = [(row, row.take(of_row)) for row, of_row in zip(rows, logits)]
        for row, token in drawn:
            if token.ended:
                self.drop(row)
        return drawn
