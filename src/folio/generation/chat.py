"""Answer in a conversation: the model goes on where the assistant speaks, up to the end of a turn.

When a conversation is longer than the model reads, its oldest turns are left out, an answer
together with what it answered; what a system said first stays.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from folio.corpus.turns import SPEAKERS, turns_of
from folio.errors import UserError
from folio.generation.batch import Batch
from folio.generation.engine import write
from folio.generation.row import Draw, Request
from folio.generation.sampling import EXCLUDED, Logits, SamplingConfig, draw
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokenizers.chat import END, prompt_ids

Message = Mapping[str, str]
"""`role`, system, user or assistant, and `content`, the text."""

ROOM = 4
"""At least one part in so many of the context is left for the answer."""


class Prompt(NamedTuple):
    """A conversation that will be answered."""

    token_ids: TokenIds
    n_left_out: int
    """Number of the oldest messages, which were left out."""


def make_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], context_length: int, max_tokens: int
) -> Prompt:
    """Fit a conversation into the context with room for an answer.

    Args:
        tokenizer: with the tokens of conversations.
        messages: the last one is to be answered.
        context_length: tokens that the model reads at once.
        max_tokens: of the answer.

    Raises:
        UserError: they are not messages, the vocabulary lacks something, or the last turn and what
            the system said are too long.
    """
    said = [_checked(message) for message in messages]
    if not said or said[-1][0] == "assistant":
        raise UserError("The last message must be of the user, and there must be one.")
    n_first = next((i for i, (role, _) in enumerate(said) if SPEAKERS[role] == role), 0)
    fixed, rest = said[:n_first], said[n_first:]
    room = min(max_tokens, max(1, context_length // ROOM))
    # All may stay, or what stands before a turn that follows an answer goes.
    after_answers = (i for i in range(1, len(rest)) if rest[i - 1][0] == "assistant")
    starts = [0, *(i for i in after_answers if rest[i][0] != "assistant")]
    made: dict[int, TokenIds] = {}

    def fits(start: int) -> bool:
        made[start] = prompt_ids(tokenizer, turns_of([*fixed, *rest[start:]]))
        return len(made[start]) + room <= context_length

    found = bisect_left(starts, True, key=fits)  # what is shorter fits, too
    if found == len(starts):
        raise UserError(
            f"The last turn, with any system message and the marks around them, has "
            f"{len(made[starts[-1]]):,} tokens, but the model reads {context_length:,} at once, "
            f"{room:,} of them for the answer. Shorten either."
        )
    return Prompt(made[starts[found]], starts[found])


def answer_request(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    config: SamplingConfig,
    max_tokens: int,
    draw: Draw = draw,
) -> Request:
    """An answer that is to be written: of the special tokens only the end of its turn is drawn.

    Args:
        tokenizer: with the tokens of conversations.
        token_ids: of the conversation before it.
        config: how tokens are drawn.
        max_tokens: of the answer; 1 or more.
        draw: as of a `Request`.
    """
    end = tokenizer.special_id(END)
    others = [i for i in tokenizer.special_tokens.values() if i != end]

    def draw_text(logits: Logits, config: SamplingConfig, generator: random.Random) -> int:
        logits = logits.copy()
        logits[others] = EXCLUDED
        return draw(logits, config, generator)

    return Request(
        prompt=token_ids, config=config, max_tokens=max_tokens, stop_tokens=(end,), draw=draw_text
    )


def answer(
    batch: Batch, tokenizer: Tokenizer, token_ids: TokenIds, config: SamplingConfig, max_tokens: int
) -> Iterator[str]:
    """The text of an answer, as it is drawn; it ends with its turn, or where the context does.

    Args:
        batch: with room for it, and the same tokenizer.
        tokenizer: with the tokens of conversations.
        token_ids: (P,) of the conversation before it.
        config: how tokens are drawn.
        max_tokens: of the answer.
    """
    max_tokens = min(max_tokens, batch.reader.context_length - len(token_ids))
    request = answer_request(tokenizer, token_ids.tolist(), config, max_tokens)
    return (drawn.text for _, drawn in write(batch, [request]))


def _checked(message: Message) -> tuple[str, str]:
    try:
        role, content = message["role"], message["content"]
    except (KeyError, TypeError):
        role, content = None, None
    if role not in SPEAKERS or not isinstance(content, str):
        raise UserError(
            f"A message is {{'role': ..., 'content': text}} with a role of {', '.join(SPEAKERS)}, "
            f"got {str(message)[:80]}."
        )
    return str(role), content
