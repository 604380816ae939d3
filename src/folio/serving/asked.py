"""Parses what a request asks for, in OpenAI's fields."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields
from typing import Any

from folio.errors import UserError
from folio.generation.sampling import SamplingConfig
from folio.serving.fields import Fields, refuse
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError

MOST_CHOICES, MOST_STOPS, MOST_ALTERNATIVES = 16, 16, 20
LARGEST_SEED = 2**53
"""The largest integer that JSON carries exactly in every language."""
SEED_OF_ZERO = 2**60
"""Replaces seed 0, which in `SamplingConfig` draws a new seed each time."""

Prompt = str | list[int]


@dataclass(frozen=True)
class Asked:
    """The fields that prompts and conversations share."""

    model: str | None
    sampling: dict[str, Any]
    """Fields of `SamplingConfig`, except those that are below."""
    seed: int | None
    n: int
    stops: tuple[str, ...]
    max_tokens: int
    alternatives: int | None
    """How many alternatives to return with each token's probability; None returns no
    probabilities."""
    stream: bool
    include_usage: bool

    def config(self) -> SamplingConfig:
        """The config of the first of the n texts."""
        seed = 1 + secrets.randbelow(LARGEST_SEED) if self.seed is None else self.seed
        try:
            return SamplingConfig(
                **self.sampling,
                seed=seed or SEED_OF_ZERO,
                stop_strings=self.stops,
                logprobs=self.alternatives,
            )
        except UserError as error:
            raise RequestError(400, str(error), param=_field_in(str(error))) from None


@dataclass(frozen=True)
class AskedCompletion(Asked):
    """The body of a request to /v1/completions."""

    prompts: list[Prompt]
    echo: bool


def completion_of(body: Fields, limits: Limits) -> AskedCompletion:
    """Read a body of /v1/completions.

    Raises:
        RequestError: a field is not known, not supported or wrong.
    """
    prompts = prompts_of(body.take("prompt"))
    echo = body.flag("echo")
    alternatives = body.whole("logprobs", None, 0, MOST_ALTERNATIVES)
    max_tokens = body.whole("max_tokens", 16, 0, limits.max_tokens)
    body.only("suffix", "")
    best_of = body.take("best_of", None)
    asked = common(body, max_tokens, alternatives)
    Fields({} if best_of is None else {"best_of": best_of}).only("best_of", asked["n"])
    n_texts = len(prompts) * asked["n"]
    if n_texts > limits.prompts:
        refuse("prompt", f"times n must be {limits.prompts} texts at most", n_texts)
    return AskedCompletion(**asked, prompts=prompts, echo=echo)


def prompts_of(value: Any) -> list[Prompt]:
    """Prompts from a text, token ids, or a list of either."""
    if type(value) is str or _are_ids(value):
        return [value]
    some = type(value) is list and len(value) > 0
    if some and (all(type(p) is str for p in value) or all(map(_are_ids, value))):
        return value
    if value is None:
        raise RequestError(400, "prompt is missing.", param="prompt", code="missing_parameter")
    return refuse("prompt", "must be a text, a list of token ids, or a list of either", value)


def _are_ids(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(i) is int for i in value)


def common(body: Fields, max_tokens: int, alternatives: int | None) -> dict[str, Any]:
    """The fields that prompts and conversations share, and the end of the body."""
    sampling = {
        "temperature": body.number("temperature", 1.0, 0, 100),
        "top_p": body.number("top_p", 1.0, 0, 1),
        "top_k": body.whole("top_k", 0, 0, 2**31),
        "min_p": body.number("min_p", 0.0, 0, 1),
        "repetition_penalty": body.number("repetition_penalty", 1.0, 0, 100),
    }
    asked = {
        "model": body.text("model"),
        "sampling": sampling,
        "seed": body.whole("seed", None, 0, LARGEST_SEED),
        "n": body.whole("n", 1, 1, MOST_CHOICES),
        "stops": body.texts("stop", MOST_STOPS),
        "max_tokens": max_tokens,
        "alternatives": alternatives,
        "stream": body.flag("stream"),
    }
    options = body.take("stream_options", {})
    if type(options) is not dict or (options and not asked["stream"]):
        refuse("stream_options", "must be an object, and stream true", options)
    inside = Fields(options)
    asked["include_usage"] = inside.flag("include_usage")
    inside.end()
    for name, neutral in {
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "logit_bias": {},
    }.items():
        body.only(name, neutral)
    body.text("user")  # says who asks, to nobody here, and changes no answer
    body.end()
    return asked


def _field_in(message: str) -> str | None:
    names = [field.name for field in fields(SamplingConfig) if message.startswith(field.name)]
    return names[0] if names else None
