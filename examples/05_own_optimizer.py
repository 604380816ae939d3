"""Train by a loop and an optimizer of your own: here Lion, which moves by signs.

Folio's rooms can be used one by one. This takes its corpus, tokens, model and evaluation, and
writes out what lies between: model -> loss -> backward -> step.

Source: Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2.

Shapes:  B windows in a batch · T context length
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import folio
from folio.evaluation.score import exact_windows, score
from folio.model.gpt import GPT
from folio.model.loss import next_token_loss
from folio.recipe.prepare import prepare
from folio.tokens.stream import TokenStream


class Lion:
    """Each weight moves by the learning rate, whatever the size of its gradient."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float = 3e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.1,
    ) -> None:
        self.parameters = list(parameters)
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.beta1, self.beta2 = beta1, beta2

    @torch.no_grad()
    def step(self) -> None:
        """Move all weights by their gradients, which are then forgotten."""
        for parameter, momentum in zip(self.parameters, self.momenta):
            gradient = parameter.grad
            assert gradient is not None
            update = torch.sign(self.beta1 * momentum + (1 - self.beta1) * gradient)
            parameter.mul_(1 - self.learning_rate * self.weight_decay)
            parameter.sub_(self.learning_rate * update)
            momentum.mul_(self.beta2).add_((1 - self.beta2) * gradient)
            parameter.grad = None


def main(text: str = "python-docs", steps: int = 500, **settings: Any) -> list[float]:
    recipe = folio.Recipe.of(corpus={"sources": [text]}, **settings)
    prepared = prepare(recipe, tell=print)
    config = replace(recipe.model, vocab_size=prepared.tokenizer.vocab_size)
    stream = TokenStream(prepared.training(), config.context_length, recipe.seed, recipe.stream)

    model = GPT(config, torch.Generator().manual_seed(recipe.seed))
    optimizer = Lion(model.parameters())
    losses = []
    for step in range(1, steps + 1):
        batch = stream.next_batch(recipe.training.batch_size)
        inputs, targets = map(torch.from_numpy, batch)  # each (B, T)
        loss = next_token_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step:>5}  loss {losses[-1]:.3f}")

    model.eval()
    validation = prepared.validation()
    windows = exact_windows(len(validation), config.context_length)
    print(f"validation loss {score(model, validation, windows, 'exact').nats_per_token:.3f}")
    return losses


if __name__ == "__main__":
    main()
