"""What `folio train TEXT --minutes 5` chooses, against the textbook in the same time.

    python -m bench.defaults --minutes 5 --seeds 3

The textbook is the gpt2 preset with AdamW and cosine; size and dropout are chosen by the minutes
for both. Texts: python-docs and 5 MB of the standard library's sources. Each run is a command of
its own, in turn; compared are bits per byte of the held-out text, so that tokenizers may differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.standard_library import standard_library
from folio.console import table

CONTENDERS = {
    "default": [],
    "textbook": ["--preset=gpt2", "--optimizer.kind=adamw", "--schedule.kind=cosine"],
}
LIBRARY_BYTES = 5_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description="The default recipe against the textbook.")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows, by_text = [], {}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "library")
        for path, text in standard_library(LIBRARY_BYTES).items():
            target = library / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="")
        # A seed of all texts before the next seed, so that a stop in between leaves whole seeds.
        for seed in range(1, options.seeds + 1):
            for source in ("python-docs", str(library)):
                words = [source, f"--minutes={options.minutes}", f"--seed={seed}"]
                losses = [
                    train(
                        [*words, *flags], f"{Path(source).name}-{seed}-{name}", Path(folder, "runs")
                    )
                    for name, flags in CONTENDERS.items()
                ]
                change = 100 * (losses[0] / losses[1] - 1)
                by_text.setdefault(Path(source).name, []).append(change)
                row = [Path(source).name, str(seed), *(f"{loss:.4f}" for loss in losses)]
                rows.append([*row, f"{change:+.1f}"])
                print("  ".join(rows[-1]), flush=True)
    names = ["text", "seed", *(f"{name}, bits per byte" for name in CONTENDERS), "differs by %"]
    print("\n" + table(names, rows))
    for text, changes in by_text.items():
        print(f"{text}: {statistics.mean(changes):+.1f} % on the mean of {len(changes)} seeds")


def train(words: list[str], name: str, runs: Path) -> float:
    """Bits per byte of the validation text, by `folio evaluate`."""
    environment = os.environ | {"FOLIO_RUNS": str(runs)}

    def folio(*words: str) -> str:
        command = [sys.executable, "-m", "folio", *words]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()

    folio("train", *words, f"--name={name}")
    scores = json.loads(folio("evaluate", name, "--json"))
    return next(score["bits_per_byte"] for score in scores if score["protocol"] == "exact")


if __name__ == "__main__":
    main()
