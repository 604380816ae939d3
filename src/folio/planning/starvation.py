"""Is the text the limit? Trains a small model on 12 % to 100 % of it, and one twice as large on
all.

Each part gets the same number of epochs, hence steps in proportion, and the whole schedule: the
points differ in the text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from folio.config import Table, merge
from folio.device import Device
from folio.planning.power_law import PowerLaw, fit_power_law
from folio.planning.trial import part_of, trial_loss
from folio.recipe.recipe import make_recipe
from folio.tokenizers.base import TokenIds

SHARES = (0.12, 0.25, 0.5, 1.0)
EPOCHS = 6.0
MOST_TOKENS = 3_000_000
"""Most tokens that the training on the whole text reads, which takes minutes. A longer text gets
fewer epochs, and if that is less than one, only a part of it is read and the rest extrapolated."""
SMALL: Table = {
    "preset": "modern",
    "size": "nano",
    "model": {"n_layers": 4, "n_heads": 2, "d_model": 64, "context_length": 64},
    "optimizer": {"learning_rate": 3e-3},
    "training": {"batch_size": 8},
}
"""0.2 M parameters without the embedding: 10 ms per step on a CPU."""


@dataclass(frozen=True)
class Starvation:
    """The losses that were measured."""

    points: list[tuple[int, float]]
    """Tokens of training text and loss in nats per token, for each part."""
    law: PowerLaw
    twice_the_model: float
    """Loss in nats per token of a model with twice the layers, on the largest part."""
    n_tokens: int
    """Size of the whole text, which may be larger than all parts."""

    @property
    def gain_from_text(self) -> float:
        """Nats per token that twice the text would gain."""
        return self.law(self.n_tokens) - self.law(2 * self.n_tokens)

    @property
    def gain_from_model(self) -> float:
        """Nats per token that twice the model gained."""
        return self.points[-1][1] - self.twice_the_model

    def record(self) -> dict[str, Any]:
        """Return what --json prints."""
        low, high = self.law.interval(2 * self.n_tokens, self.n_tokens)
        return {
            "tokens": self.n_tokens,
            "points": [{"tokens": n, "loss": loss} for n, loss in self.points],
            "floor": self.law.floor,
            "exponent": self.law.exponent,
            "twice_the_text": -self.gain_from_text,
            "twice_the_text_interval": [low, high],
            "twice_the_model": -self.gain_from_model,
        }

    def lines(self) -> list[str]:
        """The result in words."""
        low, high = self.law.interval(2 * self.n_tokens, self.n_tokens)
        text, model = self.gain_from_text, self.gain_from_model
        limit = "the text is the limit" if text > model else "the model is the limit"
        read = self.points[-1][0]
        beyond = f"measured on {read:,} of {self.n_tokens:,} tokens, and extrapolated beyond that"
        return [
            f"L(D) = {self.law.floor:.2f} + {self.law.scale:.2f} * (D / {self.law.unit:,.0f})^"
            f"-{self.law.exponent:.2f} nats per token",
            f"twice the text would change the loss by {-text:+.3f} ({low:+.3f} to {high:+.3f}), "
            f"twice the model by {-model:+.3f}: for a small model {limit}",
            *([beyond] if self.n_tokens > MOST_TOKENS else []),
        ]


def measure_starvation(
    training: TokenIds,
    validation: TokenIds,
    vocab_size: int,
    device: Device,
    tell: Callable[[str], None],
    shares: Sequence[float] = SHARES,
) -> Starvation:
    """Train the small model on parts of a text.

    Args:
        training, validation: token ids.
        vocab_size: vocabulary size of the models.
        device: the device to train on.
        tell: receives a line for each training.
        shares: parts of the text to train on; the last is 1.
    """
    n_tokens = len(training)
    training = part_of(training, min(1.0, MOST_TOKENS / n_tokens))
    epochs = min(EPOCHS, MOST_TOKENS / len(training))
    recipe = make_recipe(merge(SMALL, {"model": {"vocab_size": vocab_size}}))
    per_step = recipe.training.batch_size * recipe.model.context_length

    def loss_on(tokens: TokenIds, n_layers: int) -> float:
        sized = replace(recipe, model=replace(recipe.model, n_layers=n_layers))
        steps = max(1, round(epochs * len(tokens) / per_step))
        return trial_loss(sized, device, steps, tokens, validation)

    points = []
    for share in shares:
        part = part_of(training, share)
        points.append((len(part), loss_on(part, recipe.model.n_layers)))
        tell(f"{len(part):,} of {n_tokens:,} tokens: loss {points[-1][1]:.3f}")
    twice = loss_on(training, 2 * recipe.model.n_layers)
    tell(f"twice the model on as many: loss {twice:.3f}")
    law = fit_power_law([n for n, _ in points], [loss for _, loss in points])
    return Starvation(points, law, twice, n_tokens)
