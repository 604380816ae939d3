"""Whether the minutes are kept: whole commands, on a quiet machine and beside another program.

    python -m bench.minutes --minutes 0.5,2 --sizes nano,mini --rounds 3

Each case is `folio train TEXT --minutes M --size S` as a process of its own, from its start to its
end, sample and held-out text included. The other program keeps every core busy for its whole time,
in the first five seconds or from the fifth second on. Told are the seconds of each round and the
worst of them beside the promise, which is 10 % either way.
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

from folio.console import table

PROMISE = 0.10
SECONDS = 5.0
"""At which the other program goes or comes."""
HOG = "while True: pass"

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


def run(
    minutes: float, size: str, busy: Busy, text: str, folder: Path
) -> tuple[float, int, float | None]:
    """One command: its seconds, the steps that it made and its best validation loss."""
    name = f"run-{time.time_ns()}"
    environment = os.environ | {"FOLIO_RUNS": str(folder)}
    command = [sys.executable, "-m", "folio", "train", text, "--name", name]
    command += ["--minutes", str(minutes), "--size", size]
    begin = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
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
    return seconds, events[-1]["step"], min(losses, default=None)


def start() -> list[subprocess.Popen[bytes]]:
    """Keep every core busy."""
    return [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(os.cpu_count() or 1)]


def stop(processes: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """End processes; returns none."""
    for process in processes:
        process.kill()
        process.wait()
    return []


def row(
    minutes: float, size: str, neighbour: str, rounds: list[tuple[float, int, float | None]]
) -> list[str]:
    """A row of the table."""
    asked = 60 * minutes
    worst = max((seconds / asked - 1 for seconds, _, _ in rounds), key=abs)
    return [
        f"{minutes:g}",
        size,
        neighbour,
        ", ".join(f"{seconds:.1f}" for seconds, _, _ in rounds),
        ", ".join(f"{steps:,}" for _, steps, _ in rounds),
        ", ".join("-" if loss is None else f"{loss:.3f}" for _, _, loss in rounds),
        f"{worst:+.1%}",
        "yes" if abs(worst) <= PROMISE else "no",
    ]


if __name__ == "__main__":
    main()
