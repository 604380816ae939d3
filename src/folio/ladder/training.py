"""How steps 0 to 6 are trained: a plain loop, the same for each.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from folio.device import DeviceConfig, choose_device
from folio.evaluation.score import exact_score, sampled_windows, score
from folio.generation.sampling import SamplingConfig, draw, exclude
from folio.ladder.sizes import Sizes
from folio.ladder.steps import Step, build_model
from folio.model.loss import next_token_loss
from folio.recipe.prepare import Prepared
from folio.tokens.stream import StreamConfig, TokenStream

BATCH_SIZE = 32
MAX_STEPS = 5000
EVALUATION_INTERVAL = 500


@dataclass(frozen=True)
class Evaluation:
    """Losses at one point of training, in nats per token."""

    step: int
    training_loss: float
    """Loss on windows spread over the training text, with as many tokens as the validation text."""
    validation_loss: float
    """Exact loss on the whole validation text."""


@dataclass(frozen=True)
class LadderResult:
    """The result of training one step of the ladder."""

    step: Step
    seed: int
    model: nn.Module
    sizes: Sizes
    seconds: float
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def validation_loss(self) -> float:
        """Validation loss at the end, in nats per token."""
        return self.evaluations[-1].validation_loss

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def climb(
    step: Step,
    text: Prepared,
    *,
    seed: int = 1,
    max_steps: int = MAX_STEPS,
    evaluation_interval: int | None = None,
    build: Callable[[Sizes], nn.Module] | None = None,
    show: Callable[[Evaluation], None] = lambda evaluation: None,
) -> LadderResult:
    """Train one step of the ladder on a text.

    Args:
        step: which step.
        text: the tokens of both parts.
        seed: seed of weights and order; equal seeds give equal weights in the end.
        max_steps: number of optimizer steps.
        evaluation_interval: steps between evaluations; EVALUATION_INTERVAL by default.
        build: builds the model; by default the step does.
        show: is called with each evaluation as it is made.
    """
    # Matmuls this small are over before a second thread has woken up.
    choose_device(DeviceConfig(kind="cpu", precision="float32", threads=1))
    began = time.perf_counter()
    sizes = Sizes(vocab_size=text.tokenizer.vocab_size)
    training, validation = text.training(), text.validation()
    stream = TokenStream(training, sizes.context_length, seed, StreamConfig())
    sampled = sampled_windows(len(training), sizes.context_length, len(validation))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = build(sizes) if build is not None else build_model(step, sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=step.learning_rate, fused=True)
    evaluations = []
    interval = evaluation_interval or EVALUATION_INTERVAL

    for number in range(1, max_steps + 1):
        batch = stream.next_batch(BATCH_SIZE)
        logits = model(torch.from_numpy(batch.inputs))  # (B, T) -> (B, T, V)
        loss = next_token_loss(logits, torch.from_numpy(batch.targets))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        if number % interval == 0 or number == max_steps:
            training_loss = score(model, training, sampled, "estimate").nats_per_token
            validation_loss = exact_score(model, validation, sizes.context_length).nats_per_token
            evaluations.append(Evaluation(number, training_loss, validation_loss))
            show(evaluations[-1])

    return LadderResult(step, seed, model, sizes, time.perf_counter() - began, evaluations)


@torch.no_grad()
def write(result: LadderResult, text: Prepared, n_characters: int, seed: int = 1) -> str:
    """Generate text with a trained step, one token at a time, each from those before it."""
    tokenizer = text.tokenizer
    excluded = np.zeros(tokenizer.vocab_size, np.bool_)
    excluded[list(tokenizer.special_tokens.values())] = True
    generator = random.Random(seed)
    token_ids = torch.from_numpy(tokenizer.encode("\n")[None].astype("int64"))  # (1, 1)
    for _ in range(n_characters):
        logits = result.model(token_ids[:, -result.sizes.context_length :])  # (1, T, V)
        allowed = exclude(logits[0, -1].float().numpy(), excluded)  # (V,)
        drawn = draw(allowed, SamplingConfig(temperature=1.0), generator)
        token_ids = torch.cat((token_ids, torch.tensor([[drawn]])), dim=1)
    return tokenizer.decode(token_ids[0, 1:].numpy())
