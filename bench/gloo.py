"""Whether a step of several processes is the sum that `folio plan --gpus` takes it for.

    python -m bench.gloo                # two processes of this machine, gloo, a core each

Three times are measured: an all-reduce alone; a plain step of half of a batch, both processes at
it; and the same as a DistributedStep. The wire is fitted to the smallest and the largest
all-reduce; the others, and all steps, are predicted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from folio.console import table
from folio.device import Device, DeviceConfig
from folio.model.gpt import GPT
from folio.planning.step_cost import GRADIENT_BYTES
from folio.recipe.recipe import Recipe, make_recipe
from folio.tokens.stream import Batch
from folio.training.distributed import DistributedStep, Processes
from folio.training.step import PlainStep
from folio.workers import ProcessPool

SIZES = ("nano", "micro", "mini", "baby")
VOCABULARY = 65
WINDOWS = {"nano": 8, "micro": 16, "mini": 8, "baby": 8}
"""Of a batch, of both processes together."""
ROUNDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps by two processes, measured and predicted.")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    found = [together(2, lambda group, s=size: times(group, s, options.rounds)) for size in sizes]
    # The slower of both processes counts: they wait for each other.
    found = [tuple(map(max, zip(*both))) for both in found]
    n_bytes = [GRADIENT_BYTES * recipe_of(size).model.n_parameters for size in sizes]
    wire = fit_wire(n_bytes, [alone for alone, _, _ in found])
    rows = []
    for size, n, (alone, computing, whole) in zip(sizes, n_bytes, found):
        sending = wire(n)
        rows.append(
            [
                size,
                f"{n / 1e6:.1f} MB",
                *(f"{1e3 * t:.1f} ms" for t in (alone, sending, computing, whole)),
                f"{1e3 * (computing + sending):.1f} ms",
                f"{(computing + sending) / whole:.2f}",
            ]
        )
    header = ["size", "gradients", "all-reduce", "fitted", "half a batch", "step", "predicted"]
    print(table([*header, "ratio"], rows))


def fit_wire(n_bytes: list[int], seconds: list[float]) -> Callable[[int], float]:
    """Latency and bandwidth from the smallest and the largest; of two processes each sends all."""
    per_byte = (seconds[-1] - seconds[0]) / max(n_bytes[-1] - n_bytes[0], 1)
    return lambda n: seconds[0] + per_byte * (n - n_bytes[0])


def recipe_of(size: str) -> Recipe:
    given = {"preset": "gpt2", "size": size, "model": {"vocab_size": VOCABULARY}}
    return make_recipe(given, {"training": {"batch_size": WINDOWS[size]}})


def times(group: Processes, size: str, rounds: int) -> tuple[float, float, float]:
    """Seconds of an all-reduce, of a plain step of a share, and of a step together."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    recipe = recipe_of(size)
    config = DeviceConfig(kind="cpu", precision="float32", threads=1, fast="off")
    model = GPT(recipe.model)
    step = PlainStep(model, Device(config, "bench"), recipe.training, recipe.optimizer)
    shared = DistributedStep(step, model, group, 1, VOCABULARY)
    shape = (recipe.training.batch_size, recipe.model.context_length)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, shape)
    batch, half = Batch(ids, ids), Batch(ids[: len(ids) // 2], ids[: len(ids) // 2])
    row = torch.zeros(recipe.model.n_parameters)

    def alone() -> None:
        group.all_reduce(row)

    def computing() -> None:
        step.update(1.0, step.backward(half, 1).norm)

    def whole() -> None:
        shared.update(1.0, shared.backward(batch, 1).norm)

    return tuple(typical(group, work, rounds) for work in (alone, computing, whole))  # type: ignore[return-value]


def typical(group: Processes, work: Callable[[], None], rounds: int) -> float:
    """Seconds, the lowest tenth; all begin together."""
    found, flag = [], torch.zeros(1)
    for _ in range(rounds + 2):
        group.all_reduce(flag)
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return float(np.percentile(found[2:], 10))


def together(n: int, work: Callable[[Processes], Any]) -> list[Any]:
    """The answers of n processes, of which this is the first."""
    with tempfile.TemporaryDirectory() as folder:

        def phase(rank: int, _: Any) -> Any:
            store = distributed.FileStore(str(Path(folder, "store")), n)  # pyright: ignore[reportPrivateImportUsage]
            distributed.init_process_group(
                "gloo", store=store, rank=rank, world_size=n, timeout=timedelta(seconds=300)
            )
            try:
                return work(Processes(rank, n, store))
            finally:
                distributed.destroy_process_group()

        pool = ProcessPool(n, [[phase]], lambda: None)
        try:
            return pool.run(0, [None] * n)
        finally:
            pool.close()


if __name__ == "__main__":
    main()
