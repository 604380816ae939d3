"""A served run: its model under a name, and what may be written with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folio.errors import UserError
from folio.generation.guard import Guard
from folio.generation.row import Request
from folio.generation.sampling import SamplingConfig
from folio.run.model import Model
from folio.serving.asked import Prompt
from folio.serving.refusals import RequestError


@dataclass(frozen=True)
class Served:
    """A run with its model, under the name that clients use."""

    name: str
    opened: Model
    guard: Guard | None = None
    """Against copies, for all texts."""

    @property
    def created(self) -> int:
        """When its weights were written, in seconds since 1970."""
        return int(self.opened.checkpoint.path.stat().st_mtime)

    @property
    def context_length(self) -> int:
        """Tokens that the model sees at once."""
        return self.opened.model.config.context_length

    def token_ids(self, prompt: Prompt) -> tuple[list[int], int]:
        """The tokens of a prompt, and how many stand before those that it has itself.

        Raises:
            RequestError: it has a character or an id that the vocabulary lacks, or no token.
        """
        tokenizer = self.opened.tokenizer
        if isinstance(prompt, str):
            try:
                token_ids = self.opened.prompt_ids(prompt)
            except UserError as error:
                raise RequestError(400, str(error), param="prompt") from None
            if not token_ids:
                raise RequestError(
                    400, "prompt has no token of this vocabulary. Write a word.", param="prompt"
                )
            return token_ids, 1 if not prompt or tokenizer.begin is not None else 0
        for token_id in prompt:
            if not 0 <= token_id < tokenizer.vocab_size:
                raise RequestError(
                    400,
                    f"prompt has the token id {token_id}; this vocabulary has the ids 0 to "
                    f"{tokenizer.vocab_size - 1}.",
                    param="prompt",
                )
        return prompt, 0

    def request(
        self, prompt: Prompt, token_ids: Sequence[int], config: SamplingConfig, max_tokens: int
    ) -> Request:
        """Build the request to write a text after a prompt, which has these tokens."""
        after = prompt if isinstance(prompt, str) else None
        return self.opened.request(token_ids, config, max_tokens, guard=self.guard, after=after)


def choose(served: Mapping[str, Served], name: str | None) -> Served:
    """The run that a request names; it may name none where there is one.

    Raises:
        RequestError: there is no such one.
    """
    if name is None and len(served) == 1:
        return next(iter(served.values()))
    if name is None:
        raise RequestError(
            400,
            f"model is missing; it must be one of {', '.join(served)}.",
            param="model",
            code="missing_parameter",
        )
    if name not in served:
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise RequestError(
            404,
            f"There is no model {shown!r} here; there is {', '.join(served)}.",
            param="model",
            code="model_not_found",
        )
    return served[name]
