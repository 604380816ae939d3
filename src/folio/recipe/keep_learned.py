"""Records what a model has learned: at evaluations, from what they have computed anyway.

It draws no random number that training would, and changes nothing that training reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np

from folio.device import one_thread
from folio.evaluation.token_groups import TokenGroups
from folio.generation.reader import Reader
from folio.generation.readers import PlainReader
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.process import peak_memory, running_children
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.metrics import append_event
from folio.run.writer import Writer
from folio.tokenizers import Tokenizer, load
from folio.training.fsdp_step import FSDPStep
from folio.training.parts import Evaluation, Training
from folio.training.state import TrainingState

SAMPLE_TOKENS = 200
SHARE = 0.02
"""Of the time since the last evaluation, that a sample may take."""
LEAST_SECONDS = 0.1
"""That it may take in any case."""


class LearnedRecorder(Watcher):
    """An Observer that writes learned.jsonl, for the page and for loggers."""

    def __init__(self, run: Run, training: Training) -> None:
        """Sort the tokens of the validation text, once."""
        self.run, self.model = run, cast(GPT, training.model)
        self.tokenizer = load(run.tokenizer_file)
        mask = training.validation_mask
        self.groups = TokenGroups.of(
            training.validation,
            self.tokenizer,
            training.validation_cluster,
            None if mask is None else np.asarray(mask) == 1,
        )
        self.sampled_at = 0.0
        # Of a model that processes divide, the whole has the weights of the last checkpoint.
        self.is_whole = not isinstance(training.step, FSDPStep)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        assert evaluation.validation_nll is not None, "the loop gives the nats of each target"
        classes, places = self.groups.losses(evaluation.validation_nll)
        seconds = max(SHARE * (state.seconds - self.sampled_at), LEAST_SECONDS)
        self.sampled_at = state.seconds
        sample = {"sample": self._sample(seconds)} if self.is_whole else {}
        append_event(
            self.run.learned_file,
            {
                "event": "learned",
                "step": state.step,
                "classes": classes,
                "places": places,
                "memory_bytes": peak_memory(running_children()),
                **sample,
            },
        )

    @one_thread()
    def _sample(self, seconds: float) -> str:
        """What the model writes now, always with the same seed."""
        was_training, until, text = self.model.training, time.monotonic() + seconds, ""
        self.model.eval()
        try:
            writer = _Writer(self.run, self.model, self.tokenizer)
            config = SamplingConfig(temperature=0.8, seed=1)
            for _, drawn in writer.write([""], config, SAMPLE_TOKENS, stop=False):
                text += drawn.text
                if time.monotonic() > until:
                    break
        finally:
            self.model.train(was_training)
        return text


@dataclass(frozen=True, repr=False)
class _Writer(Writer):
    """Writes with the model that is being trained."""

    run: Run
    model: GPT
    tokenizer: Tokenizer

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def reader(self, compiled: bool | None = None) -> Reader:
        return PlainReader(self.model)
