"""The fixed opponent, trained on the tokens of a run for as many minutes as the run had.

    folio train notes/ --minutes 5 --name mine
    python -m bench.afternoon runs/mine --minutes 5

It is `bench/plain_loop.py` in the shape of the size nano, with its own rate and all threads. Its
minutes are those of its steps: it has text and vocabulary for nothing. Told are the bits per byte
of the held-out text that the run was evaluated on, in windows of its own length.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import folio
from bench.plain_loop import PlainLoop, Shape
from folio.config import read_toml
from folio.evaluation.score import sampled_windows, score
from folio.recipe.presets import SIZES
from folio.recipe.recipe import make_recipe
from folio.tokens.token_file import open_token_file

SPEED_STEPS = 20
"""Steps by which the number of steps is found."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The fixed opponent, for some minutes.")
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run = folio.load(options.run)
    names = "train", "validation"
    training, validation = (open_token_file(options.run / f"tokens/{n}.bin") for n in names)
    nano = SIZES["nano"]
    shape = Shape(
        vocab_size=run.tokenizer.vocab_size,
        context_length=nano.context_length,
        n_layers=nano.n_layers,
        n_heads=nano.n_heads,
        d_model=nano.d_model,
        batch_size=nano.step_tokens // nano.context_length,
    )
    loop = trained(shape, np.asarray(training), 60 * options.minutes, options.seed)
    recipe = make_recipe(read_toml(run.run.recipe_file))
    n_targets = recipe.training.validation_sample
    windows = sampled_windows(len(validation), shape.context_length, n_targets)
    found = score(loop.model, validation, windows, "exact").record(run.tokenizer)
    print(f"{loop.done:,} of {loop.steps:,} steps; {found['bits_per_byte']:.4f} bits per byte")


def trained(shape: Shape, tokens: np.ndarray, seconds: float, seed: int) -> PlainLoop:
    """Train for some seconds, in as many steps as the first ones promise."""
    loop, begin = PlainLoop(shape, tokens, SPEED_STEPS, seed), 0.0
    for _ in range(SPEED_STEPS + 1):
        loop.step()
        begin = begin or time.perf_counter()  # the first one allocates
    steps = int(seconds * SPEED_STEPS / (time.perf_counter() - begin))
    loop, begin = PlainLoop(shape, tokens, steps, seed), time.perf_counter()
    while loop.done < steps and time.perf_counter() - begin < seconds:
        loop.step()
    return loop


if __name__ == "__main__":
    main()
