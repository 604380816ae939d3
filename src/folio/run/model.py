"""A trained model with its tokenizer, which writes, scores and answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.device import Device
from folio.evaluation.parallel import score_by_workers
from folio.evaluation.score import (
    Score,
    Window,
    both_protocols,
    exact_windows,
    nll_of,
    places_of,
    read_once,
    sampled_windows,
    spread,
)
from folio.evaluation.uncertainty import text_blocks
from folio.fast.accelerate import accelerated_on_cpu
from folio.fast.packing import Precision
from folio.fast.stand_in import applies, versions
from folio.generation.reader import Reader
from folio.generation.readers import reader_for
from folio.generation.scoring import Scored, score_tokens
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams
from folio.run.checkpoint import Checkpoint
from folio.run.directory import Run
from folio.run.writer import Writer
from folio.tokenizers import Tokenizer
from folio.tokenizers.base import TokenIds

MOST_WORK = 8e12
"""Parameters of a model times the tokens that it reads of a text: of 135 million parameters some
four minutes of two cores without bfloat16."""
NGRAM_WORK = 500
"""What n-grams cost for each of their tokens and each id of the vocabulary, as so many parameters.
With 16,384 ids they take twenty times as long as a model of 5 million."""


@dataclass(frozen=True, repr=False)
class Model(Writer):
    """A trained model with its tokenizer, as `folio.load` gives it.

    `generate` continues a prompt, `generate_batch` several, `evaluate` reads a text.
    """

    run: Run
    checkpoint: Checkpoint
    model: GPT
    """The network: (B, T) token ids -> (B, T, V) logits. In evaluation mode."""
    tokenizer: Tokenizer
    complaints: list[str]
    """What was wrong with checkpoints that were skipped, and how the model may differ from the one
    that was trained."""
    weights: Precision = "float32"
    """Precision in which the compiled decoder reads the weights."""
    _readers: dict[Any, Reader] = field(
        default_factory=dict[Any, Reader], init=False, compare=False
    )

    def __repr__(self) -> str:
        return (
            f"Model({str(self.run.path)!r}, step {self.checkpoint.step}, "
            f"{self.model.config.n_parameters:,} parameters)"
        )

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def read_in_minutes(self) -> int:
        """How many tokens the model reads in a few minutes."""
        model = self.model
        return self.tokens_in_minutes(model.ngrams.order if isinstance(model, GPTWithNGrams) else 0)

    def tokens_in_minutes(self, order: int) -> int:
        """The same beside n-grams of up to so many tokens; 0 for none."""
        work = self.config.n_parameters + NGRAM_WORK * order * self.config.vocab_size
        return max(int(MOST_WORK / work), 2)

    def reader(self, compiled: bool | None = None) -> Reader:
        """What computes logits; rebuilt after the model was changed, except through `.data`, which
        torch does not count.

        Args:
            compiled: whether it is the compiled decoder; None takes it where it can be.

        Raises:
            UserError: only the compiled decoder has these `weights`, and it cannot be taken.
        """
        made_for = compiled, self.weights, applies(self.model), versions(self.model)
        if made_for not in self._readers:
            self._readers.clear()
            self._readers[made_for] = reader_for(self.model, compiled, self.weights)
        return self._readers[made_for]

    def evaluate(
        self,
        tokens: TokenIds,
        families: Sequence[int] = (),
        device: Device | None = None,
        loss_mask: NDArray[np.uint8] | None = None,
        most: float = math.inf,
    ) -> list[Score]:
        """Score a text by the exact and the strided protocol, in this order.

        Args:
            tokens: (N,) of one or several documents.
            families: of each document, as in text_blocks.
            device: as in `score`.
            loss_mask: (N,) 1 for each token that counts; None lets all count.
            most: as in `scores`.
        """
        counted = None if loss_mask is None else loss_mask[1:] == 1
        return self.scores(tokens, families, device, counted, most)[0]

    def scores(
        self,
        tokens: TokenIds,
        families: Sequence[int] = (),
        device: Device | None = None,
        counted: NDArray[np.bool_] | None = None,
        most: float = math.inf,
    ) -> tuple[list[Score], NDArray[np.float32]]:
        """Score by both protocols, exact first; also returns (N - 1,) the nats of each target by
        the exact one, nan where it is not read. A window in both is read once.

        Args:
            tokens, families, device: as in `evaluate`.
            counted: (N - 1,) which targets the scores are of; None is all.
            most: tokens that are read; of a longer text, some windows are, evenly spaced.
        """
        exact, strided = both_protocols(len(tokens), self.model.config.context_length, most)
        read = read_once(exact, strided)
        _, whole = self._read(tokens, read, device)
        blocks = text_blocks(tokens, self.tokenizer.end_of_document, families)
        scores: list[Score] = []
        for name, windows in (("exact", exact), ("strided", strided)):
            places, nll = places_of(windows), nll_of(windows, read, whole)
            if counted is not None:
                places, nll = places[counted[places - 1]], nll[counted[places - 1]]
            targets, vocab_size = np.asarray(tokens[places]), self.model.config.vocab_size
            scores.append(Score.of(nll, targets, name, vocab_size, blocks[places]))
        return scores, spread(len(tokens), exact, nll_of(exact, read, whole))

    def score(
        self, tokens: TokenIds, device: Device | None = None
    ) -> tuple[Score, NDArray[np.float32]]:
        """Read a text by the exact protocol.

        Args:
            tokens: (N,) of one or several documents.
            device: in whose precision the text is read; on a processor by as many processes as
                it has threads. None reads here, as the model is.

        Returns:
            The score, and (N - 1,) the nats of each target, in order.
        """
        return self._read(
            tokens, exact_windows(len(tokens), self.model.config.context_length), device
        )

    def nats(
        self, tokens: TokenIds, device: Device | None = None, sample: int = 0
    ) -> NDArray[np.float32]:
        """(N - 1,) the nats of each target by the exact protocol, nan where it is not read.

        Args:
            tokens, device: as in `score`.
            sample: targets that are read, in windows that are evenly spaced; 0 reads all.
        """
        length = self.model.config.context_length
        windows = sampled_windows(len(tokens), length, sample)
        return spread(len(tokens), windows, self._read(tokens, windows, device)[1])

    def _read(
        self, tokens: TokenIds, windows: list[Window], device: Device | None
    ) -> tuple[Score, NDArray[np.float32]]:
        model, world_size = self.model, 1
        if isinstance(model, GPTWithNGrams):
            model = model.reading()
        if device is not None:
            model = copy.deepcopy(model).to(device.torch, device.dtype)
            world_size = device.config.threads if device.config.kind == "cpu" else 1
        reader = accelerated_on_cpu(model)
        return score_by_workers(reader, tokens, windows, "exact", world_size)

    def score_tokens(self, token_ids: Sequence[int], n_alternatives: int = 0) -> list[Scored]:
        """Say how likely each token of a text was, and which ones were likelier; as
        `generation.scoring.score_tokens`.

        Raises:
            UserError: an id that the vocabulary does not have.
        """
        self.tokenizer.decode(token_ids)
        return [*score_tokens(self.model, token_ids, n_alternatives, self.never_drawn())]
