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
from folio.serving.transcript import Alternatives, texts_of, token_text

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
        return look(served, token_ids[n_before:], scores[n_before:], copied)

    return Answer(engine, ticket, make=make)


def look(
    served: Served, token_ids: list[int], scores: list[Scored], copied: list[Copied] | None
) -> dict[str, Any]:
    """The answer for the page.

    Args:
        served: the model.
        token_ids: (T,) of the text.
        scores: (T + 1,) of them and of the end.
        copied: None where that is not known.
    """
    tokens, start = [], 0
    for text, scored in zip(texts_of(served.opened.tokenizer, token_ids), scores):
        tokens.append(
            {
                "text": text,
                "start": start,
                "logprob": scored.log_probability,
                "top": _with_texts(served, scored.alternatives),
            }
        )
        start += len(text)
    return {
        "tokens": tokens,
        "next": _with_texts(served, scores[-1].alternatives),
        "copied": [vars(span) for span in copied or ()],
        "searched": copied is not None,
    }


def _with_texts(served: Served, best: Alternatives) -> list[list[Any]]:
    tokenizer = served.opened.tokenizer
    return [[token_text(tokenizer, token_id), math.exp(value)] for token_id, value in best]
