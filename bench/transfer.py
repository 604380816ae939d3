"""How the best learning rates move with the width of a model.

    python -m bench.transfer --steps 600 --seeds 1

Characters of tiny Shakespeare, four layers, heads of 32. For each rate that the defaults have, and
each width, runs at rates a factor of two apart; the other rate of Muon stays at its default. The
best rate is the lowest point of a parabola through the three lowest losses, over the logarithm of
the rate; how it moves is the slope of its logarithm over that of the width: 0 stays, -1 is halved
when the width doubles.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bench.planning import prepared_text
from folio.console import table
from folio.planning.trial import part_of, trial_loss
from folio.recipe.build import choose_for, fit_vocabulary
from folio.recipe.recipe import make_recipe

WIDTHS = (64, 128, 256)
CONTEXT_LENGTH, BATCH_SIZE = 64, 16
VALIDATION_SHARE = 0.25


@dataclass(frozen=True)
class Sweep:
    """One rate of one preset."""

    preset: str
    setting: str
    rates: tuple[float, ...]


SWEEPS = {
    "AdamW, gpt2": Sweep("gpt2", "learning_rate", (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)),
    "Muon, modern": Sweep("modern", "matrix_learning_rate", (0.005, 0.01, 0.02, 0.04, 0.08)),
    "AdamW beside Muon": Sweep("modern", "learning_rate", (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How the best rates move with the width.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    loss_of = trainer(options.steps, options.seeds)
    for name, sweep in SWEEPS.items():
        rows, bests = [], []
        for width in WIDTHS:
            losses = [loss_of(sweep, width, rate) for rate in sweep.rates]
            bests.append(lowest(sweep.rates, losses))
            rows.append([str(width), *(f"{loss:.4f}" for loss in losses), f"{bests[-1]:.2g}"])
            print(name, *rows[-1], flush=True)
        print("\n" + table([name, *(f"{rate:g}" for rate in sweep.rates), "best rate"], rows))
        slope = np.polyfit(np.log(WIDTHS), np.log(bests), 1)[0]
        print(f"the best rate goes as the width to the power of {slope:+.2f}\n", flush=True)


def trainer(steps: int, n_seeds: int) -> Callable[[Sweep, int, float], float]:
    """A function that gives the mean loss of a rate at a width."""
    text = prepared_text("shakespeare")
    validation = part_of(text.validation(), VALIDATION_SHARE)

    def loss_of(sweep: Sweep, width: int, rate: float) -> float:
        recipe = make_recipe(
            {
                "preset": sweep.preset,
                "model": {
                    "n_layers": 4,
                    "n_heads": width // 32,
                    "d_model": width,
                    "context_length": CONTEXT_LENGTH,
                },
                "optimizer": {sweep.setting: rate},
                "training": {"batch_size": BATCH_SIZE},
            }
        )
        recipe = fit_vocabulary(recipe, text.tokenizer.vocab_size)
        device = choose_for(recipe)
        return statistics.mean(
            trial_loss(replace(recipe, seed=seed), device, steps, text.training(), validation)
            for seed in range(1, n_seeds + 1)
        )

    return loss_of


def lowest(rates: tuple[float, ...], losses: list[float]) -> float:
    """Where the parabola through the three lowest neighbours has its lowest point.

    >>> rates = (1.0, 2.0, 4.0, 8.0)
    >>> round(lowest(rates, [np.log(rate / 3) ** 2 for rate in rates]), 6)
    3.0
    """
    middle = min(max(int(np.argmin(losses)), 1), len(losses) - 2)
    near = slice(middle - 1, middle + 2)
    a, b, _ = np.polyfit(np.log(rates[near]), losses[near], 2)
    found = np.exp(-b / (2 * a)) if a > 0 else rates[int(np.argmin(losses))]
    return float(np.clip(found, rates[0], rates[-1]))


if __name__ == "__main__":
    main()
