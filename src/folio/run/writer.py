"""Writes with a trained model, and knows what it was trained on."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from folio.config import from_table
from folio.errors import UserError
from folio.generation.batch import Batch
from folio.generation.chat import Message, answer, make_prompt
from folio.generation.engine import in_step, require_length, write
from folio.generation.guard import Guard
from folio.generation.reader import Reader
from folio.generation.row import Drawn, Request
from folio.generation.sampling import Mask, SamplingConfig, SamplingSettings, draw
from folio.model.config import ModelConfig
from folio.run.checkpoint import Checkpoint
from folio.run.directory import Run
from folio.run.novelty import guard_of
from folio.run.old_texts import old_texts
from folio.tokenizers import Tokenizer
from folio.tokenizers.base import TokenIds
from folio.tokenizers.chat import require_chat
from folio.tokens.token_file import open_token_file

AT_ONCE = 32
"""Texts that are written side by side, of more."""


class Writer(ABC):
    """A run that can write, with any reader. Free of torch, which takes a second to load."""

    run: Run
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    complaints: list[str]
    """What was wrong with checkpoints that were skipped, and how the model may differ from the one
    that was trained."""

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """The shape of the model."""

    @abstractmethod
    def reader(self, compiled: bool | None = None) -> Reader:
        """What computes logits.

        Args:
            compiled: whether it is the compiled decoder; None takes it where it can be.
        """

    @property
    def has_text(self) -> bool:
        """Whether the run knows what it learned from; one that was imported does not."""
        return self.run.tokens_file("train").exists()

    def training(self) -> TokenIds:
        """(N,) token ids that the run learned from.

        Raises:
            UserError: it was imported, or the file is gone.
        """
        self._require_text()
        return open_token_file(self.run.tokens_file("train"), self.tokenizer.fingerprint)

    def learned(self) -> list[TokenIds]:
        """All texts that the run learned from: its own, and those of the runs before it that are
        there.
        """
        return [self.training(), *map(open_token_file, old_texts(self.run).files.values())]

    def all_learned(self, most: int = sys.maxsize) -> TokenIds:
        """(N,) the texts of `learned` as one, the oldest first, of more than `most` tokens the
        last ones; in memory if there are several.
        """
        newest, *older = self.learned()
        if not older:
            return newest[-most:]
        end = self.tokenizer.end_of_document
        between = () if end is None else (np.array([end], newest.dtype),)
        texts = [text[-most:] for old in older[::-1] for text in (old, *between)]
        return np.concatenate([*texts, newest])[-most:]

    def validation(self) -> TokenIds:
        """(N,) token ids that the run held out; errors as in `training`."""
        self._require_text()
        return open_token_file(self.run.tokens_file("validation"), self.tokenizer.fingerprint)

    def _require_text(self) -> None:
        if not self.has_text and "imported" in self.run.corpus():
            raise UserError(
                f"The run {self.run.path} was imported, so its training text is not known here. "
                f"Name a text: folio evaluate {self.run.word} FILE, folio recall {self.run.word} "
                f"--text FILE."
            )

    def generate_ids(
        self,
        prompt: str,
        config: SamplingConfig,
        n_samples: int = 1,
        max_tokens: int | None = 500,
        stop: bool = True,
        compiled: bool | None = None,
    ) -> Iterator[NDArray[np.int64]]:
        """Continue a prompt; yields (n_samples,) token ids, FINISHED after the end.

        Args:
            prompt: comes first, and is not part of what is yielded; empty as in `request`.
            config: how tokens are drawn; sample number n from 0 on has the seed `config.seed + n`.
            n_samples: texts side by side.
            max_tokens: of each; None is without end.
            stop: whether a text ends where the model ends its document.
            compiled: as in `batch`.

        Raises:
            UserError: the prompt has something that the vocabulary lacks.
        """
        require_length(max_tokens)
        if max_tokens == 0:
            return iter(())
        requests = [
            self.request(prompt, config.of_text(number), max_tokens, stop)
            for number in range(n_samples)
        ]
        return in_step(self.batch(n_samples, compiled), requests)

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 500,
        stop: bool = True,
        compiled: bool | None = None,
        novel: int = 0,
        **sampling: Unpack[SamplingSettings],
    ) -> str:
        """Write a text that goes on from a prompt; the prompt is not part of it.

        Args:
            prompt: any text that the vocabulary knows; empty begins a document.
            max_tokens: the text ends after so many, if not before.
            stop: whether it ends where the model ends its document; if not, an empty line stands
                between two documents.
            compiled: whether the compiled decoder is used; None where it can be.
            novel: at most so many letters and digits in a row as they stand in the training text;
                0 is no limit.
            sampling: temperature, top_k, top_p, min_p, repetition_penalty, stop_strings, logprobs
                (of no use here) and seed, as in `SamplingConfig`.

        Raises:
            UserError: the prompt has something that the vocabulary lacks, or a setting is wrong.
        """
        (text,) = self.generate_batch(
            [prompt],
            max_tokens=max_tokens,
            stop=stop,
            compiled=compiled,
            novel=novel,
            **sampling,
        )
        return text

    def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int = 500,
        stop: bool = True,
        compiled: bool | None = None,
        novel: int = 0,
        **sampling: Unpack[SamplingSettings],
    ) -> list[str]:
        """Write a text for each prompt: `generate_batch(["ROMEO:"] * 3)` gives three.

        With a seed, text number n from 0 on is what `generate` writes with the seed `seed + n`.

        Args:
            prompts: as in `generate`, in any number.
            max_tokens, stop, compiled, novel, sampling: as in `generate`.

        Returns:
            The texts, in the order of their prompts.

        Raises:
            UserError: as `generate`.
        """
        if isinstance(prompts, str):
            raise UserError(
                f"prompts must be a list of texts, got the text {prompts!r}. "
                f"Use generate(...) for one, or generate_batch([...])."
            )
        config = from_table(SamplingConfig, sampling)
        guard = self.guard(novel) if novel else None
        texts = [""] * len(prompts)
        for number, drawn in self.write(prompts, config, max_tokens, stop, compiled, guard):
            texts[number] += drawn.text
        return texts

    def write(
        self,
        prompts: Sequence[str],
        config: SamplingConfig,
        max_tokens: int | None = 500,
        stop: bool = True,
        compiled: bool | None = None,
        guard: Guard | None = None,
    ) -> Iterator[tuple[int, Drawn]]:
        """Write a text for each prompt, and give every token as it comes.

        Args:
            prompts, max_tokens, stop, compiled: as in `generate_batch`; None is without end.
            config: how tokens are drawn; text number n from 0 on has the seed `config.seed + n`.
            guard: against copies.

        Returns:
            Numbers of prompts, and their next tokens.

        Raises:
            UserError: as `generate`.
        """
        require_length(max_tokens)
        requests = [
            self.request(prompt, config.of_text(number), max_tokens or None, stop, guard)
            for number, prompt in enumerate(prompts)
        ]
        if max_tokens == 0 or not requests:
            return iter(())
        return write(self.batch(min(len(requests), AT_ONCE), compiled), requests)

    def batch(
        self, capacity: int, compiled: bool | None = None, reader: Reader | None = None
    ) -> Batch:
        """Make room to write so many texts at a time, which join as a `request` and leave.

        Args:
            capacity: most texts at a time.
            compiled: as in `reader`.
            reader: another one; `compiled` is then of no meaning.
        """
        return Batch(
            reader or self.reader(compiled),
            capacity,
            tokenizer=self.tokenizer,
            excluded=self.never_drawn(),
        )

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 500,
        compiled: bool | None = None,
        **sampling: Unpack[SamplingSettings],
    ) -> str:
        """Answer in a conversation: `chat([{"role": "user", "content": "Why?"}])`.

        Where it is longer than the model reads at once, its oldest turns are left out.

        Args:
            messages: role (system, user or assistant) and content of each; the last is answered.
            max_tokens: the answer ends after so many, if not before, or where the context does.
            compiled, sampling: as in `generate`.

        Raises:
            UserError: the model never learned conversations, the vocabulary lacks something that
                is said, or the last turn is too long with what the system said.
        """
        require_chat(self.tokenizer, self.run.word)
        length = self.config.context_length
        prompt = make_prompt(self.tokenizer, messages, length, max_tokens)
        config = from_table(SamplingConfig, sampling)
        batch = self.batch(1, compiled)
        return "".join(answer(batch, self.tokenizer, prompt.token_ids, config, max_tokens))

    def request(
        self,
        prompt: str | Sequence[int],
        config: SamplingConfig,
        max_tokens: int | None = None,
        stop: bool = True,
        guard: Guard | None = None,
        after: str | None = None,
    ) -> Request:
        """Say what a `batch` is to write.

        An empty prompt begins where a document does: with `<bos>`, after its end-of-document
        token, or after a line end where the vocabulary has neither.

        Args:
            prompt: a text, or token ids that are taken as they are.
            config: how tokens are drawn; its seed is that of this text.
            max_tokens: the text ends after so many, 1 or more, if not before; None is without end.
            stop: whether it ends where the model ends its document.
            guard: against copies.
            after: the text of token ids, where it is known.

        Raises:
            UserError: the prompt has something that the vocabulary lacks.
        """
        if isinstance(prompt, str):
            prompt, after = self.prompt_ids(prompt), prompt
        elif after is None:
            after = self.tokenizer.decode(prompt, skip_special=True)
        return Request(
            prompt=prompt,
            config=config,
            max_tokens=max_tokens,
            stop_tokens=self.tokenizer.ends if stop else (),
            after=after,
            draw=draw if guard is None else guard.of_text(),
        )

    def guard(self, novel: int) -> Guard:
        """Make what lets no more than `novel` letters and digits in a row be written as they stand
        in the training text, or in that of a run before it.
        """
        return guard_of(self.run, self.learned(), self.tokenizer, novel)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt; an empty one as in `request`."""
        if not prompt:
            return [self.start_token]
        begin = self.tokenizer.begin
        prompt_ids = self.tokenizer.encode_prompt(prompt).tolist()
        return prompt_ids if begin is None else [begin, *prompt_ids]

    @property
    def start_token(self) -> int:
        """The token that an empty prompt begins with."""
        if (begin := self.tokenizer.begin) is not None:
            return begin
        newline = self.tokenizer.encode("\n")
        known = len(newline) and newline[-1] != self.tokenizer.unknown
        many = len(self.run.corpus()["sources"]) != 1
        end = self.tokenizer.end_of_document
        if end is not None and (many or not known):
            return end
        return int(newline[-1])

    def never_drawn(self) -> Mask:
        """(V,) rows that only pad the head, and the unknown token."""
        excluded = np.arange(self.config.vocab_size) >= self.tokenizer.vocab_size
        if self.tokenizer.unknown is not None:
            excluded[self.tokenizer.unknown] = True
        return excluded


@dataclass(frozen=True, repr=False)
class CompiledWriter(Writer):
    """Writes by the compiled decoder alone."""

    run: Run
    checkpoint: Checkpoint
    shape: ModelConfig
    compiled: Reader
    tokenizer: Tokenizer
    complaints: list[str]

    @property
    def config(self) -> ModelConfig:
        return self.shape

    def reader(self, compiled: bool | None = None) -> Reader:
        assert compiled is not False, "there is no other one"
        return self.compiled
