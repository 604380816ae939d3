"""What generation is compared with: no cache, no batch, the whole window read at each step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from folio.generation.sampling import SamplingConfig, draw
from folio.model.gpt import GPT


@torch.no_grad()
def write_plainly(model: GPT, prompt: Sequence[int], config: SamplingConfig, n: int) -> list[int]:
    """The n tokens after a prompt; a full window goes on from its last half."""
    generator = torch.Generator().manual_seed(config.seed)
    context_length = model.config.context_length
    window, written = list(prompt)[-context_length:], []
    for _ in range(n):
        logits = model(torch.tensor([window]))[:, -1]
        written.append(int(draw(logits, config, generator)))
        if len(window) == context_length:
            window = window[-(context_length // 2 - 1) :] if context_length > 3 else []
        window = [*window, written[-1]]
    return written
