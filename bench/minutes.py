"""Whether the minutes are kept: whole commands, on a quiet machine and beside another program.

    python -m bench.minutes --minutes 0.5,2 --sizes nano,mini --rounds 3

Each case is `folio train TEXT --minutes M --size S` as a process of its own, from its start to its
end, sample and held-out text included. The other program keeps every core busy for its whole time,
in the first five seconds or from the fifth second on. Told are the seconds of each round and the
worst of them beside the promise, which is 10 % either way where a step takes less than 2 % of the
time; else the command says at once that the minutes are few, which is "said" here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.busy import keep_core_busy
from folio.console import table

PROMISE = 0.10
SECONDS = 5.0
"""At which the other program goes or comes."""

FEW = "are few here"
"""Told by the command where the promise is not given."""

Busy = Callable[[float], bool]
"""Seconds since the command began -> whether the other program runs."""
NEIGHBOURS: dict[str, Busy] = {
    "none": lambda t: False,
    "in the first 5 s": lambda t: t < SECONDS,
    "from the 5th s on": lambda t: t >= SECONDS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the minutes are kept.")
    parser.add_argument("--minutes", default="0.5,2,10")
    parser.add_argument("--sizes", default="nano,micro,mini")
    parser.add_argument("--neighbours", default=",".join(NEIGHBOURS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", default="shakespeare")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in map(float, options.minutes.split(",")):
            for size in options.sizes.split(","):
                for neighbour in options.neighbours.split(","):
                    rounds = [
                        run(minutes, size, NEIGHBOURS[neighbour], options.text, Path(folder))
                        for _ in range(options.rounds)
                    ]
                    rows.append(row(minutes, size, neighbour, rounds))
                    print("  ".join(rows[-1]), flush=True)
    header = ["minutes", "size", "other program", "seconds", "steps", "loss", "worst", "kept"]
    print(table(header, rows))


class Round(NamedTuple):
    """What came of one command."""

    seconds: float
    steps: int
    loss: float | None
    """Best validation loss."""
    said_few: bool


def run(minutes: float, size: str, busy: Busy, text: str, folder: Path) -> Round:
    """One command."""
    name = f"run-{time.time_ns()}"
    environment = os.environ | {"FOLIO_RUNS": str(folder)}
    command = [sys.executable, "-m", "folio", "train", text, "--name", name]
    command += ["--minutes", str(minutes), "--size", size]
    begin = time.monotonic()
    output = folder / f"{name}.txt"
    with open(output, "wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    others: list[subprocess.Popen[bytes]] = []
    while process.poll() is None:
        if busy(time.monotonic() - begin) != bool(others):
            others = stop(others) if others else start()
        time.sleep(0.02)
    seconds = time.monotonic() - begin
    stop(others)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    lines = (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    losses = [e["validation_loss"] for e in events if e["event"] == "evaluation"]
    said_few = FEW in output.read_text(encoding="utf-8")
    return Round(seconds, events[-1]["step"], min(losses, default=None), said_few)


def start() -> list[subprocess.Popen[bytes]]:
    """Keep every core busy."""
    return [keep_core_busy() for _ in range(os.cpu_count() or 1)]


def stop(processes: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """End processes; returns none."""
    for process in processes:
        process.kill()
        process.wait()
    return []


def row(minutes: float, size: str, neighbour: str, rounds: list[Round]) -> list[str]:
    """A row of the table."""
    asked = 60 * minutes
    late = [(one.seconds / asked - 1, one.said_few) for one in rounds]
    worst = max((share for share, _ in late), key=abs)
    kept = all(abs(share) <= PROMISE for share, _ in late)
    said = all(abs(share) <= PROMISE or said_few for share, said_few in late)
    return [
        f"{minutes:g}",
        size,
        neighbour,
        ", ".join(f"{one.seconds:.1f}" for one in rounds),
        ", ".join(f"{one.steps:,}" for one in rounds),
        ", ".join("-" if one.loss is None else f"{one.loss:.3f}" for one in rounds),
        f"{worst:+.1%}",
        "yes" if kept else "said" if said else "no",
    ]


if __name__ == "__main__":
    main()
