"""Token after token, with a cache, several sequences at once, without end if asked.

A model sees at most context_length tokens. When they are full, generation goes on from
the last half of them, read anew: positions stay those that the model was trained on,
memory stays flat, and each token costs two reads at most. This holds with and without the
cache, so both make the same text.

Shapes:  B sequences · P tokens of the prompt · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from folio.errors import UserError
from folio.generation.sampling import SamplingConfig, draw, exclude
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache

Decoder = Callable[[Tensor, KVCache | None], Tensor]
"""(B, T) token ids and a cache, which is extended by them -> (B, T, V) logits."""

FINISHED = -1
"""Stands for the tokens of a sequence after its stop token."""

Draw = Callable[[Tensor, SamplingConfig, torch.Generator], Tensor]
"""(B, V) logits to (B,) tokens, or FINISHED where none may come, as `sampling.draw`."""


def generate(
    model: GPT,
    prompt: Tensor,
    config: SamplingConfig,
    *,
    generator: torch.Generator,
    max_tokens: int | None = None,
    stop_token: int | None = None,
    excluded: Tensor | None = None,
    draw: Draw = draw,
    use_cache: bool = True,
    decoder: Decoder | None = None,
) -> Iterator[Tensor]:
    """Continue B prompts of equal length, one token each at a time.

    Args:
        model: in evaluation mode, on any device.
        prompt: (B, P) token ids, P >= 1; only the last context_length count.
        config: how tokens are drawn.
        generator: on the model's device.
        max_tokens: how many steps; None never ends.
        stop_token: ends a sequence; the others go on.
        excluded: (V,) bool, tokens that are never drawn.
        draw: chooses the tokens; a `Guard` has another one.
        use_cache: False computes everything anew at each step, to compare.
        decoder: reads tokens in place of the model, over the same cache.

    Yields:
        (B,) the next token of each sequence, FINISHED for those that ended.
    """
    if prompt.shape[1] == 0:
        raise UserError("The prompt is empty; at least one token is needed to go on from.")
    if max_tokens is not None and max_tokens < 0:
        raise UserError(f"max_tokens must be 0 or more, got {max_tokens}.")
    context_length = model.config.context_length
    half = max(1, context_length // 2)
    window = prompt[:, -context_length:]  # (B, <= context_length) all that the model sees
    cache = KVCache(model.config, len(prompt), like=model.lm_head.weight) if use_cache else None
    read: Decoder = model if decoder is None or cache is None else decoder
    unread = window  # the part of the window that is not in the cache yet
    finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    stop = FINISHED if stop_token is None else stop_token
    made = 0
    while max_tokens is None or made < max_tokens:
        # Entered and left around the model: a consumer between two yields computes as it likes.
        with torch.inference_mode():
            logits = read(unread if cache is not None else window, cache)[:, -1].float()  # (B, V)
            token_ids = draw(exclude(logits, excluded), config, generator)  # (B,)
            shown = token_ids.masked_fill(finished, FINISHED)
            finished = finished | (token_ids == stop)
            if stop != FINISHED:
                finished = finished | (token_ids == FINISHED)
            token_ids = token_ids.clamp(min=0)
            unread = token_ids[:, None]
            if window.shape[1] == context_length:
                window = torch.cat((window[:, context_length - half + 1 :], unread), dim=1)
                if cache is not None:
                    cache.length = 0
                    unread = window
            else:
                window = torch.cat((window, unread), dim=1)
        made += 1
        yield shown
        if bool(finished.all()):
            return
