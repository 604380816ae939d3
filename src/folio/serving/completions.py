"""POST /v1/completions: prompts that are gone on with, and their own probabilities where asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

from folio.generation.scoring import Scored
from folio.serving.asked import AskedCompletion
from folio.serving.engine import Job, Reading, Ticket, Writing
from folio.serving.reading import read
from folio.serving.refusals import RequestError
from folio.serving.reply import Reply
from folio.serving.served import Served
from folio.serving.transcript import Piece, Token, Transcript, ends_of
from folio.tokenizers.base import token_text


class Completion(Reply):
    """The n texts to each prompt of one request, in order."""

    def __init__(self, asked: AskedCompletion, served: Served) -> None:
        """Read the prompts.

        Raises:
            RequestError: a prompt cannot be read.
        """
        super().__init__(asked, served, "cmpl", "text_completion")
        self.asked: AskedCompletion = asked
        self.prompts = [served.token_ids(prompt) for prompt in asked.prompts]
        self.echoes = [self._text(number) for number in range(len(self.prompts))]
        self.scored = asked.echo and asked.alternatives is not None
        if self.scored:
            for token_ids, _ in self.prompts:
                self._require_in_context(token_ids)
        self.n_choices = len(self.prompts) * asked.n
        self.n_prompt = sum(len(token_ids) for token_ids, _ in self.prompts)
        self.prompt_of: dict[Job, int] = {}
        self.choice_of: dict[Job, int] = {}

    def _text(self, number: int) -> str:
        """The echoed part of a prompt."""
        prompt = self.asked.prompts[number]
        if not self.asked.echo:
            return ""
        if isinstance(prompt, str):
            return prompt
        return self.served.opened.tokenizer.decode(prompt, skip_special=True)

    def _require_in_context(self, token_ids: Sequence[int]) -> None:
        most = self.served.context_length
        if len(token_ids) > most:
            raise RequestError(
                400,
                f"prompt has {len(token_ids)} tokens; with echo and logprobs it must have {most} "
                f"at most, which is what the model sees at once.",
                param="prompt",
                code="context_length_exceeded",
            )

    def jobs(self) -> list[Job]:
        """The jobs of the request: read each prompt once if asked for, and write each text."""
        name, asked, config = self.served.name, self.asked, self.asked.config()
        for number, (token_ids, _) in enumerate(self.prompts):
            if self.scored:
                steps = partial(read, self.served.opened, token_ids, asked.alternatives or 0)
                self.prompt_of[Reading(name, steps)] = number
            for i in range(asked.n if asked.max_tokens else 0):
                # The same seed gives a prompt the same text, beside others or not.
                text = number * asked.n + i if asked.seed is None else i
                request = self.served.request(
                    asked.prompts[number], token_ids, config.of_text(text), asked.max_tokens
                )
                echo = len(self.echoes[number])
                transcript = Transcript(self.served.opened.tokenizer, request.after, echo)
                self.choice_of[Writing(name, request, transcript)] = number * asked.n + i
        return [*self.prompt_of, *self.choice_of]

    async def pieces(self, ticket: Ticket) -> AsyncIterator[tuple[int, Piece]]:
        """The choices as they grow, each in order; where a prompt is echoed it comes first."""
        asked = self.asked
        if not self.scored:
            for choice in range(self.n_choices):
                for piece in self._echo(choice, None):
                    yield choice, piece
        scores: dict[int, list[Scored]] = {number: [] for number in range(len(self.prompts))}
        early: dict[int, list[tuple[int, Piece]]] = {number: [] for number in scores}
        unread = set(self.prompt_of.values())
        async for job, event in ticket.heard():
            if (number := self.prompt_of.get(job)) is not None:
                scores[number] += event
                if len(scores[number]) <= len(self.prompts[number][0]):
                    continue
                unread.discard(number)
                for i in range(asked.n):
                    choice = number * asked.n + i
                    for piece in self._echo(choice, scores[number]):
                        yield choice, piece
                for one in early.pop(number):
                    yield one
                continue
            choice = self.choice_of[job]
            if choice // asked.n in unread:
                early[choice // asked.n].append((choice, event))
            else:
                yield choice, event

    def _echo(self, choice: int, scores: Sequence[Scored] | None) -> Iterator[Piece]:
        """Yield what precedes a choice: its prompt if that is wanted, or its end if that is all."""
        number = choice // self.asked.n
        text, finish = self.echoes[number], None if self.asked.max_tokens else "length"
        tokens = []
        if scores is not None:
            token_ids, n_before = self.prompts[number]
            ends = ends_of(self.served.opened.tokenizer, text, token_ids[n_before:])
            for scored, offset in zip(scores[n_before:-1], [0, *ends]):
                tokens.append(
                    Token(scored.token_id, scored.log_probability, scored.alternatives, offset)
                )
        if self.asked.echo or finish:
            yield Piece(text, tokens, finish=finish)

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Some pieces of a text in OpenAI's form."""
        tokens = [token for piece in pieces for token in piece.tokens]
        return {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": None if self.asked.alternatives is None else self._logprobs(tokens),
            "finish_reason": pieces[-1].finish,
        }

    def bit(self, index: int, piece: Piece) -> dict[str, Any]:
        return self.choice(index, [piece])

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """The older form: four lists."""
        tokenizer = self.served.opened.tokenizer
        tops: list[dict[str, float] | None] = []
        for token in tokens:
            if token.log_probability is None:
                tops.append(None)
                continue
            top: dict[str, float] = {}
            for token_id, value in [
                *token.alternatives,
                (token.token_id, token.log_probability),
            ]:
                top.setdefault(token_text(tokenizer, token_id), value)
            tops.append(top)
        return {
            "tokens": [token_text(tokenizer, token.token_id) for token in tokens],
            "token_logprobs": [token.log_probability for token in tokens],
            "top_logprobs": tops,
            "text_offset": [token.offset for token in tokens],
        }
