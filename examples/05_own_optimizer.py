"""Train by an optimizer of your own: here Lion, which moves by signs.

A rule says how some parameters move by their gradients, and what it remembers from step to step. A
name in the table OPTIMIZERS makes it an optimizer of any recipe: its checkpoints, schedules and
clipping are those of all others. Whoever goes on with such a run adds the name first.

Source: Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2.

python examples/05_own_optimizer.py
"""

from __future__ import annotations

from typing import Any

import torch

import folio
from folio.training.config import OptimizerConfig
from folio.training.groups import Members
from folio.training.optimizers import OPTIMIZERS, Rule, gradient_of


class Lion(Rule):
    """Each weight moves by the learning rate, whatever the size of its gradient.

    u <- sign(beta1 m + (1 - beta1) g)
    w <- w - lr decay w - lr u
    m <- beta2 m + (1 - beta2) g
    """

    def __init__(self, members: Members, config: OptimizerConfig) -> None:
        super().__init__(members, config)
        self.momenta = [torch.zeros_like(w) for w in self.parameters]
        self.state = {"momentum": self.momenta}

    def step(self, lr_scale: float) -> None:
        """Move each parameter."""
        beta1, beta2 = self.config.beta1, self.config.beta2
        lr = lr_scale * self.config.learning_rate
        for w, m in zip(self.parameters, self.momenta):
            g = gradient_of(w)
            update = torch.sign(beta1 * m + (1 - beta1) * g)
            w.mul_(1 - lr * self.weight_decay).sub_(lr * update)
            m.mul_(beta2).add_((1 - beta2) * g)


def main(text: str = "python-docs", minutes: float | None = 1, **settings: Any) -> folio.Result:
    OPTIMIZERS["lion"] = Lion
    lion = {"kind": "lion", "learning_rate": 3e-4, "weight_decay": 0.3}
    result = folio.train(text, minutes=minutes, optimizer=lion, **settings)
    print(f"validation loss {result.state.best_validation_loss:.3f}")
    return result


if __name__ == "__main__":
    main()
