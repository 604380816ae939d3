"""What a checkpoint costs a training that waits for it, and one that goes on meanwhile.

    python -m bench.saving --sizes nano,micro,mini

The same steps in turn: without a checkpoint, with one in the foreground, and with one in the
background. `pause` is what the training thread waits for in `save`; `cost` is by how much the steps
and the checkpoint together take longer than the steps alone, which for a checkpoint in the
background is what its thread takes from the cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.training import spread
from folio.config import Table, merge
from folio.recipe.build import build, choose_for
from folio.recipe.recipe import Recipe, make_recipe
from folio.run.directory import Run
from folio.training.loop import update_weights
from folio.training.parts import Training
from folio.training.recorder import RunRecorder
from folio.training.state import TrainingState

STEPS_SECONDS = 2.0
"""Of steps for each checkpoint, so that it is written before they end."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What a checkpoint costs a training.")
    parser.add_argument("--sizes", default="nano,micro,mini")
    parser.add_argument("--preset", default="modern")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for size in options.sizes.split(","):
        recipe = recipe_of({"preset": options.preset, "size": size})
        with tempfile.TemporaryDirectory(dir=Path()) as folder:
            compare(size, recipe, Path(folder), options.rounds)


def recipe_of(table: Table) -> Recipe:
    fixed: Table = {
        "model": {"vocab_size": 512},
        "training": {"max_steps": 1_000_000, "log_interval": 1000, "evaluation_interval": 1000},
    }
    return make_recipe(merge(table, fixed))


def compare(size: str, recipe: Recipe, folder: Path, rounds: int) -> None:
    device = choose_for(recipe)
    tokens = np.random.default_rng(0).integers(0, 512, 200_000).astype(np.uint16)
    training = build(recipe, device, tokens, tokens[:1000])
    recorders = {
        "none": None,
        "foreground": RunRecorder(Run(folder / "foreground"), training, recipe.model),
        "background": RunRecorder(Run(folder / "background"), training, recipe.model, True),
    }
    pauses = {how: list[float]() for how in recorders}
    whole = {how: list[float]() for how in recorders}
    state = TrainingState()
    with training.step.running():
        take_steps(training, state, 5)  # until they are captured
        begin = time.perf_counter()
        take_steps(training, state, 5)
        step_seconds = (time.perf_counter() - begin) / 5
        n_steps = max(2, round(STEPS_SECONDS / step_seconds))
        for _ in range(rounds):
            for how, recorder in recorders.items():
                begin = time.perf_counter()
                if recorder is not None:
                    recorder.save(state)
                pauses[how].append(time.perf_counter() - begin)
                take_steps(training, state, n_steps)
                if recorder is not None:
                    recorder.wait()
                whole[how].append(time.perf_counter() - begin)
    n_bytes = sum(f.stat().st_size for f in next(folder.glob("foreground/checkpoints/*")).iterdir())
    print(f"{size}, {device}: {n_bytes / 1e6:.1f} MB, {1e3 * step_seconds:.0f} ms a step")
    for how in ("foreground", "background"):
        costs = [1e3 * (a - b) for a, b in zip(whole[how], whole["none"])]
        waits = spread([1e3 * x for x in pauses[how]])
        print(f"  {how:12} pause {waits} ms, cost {spread(costs)} ms", flush=True)


def take_steps(training: Training, state: TrainingState, n: int) -> None:
    for _ in range(n):
        batch = training.stream.next_batch(training.config.batch_size, training.context_length)
        update_weights(training, state.step, training.step.backward(batch, state.step))
        state.step += 1


if __name__ == "__main__":
    main()
