"""Texts of token ids alone, as `Writer` has them written: prompts -> tokens, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.generation.batch import Batch
from folio.generation.engine import in_step
from folio.generation.reader import Reader
from folio.generation.row import Request
from folio.generation.sampling import Mask, SamplingConfig


def write_ids(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    max_tokens: int | None = None,
    stop_tokens: Sequence[int] = (),
    excluded: Mask | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Continue B prompts; yields (B,) tokens, FINISHED after the end of a text."""
    requests = [
        Request(
            prompt=prompt,
            config=config.of_text(number),
            max_tokens=max_tokens,
            stop_tokens=stop_tokens,
        )
        for number, prompt in enumerate(prompts)
    ]
    return in_step(Batch(reader, len(prompts), excluded=excluded), requests)
