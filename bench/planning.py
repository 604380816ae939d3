"""Planning: what was predicted against what came out.

    python -m bench.planning                 memory and time of runs, three repeats each
    python -m bench.planning --memory-only   one repeat of three steps; for a busy machine
    python -m bench.planning --starvation    the loss at 100 % of two texts from at most 50 %
    python -m bench.planning --calibrate     the constants of recipe/expected_loss.py, from
                                             the runs in bench/planning_runs.json

Memory and time are those of `folio train` as a process of its own, as it notes them itself in
prediction.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.loss_rule import RecordedRun, fit_rule, predictions_of_unseen_texts
from folio.config import merge
from folio.console import table
from folio.device import choose_device
from folio.planning.power_law import fit_power_law
from folio.planning.starvation import measure_starvation
from folio.planning.trial import trial_loss
from folio.recipe.expected_loss import block_parameters
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import make_recipe
from folio.storage import read_json, write_json

CONFIGURATIONS = {
    "nano": "--size nano",
    "nano, a large batch": "--size nano --training.batch-size 128",
    "nano, 4,096 ids": "--size nano --tokenizer.kind bpe --tokenizer.vocab-size 4096",
    "micro": "--size micro",
    "micro, one thread": "--size micro --device.threads 1",
    "mini": "--size mini",
    "mini, gpt2": "--size mini --preset gpt2",
    "mini, float32": "--size mini --device.precision float32",
    "mini, dropout": "--size mini --model.residual-dropout 0.1 --model.attention-dropout 0.1",
    "mini, context 1,024": "--size mini --model.context-length 1024 --training.batch-size 4",
    "mini, Muon": "--size mini --optimizer.kind muon",
    "baby, 16 windows": "--size baby --training.batch-size 16",
    "small, 2 windows of 256": "--size small --model.context-length 256 --training.batch-size 2",
}
TEXTS = ("python-docs", "shakespeare")
SHARES = (0.06, 0.12, 0.25, 0.5, 1.0)
RUNS = Path(__file__).with_name("planning_runs.json")
CALIBRATION = {
    "nano": (150, 500, 1500, 4000),
    "micro": (150, 500, 1500),
    "mini": (60, 250),
    "baby": (60,),
}
"""Size -> steps, on each text."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Planning: predicted against measured.")
    parser.add_argument("--memory-only", action="store_true")
    parser.add_argument("--starvation", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--minutes", type=float, default=0.5, help="of each run")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.starvation:
        starvation()
    elif options.calibrate:
        calibrate()
    elif options.memory_only:
        memory_and_time(["--training.max-steps", "3", "--training.evaluation-interval", "3"], 1)
    else:
        memory_and_time(["--minutes", str(options.minutes)], options.repeats)


def memory_and_time(budget: list[str], repeats: int) -> None:
    rows = []
    for name, flags in CONFIGURATIONS.items():
        results = [run_once([*flags.split(), *budget]) for _ in range(repeats)]
        row = [name]
        for figure, unit in (("memory_bytes", 1e9), ("seconds", 1.0)):
            if results[0]["predicted"][figure] is None:
                row += ["-"] * 3
                continue
            predicted, measured = (
                statistics.median(r[kind][figure] / unit for r in results)
                for kind in ("predicted", "measured")
            )
            error = statistics.median(
                r["measured"][figure] / r["predicted"][figure] - 1 for r in results
            )
            row += [f"{predicted:.2f}", f"{measured:.2f}", f"{100 * error:+.0f}"]
        rows.append(row)
        print("  ".join(row), flush=True)
    header = ["run", "GB predicted", "measured", "off by %", "s predicted", "measured", "off by %"]
    print("\n" + table(header, rows))


def run_once(flags: list[str]) -> dict[str, dict[str, float]]:
    """prediction.json of a run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "folio", "train", "python-docs", "--name", "bench", *flags]
        environment = os.environ | {"FOLIO_RUNS": folder}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return read_json(Path(folder, "bench", "prediction.json"))


def starvation() -> None:
    rows = []
    for text in TEXTS:
        prepared = prepared_text(text)
        found = measure_starvation(
            prepared.training(),
            prepared.validation(),
            prepared.tokenizer.vocab_size,
            choose_device(make_recipe().device),
            lambda line, text=text: print(f"{text}: {line}", flush=True),
            SHARES,
        )
        *known, (whole, measured) = found.points
        law = fit_power_law([n for n, _ in known], [loss for _, loss in known])
        low, high = law.interval(whole)
        rows.append(
            [
                text,
                " ".join(f"{loss:.3f}" for _, loss in known),
                f"{law(whole):.3f} ({low:.3f} to {high:.3f})",
                f"{measured:.3f}",
                f"{law(whole) - measured:+.3f}",
            ]
        )
        print("\n".join(found.lines()))
    print("\n" + table(["text", "at 6 12 25 50 %", "predicted", "measured", "off by"], rows))


def prepared_text(text: str) -> Prepared:
    return prepare(make_recipe({"corpus": {"sources": [text]}}), lambda line: None)


def calibrate() -> None:
    """Train what is not yet recorded, then fit."""
    runs = [RecordedRun(**record) for record in read_json(RUNS)] if RUNS.exists() else []
    known = {(run.text, run.size, run.steps) for run in runs}
    for size, all_steps in CALIBRATION.items():
        for steps in all_steps:
            for text in TEXTS:
                if (text, size, steps) not in known:
                    runs.append(record_run(text, size, steps))
                    print(runs[-1], flush=True)
                    write_json(RUNS, [asdict(run) for run in runs])
    rule = fit_rule(runs)
    print(rule)
    rows = [
        [
            f"{run.text}, {run.size}",
            f"{run.steps:,}",
            f"{run.loss:.3f}",
            f"{guess:.3f}",
            f"{100 * (guess / run.loss - 1):+.1f}",
        ]
        for run, guess in predictions_of_unseen_texts(runs)
    ]
    print("Each text predicted from the runs on the other texts and its own anchors:")
    print(table(["run", "steps", "measured", "predicted", "off by %"], rows))


def record_run(text: str, size: str, steps: int) -> RecordedRun:
    prepared = prepared_text(text)
    model = {"model": {"vocab_size": prepared.tokenizer.vocab_size}}
    recipe = make_recipe(merge(model, {"size": size}))
    training = prepared.training()
    device = choose_device(recipe.device, width=recipe.model.d_model)
    return RecordedRun(
        text=text,
        size=size,
        parameters=block_parameters(recipe.model),
        tokens_per_step=recipe.training.batch_size * recipe.model.context_length,
        steps=steps,
        text_tokens=len(training),
        loss=trial_loss(recipe, device, steps, training, prepared.validation()),
    )


if __name__ == "__main__":
    main()
