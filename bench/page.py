"""How much longer a run takes that keeps a page, and where the time goes.

    python -m bench.page --sizes nano --steps 200 --evaluations 10 --rounds 3

The same run with and without `training.page`, in turn, on the text that every Python carries. The
ratio is of the seconds of the whole `folio.train`. The parts are timed within the runs with a page:
sorting the held-out tokens once, then at each evaluation a sample and writing the page.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import folio
from bench.training import spread
from folio.recipe.keep_learned import LearnedRecorder
from folio.recipe.keep_page import PageKeeper

PARTS = {
    "sorting tokens": (LearnedRecorder, "__init__"),
    "sample": (LearnedRecorder, "_sample"),
    "sample and losses": (LearnedRecorder, "evaluated"),
    "page": (PageKeeper, "_write"),
}
"""What is timed, by the method that does it. The third has the second within it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What keeping a page costs a run.")
    parser.add_argument("--sizes", default="nano")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times = defaultdict[str, list[float]](list)
    for part, (owner, method) in PARTS.items():
        setattr(owner, method, timed(getattr(owner, method), times[part]))
    with tempfile.TemporaryDirectory(prefix="folio-page-") as folder:
        os.environ["FOLIO_RUNS"] = folder
        for size in options.sizes.split(","):
            interval = max(1, options.steps // options.evaluations)
            compare(size, options.steps, interval, options.rounds, times)


def timed(method: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """A method that also appends to a list how long each call took."""

    @wraps(method)
    def call(*args: Any, **settings: Any) -> Any:
        begin = time.perf_counter()
        try:
            return method(*args, **settings)
        finally:
            seconds.append(time.perf_counter() - begin)

    return call


def compare(
    size: str, steps: int, interval: int, rounds: int, times: dict[str, list[float]]
) -> None:
    ratios = list[float]()
    for turn in range(rounds + 1):
        if turn <= 1:  # the first pair compiles and fills caches
            for seconds in times.values():
                seconds.clear()
        without, end = train(size, steps, interval, page=False)
        with_page, same_end = train(size, steps, interval, page=True)
        assert end == same_end, "a page must not change what is learned"
        if turn:
            ratios.append(with_page / without)
        print(f"{size}, pair {turn}: {without:.1f} s, {with_page:.1f} s with a page", flush=True)
    print(f"{size}: {steps} steps, {steps // interval} evaluations, ratio {spread(ratios)}")
    for part, seconds in times.items():
        print(f"  {part:18} {spread([1e3 * one for one in seconds])} ms", flush=True)


def train(size: str, steps: int, interval: int, page: bool) -> tuple[float, float]:
    """Seconds of the run, and its last validation loss."""
    training = {"max_steps": steps, "evaluation_interval": interval, "page": page}
    begin = time.perf_counter()
    run = folio.train("python-docs", size=size, training=training).run
    return time.perf_counter() - begin, run.events("evaluation")[-1]["validation_loss"]


if __name__ == "__main__":
    main()
