"""Texts written side by side: each may join and leave at any step, and is the same as alone.

Every text has a length, a seed and settings of its own (continuous batching, Yu et al. 2022,
https://www.usenix.org/conference/osdi22/presentation/yu). The plain reader calls the model for one
text after the other, so none can depend on those beside it; a compiled one must keep that.

Shapes:  B texts · V vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor

from folio.generation.readers import Reader, plain_reader
from folio.generation.row import Drawn, Request, Row
from folio.generation.sliding import slide_for
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.tokenizers.base import Tokenizer


class Batch:
    """The texts that a model writes now.

        batch = Batch(model, capacity=8)
        batch.add(Request(prompt=[1, 2, 3]))
        while batch.rows:
            for row, drawn in batch.step():
                print(row.request, drawn.token_id, drawn.ended)

    For one thread at a time.
    """

    def __init__(
        self,
        model: GPT,
        capacity: int,
        *,
        tokenizer: Tokenizer | None = None,
        excluded: Tensor | None = None,
        reader: Reader | None = None,
    ) -> None:
        """Reserve room; memory is taken as texts fill it.

        Args:
            model: in evaluation mode, on any device.
            capacity: most texts at a time.
            tokenizer: for `Drawn.text` and stop strings; None leaves them to the caller.
            excluded: (V,) bool, tokens that are never drawn; on the CPU.
            reader: in place of `plain_reader`, for the same model.
        """
        self.tokenizer, self.excluded = tokenizer, excluded
        self.read = reader or plain_reader(model)
        self.device = model.lm_head.weight.device
        self.context_length, self.slide = model.config.context_length, slide_for(model)
        self.rows: list[Row] = []
        """Those that are not ended."""
        self.free = KVCache(model.config, capacity, like=model.lm_head.weight).rows()
        """Caches without a text."""

    def add(self, request: Request) -> Row:
        """Let a text join, for which there must be a `free` cache; the next step writes its first
        token.
        """
        assert self.free, "the batch is full"
        cache = self.free.pop(0)
        row = Row(request, cache, self.context_length, self.slide, self.tokenizer, self.excluded)
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
        # Entered and left around the model: a consumer between two steps computes as it likes.
        with torch.inference_mode():
            unread = [torch.tensor(row.unread, device=self.device) for row in rows]
            logits = self.read(unread, [row.cache for row in rows]).cpu()  # (B, V)
            drawn = [(row, row.take(of_row)) for row, of_row in zip(rows, logits)]
        for row, token in drawn:
            if token.ended:
                self.drop(row)
        return drawn
