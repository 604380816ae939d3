"""What `folio train TEXT --minutes 5` chooses, against something else in the same time.

    python -m bench.defaults --minutes 5 --seeds 3
    python -m bench.defaults --minutes 5 --seeds 1 --texts python-docs
    python -m bench.defaults --vocabularies 1024,2048,4096,8192 --seeds 1

The first: against the textbook, the gpt2 preset with AdamW and cosine, on python-docs and 5 MB of
the standard library's sources. The second: against byte pairs, on tiny Shakespeare. Size and
dropout are chosen by the minutes for all. Each run is a command of its own, in turn; compared are
bits per byte of the held-out text, since tokenizers differ.
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
from folio.evaluation.score import bits_per_byte
from folio.storage import read_json

TEXTBOOK = ["--preset=gpt2", "--optimizer.kind=adamw", "--schedule.kind=cosine"]
LIBRARY_BYTES = 5_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description="What the minutes choose, against others.")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--texts", default="python-docs,library", help="of the first comparison")
    parser.add_argument("--vocabularies", help="sizes of them, against the default")
    options = parser.parse_args()
    contenders = {"default": [], "textbook": TEXTBOOK}
    if options.vocabularies:
        sizes = options.vocabularies.split(",")
        byte_pairs = [["--tokenizer.kind=bpe", f"--tokenizer.vocab-size={n}"] for n in sizes]
        contenders = {"default": [], **dict(zip([f"{n} ids" for n in sizes], byte_pairs))}
    rows, changes, default = [], {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        sources = ["shakespeare"]
        if not options.vocabularies:
            sources = [
                str(write_library(Path(folder, name))) if name == "library" else name
                for name in options.texts.split(",")
            ]
        # A seed of all texts before the next seed, so that a stop in between leaves whole seeds.
        for seed in range(1, options.seeds + 1):
            for source in sources:
                text = Path(source).name
                for name, flags in contenders.items():
                    words = [source, f"--minutes={options.minutes}", f"--seed={seed}", *flags]
                    loss = train(words, f"{text}-{seed}-{name.split()[0]}", Path(folder, "runs"))
                    if name == "default":
                        default, told = loss, ""
                    else:
                        change = 100 * (default / loss - 1)
                        changes.setdefault((text, name), []).append(change)
                        told = f"{change:+.1f}"
                    rows.append([text, str(seed), name, f"{loss:.4f}", told])
                    print("  ".join(rows[-1]), flush=True)
    names = ["text", "seed", "recipe", "bits per byte", "default differs by %"]
    print("\n" + table(names, rows))
    for (text, name), found in changes.items():
        mean = statistics.mean(found)
        print(f"{text}: the default is {mean:+.1f} % from {name}, mean of {len(found)} seeds")


def write_library(folder: Path) -> Path:
    """Some megabytes of the standard library's sources, as files; returns their folder."""
    for name, text in standard_library(LIBRARY_BYTES).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder


def train(words: list[str], name: str, runs: Path) -> float:
    """Bits per byte of the validation text; an unknown character counts as the one byte that it
    mostly is.
    """
    environment = os.environ | {"FOLIO_RUNS": str(runs)}

    def folio(*words: str) -> str:
        command = [sys.executable, "-m", "folio", *words]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()

    folio("train", *words, f"--name={name}")
    scores = json.loads(folio("evaluate", name, "--json"))
    exact = next(s for s in scores if (s["text"], s["protocol"]) == ("validation", "exact"))
    n_bytes = read_json(runs / name / "corpus.json")["ledger_bytes"]["kept"]["validation"]
    return bits_per_byte(exact["nats_per_token"] * exact["targets"], n_bytes)


if __name__ == "__main__":
    main()
