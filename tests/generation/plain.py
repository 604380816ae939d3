"""What generation is compared with: no cache, no batch, everything read at each step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import Tensor

from folio.generation.sampling import SamplingConfig, draw
from folio.model.gpt import GPT


@torch.no_grad()
def write_plainly(model: GPT, prompt: Sequence[int], config: SamplingConfig, n: int) -> list[int]:
    """The n tokens after a prompt, where a full window goes on from its last half, read anew: for
    models whose positions are added.
    """
    generator = random.Random(config.seed)
    context_length = model.config.context_length
    window, written = list(prompt)[-context_length:], []
    for _ in range(n):
        logits = model(torch.tensor([window]))[0, -1].numpy()
        written.append(draw(logits, config, generator))
        if len(window) == context_length:
            window = window[-(context_length // 2 - 1) :] if context_length > 3 else []
        window = [*window, written[-1]]
    return written


@torch.no_grad()
def write_in_one_pass(
    model: GPT, prompt: Sequence[int], config: SamplingConfig, n: int
) -> list[int]:
    """The n tokens after a prompt, where positions go on for ever and a token sees those of its
    own window only: for models whose positions are turns, or that have none.
    """
    generator = random.Random(config.seed)
    context_length = model.config.context_length
    text = list(prompt)[-context_length:]
    longer = GPT(replace(model.config, context_length=len(text) + n)).eval()
    longer.load_state_dict(model.state_dict())
    firsts, first = [0] * len(text), 0  # what each token sees begins there
    for _ in range(n):
        with patch("folio.model.attention.causal_attention", attention_from(firsts)):
            logits = longer(torch.tensor([text]))[0, -1].numpy()
        text.append(draw(logits, config, generator))
        if len(text) - first > context_length:
            first = len(text) - max(1, context_length // 2)
        firsts.append(first)
    return text[-n:]


def attention_from(firsts: Sequence[int]):
    """Attention in which position t sees firsts[t] ... t."""

    def attention(q: Tensor, k: Tensor, v: Tensor, dropout: object = None) -> Tensor:
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        t = torch.arange(len(firsts))
        seen = (t <= t[:, None]) & (t >= torch.tensor(firsts)[:, None])
        return scores.masked_fill(~seen, float("-inf")).softmax(dim=3) @ v

    return attention
