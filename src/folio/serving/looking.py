"""POST /look, for the page to write on: how surprising each token of a text is, what might stand
in its place, and which stretches stand in the training text.
"""

from __future__ import annotations

import math
from typing import Any

from folio.generation.scoring import Scored
from folio.serving.answering import Answer
from folio.serving.copied import Copied, CopyFinder
from folio.serving.engine import Engine, Reading
from folio.serving.fields import Fields
from folio.serving.limits import Limits
from folio.serving.reading import read
from folio.serving.refusals import RequestError
from folio.serving.served import Served
from folio.serving.transcript import Alternatives, ends_of
from folio.tokenizers.base import Tokenizer, token_text

ALTERNATIVES = 8


def text_of(body: Fields, limits: Limits) -> tuple[str, str | None]:
    """Read a body of /look: the text, and the model.

    Raises:
        RequestError: a field is not known or wrong.
    """
    text, model = body.text("text"), body.text("model")
    body.end()
    if text is None:
        raise RequestError(400, "text is missing.", param="text", code="missing_parameter")
    if len(text) > limits.look_characters:
        raise RequestError(
            400,
            f"text has {len(text):,} characters; {limits.look_characters:,} can be looked at at "
            f"once.",
            param="text",
        )
    return text, model


def answer_look(text: str, served: Served, finder: CopyFinder, engine: Engine) -> Answer:
    """Begin to answer.

    Raises:
        RequestError: the text has what the vocabulary lacks, or there is no room.
    """
    try:
        token_ids, n_before = served.token_ids(text)
    except RequestError as refusal:
        raise RequestError(400, refusal.message, param="text") from None
    reading = Reading(served.name, lambda: read(served.opened, token_ids, ALTERNATIVES))
    ticket = engine.submit([reading, Reading(served.name, lambda: finder.steps(text))])

    async def make() -> dict[str, Any]:
        scores: list[Scored] = []
        copied: list[Copied] | None = None
        async for job, event in ticket.heard():
            if job is reading:
                scores += event
            else:
                copied = event
        return look(served, text, token_ids[n_before:], scores[n_before:], copied)

    return Answer(engine, ticket, make=make)


def look(
    served: Served,
    text: str,
    token_ids: list[int],
    scores: list[Scored],
    copied: list[Copied] | None,
) -> dict[str, Any]:
    """The answer for the page; tokens that are a part of a character are one with those that end
    it.

    Args:
        served: the model.
        text: that is looked at.
        token_ids: (T,) of it.
        scores: (T + 1,) of them and of the end.
        copied: None where that is not known.
    """
    tokenizer = served.opened.tokenizer
    tokens: list[dict[str, Any]] = []
    start, parts = 0, list[Scored]()
    for end, scored in zip(ends_of(tokenizer, text, token_ids), scores):
        parts.append(scored)
        if end > start:
            nats = [part.log_probability for part in parts]
            tokens.append(
                {
                    "text": text[start:end],
                    "start": start,
                    "logprob": None if nats[0] is None else sum(n for n in nats if n is not None),
                    "top": _with_texts(tokenizer, parts[0].alternatives, not start),
                }
            )
            start, parts = end, []
    return {
        "tokens": tokens,
        "next": _with_texts(tokenizer, scores[-1].alternatives, not start),
        "copied": [vars(span) for span in copied or ()],
        "searched": copied is not None,
    }


def _with_texts(tokenizer: Tokenizer, best: Alternatives, first: bool) -> list[list[Any]]:
    """Tokens as each would stand there, at the beginning or behind others; a special one is no
    text.
    """
    special = set(tokenizer.special_tokens.values())
    between = "" if first else tokenizer.separator.decode()
    return [
        ["" if i in special else between + token_text(tokenizer, i), math.exp(value)]
        for i, value in best
    ]
