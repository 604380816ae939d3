"""How the cost of training grows: with the parameters, the context, and the length of the text.

    python -m bench.cost --picture docs/cost.svg

Each row is `folio train` as a process of its own, preset modern, some steps long. The time is that
of a step in the middle, as the run notes it; the memory is the peak of all its processes together,
looked at from outside fifty times a second, what they share counted once (Linux only). Where one
thing grows, the rest stays: 4,096 characters a step, and 1 MB of text.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.planning import watch
from bench.standard_library import standard_library
from folio.config import read_toml
from folio.console import table
from folio.recipe.recipe import make_recipe

STEPS = 12
TOKENS = 4096
"""In a step."""
MEGABYTE = 10**6

WIDTHS = {0.3: (3, 96), 0.8: (4, 128), 1.8: (4, 192), 4.8: (6, 256), 10.7: (6, 384), 30.0: (9, 512)}
"""Millions of parameters, about -> layers and width."""
CONTEXTS = (64, 128, 256, 512, 1024)
MEGABYTES = (1, 10, 100)


@dataclass(frozen=True)
class Case:
    """One run."""

    series: str
    label: str
    place: float
    """On the axis of its series."""
    n_layers: int = 4
    d_model: int = 192
    context_length: int = 256
    megabytes: int = 1


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    parameters: int
    milliseconds: float
    """A step."""
    first_step: float
    """Seconds from the command to the end of the first step."""
    memory: float
    """Bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost of training grows.")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    cases = [
        *(Case("parameters", f"{n} M", n, *shape) for n, shape in WIDTHS.items()),
        *(Case("context", f"{t:,}", t, context_length=t) for t in CONTEXTS),
        *(Case("text", f"{n} MB", n, 4, 128, 128, n) for n in MEGABYTES),
    ]
    costs, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for size in MEGABYTES:
            write_text(Path(folder, f"{size}.txt"), size * MEGABYTE)
        for case in cases:
            costs[case] = cost = run(case, Path(folder))
            rows.append(
                [
                    case.series,
                    case.label,
                    f"{cost.parameters / 1e6:.2f} M",
                    f"{cost.milliseconds:.0f}",
                    f"{TOKENS / cost.milliseconds * 1e3:,.0f}",
                    f"{cost.first_step:.1f}",
                    f"{cost.memory / MEGABYTE:,.0f}",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
    names = ["grows", "to", "parameters", "ms a step", "tokens/s", "s to the first step", "MB"]
    print("\n" + table(names, rows))
    if options.picture:
        draw(options.picture, costs)


def write_text(path: Path, n_bytes: int) -> None:
    """The standard library's sources, in ASCII, over and over."""
    sources = "".join(standard_library(6 * MEGABYTE).values())
    text = sources.encode("ascii", "ignore")
    with path.open("wb") as file:
        while n_bytes > 0:
            n_bytes -= file.write(text[:n_bytes])


def run(case: Case, folder: Path) -> Cost:
    """Train some steps and look at the memory meanwhile."""
    runs = folder / case.series / case.label.replace(" ", "")
    command = [sys.executable, "-m", "folio", "train", f"{folder}/{case.megabytes}.txt"]
    settings = {
        "name": "cost",
        "model.n-layers": case.n_layers,
        "model.n-heads": case.d_model // 32,
        "model.d-model": case.d_model,
        "model.context-length": case.context_length,
        "training.batch-size": TOKENS // case.context_length,
        "training.max-steps": STEPS,
        "training.log-interval": 1,
        "tokenizer.kind": "character",
        # An evaluation reads the whole of it, and is not what is measured.
        "corpus.validation-fraction": 0.01 / case.megabytes,
    }
    command += [f"--{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"FOLIO_RUNS": str(runs), "FOLIO_CACHE": str(folder / "cache")}
    begin, first_step = time.time(), 0.0
    metrics = runs / "cost" / "metrics.jsonl"

    def look() -> None:
        nonlocal first_step
        if not first_step and metrics.exists() and '"step"' in metrics.read_text():
            first_step = time.time() - begin

    memory = watch(command, environment, look=look)
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    seconds = [event["seconds"] for event in events if event["event"] == "step"]
    steps = [after - before for before, after in pairwise(seconds)]
    n_parameters = make_recipe(read_toml(runs / "cost" / "recipe.toml")).model.n_parameters
    return Cost(n_parameters, 1e3 * statistics.median(steps), first_step, memory)


def draw(path: Path, costs: dict[Case, Cost]) -> None:
    """A column for each series: the time of a step above, the memory below."""
    from matplotlib.figure import Figure

    labels = {
        "parameters": "millions of parameters",
        "context": "context, at 4,096 characters a step",
        "text": "MB of text",
    }
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    pictures = figure.subplots(2, len(labels), sharex="col", sharey="row")
    for column, (series, label) in zip(pictures.T, labels.items()):
        chosen = {case: cost for case, cost in costs.items() if case.series == series}
        places = [case.place for case in chosen]
        figures = (
            [cost.milliseconds for cost in chosen.values()],
            [cost.memory / MEGABYTE for cost in chosen.values()],
        )
        for axes, values, color in zip(column, figures, ("#2563eb", "#ea580c")):
            axes.plot(places, values, "o-", color=color, markersize=4)
            axes.set(xscale="log", xticks=places, ylim=(0, None))
            axes.set_xticklabels([case.label.removesuffix(" M") for case in chosen])
            axes.minorticks_off()
            axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        column[1].set_xlabel(label)
    pictures[0][0].set_ylabel("ms a step")
    pictures[1][0].set_ylabel("MB at the peak")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
