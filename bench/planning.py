"""Planning: what was predicted against what came out.

    python -m bench.planning                 memory and time of runs, three repeats each
    python -m bench.planning --memory-only   one repeat of four steps; for a busy machine
    python -m bench.planning --starvation    the loss at 100 % of two texts from at most 50 %
    python -m bench.planning --calibrate     the constants of recipe/expected_loss.py, from
                                             the runs in bench/planning_runs.json

A run is `folio train` as a process of its own. Its memory is looked at from outside, up to fifty
times a second: what its processes share counts once. Its time is what it notes itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from bench.loss_rule import RecordedRun, fit_rule, predictions_of_unseen_texts
from folio.config import merge
from folio.console import table
from folio.device import choose_device
from folio.planning.power_law import fit_power_law
from folio.planning.starvation import measure_starvation
from folio.planning.trial import trial_loss
from folio.process import account
from folio.recipe.expected_loss import block_parameters
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import make_recipe
from folio.storage import read_json, write_json

CONFIGURATIONS = {
    "nano": "--size nano",
    "nano, 128 windows": "--size nano --training.batch-size 128",
    "nano, 4,096 ids": "--size nano --tokenizer.kind bpe --tokenizer.vocab-size 4096",
    "micro, one thread": "--size micro --device.threads 1",
    "mini": "--size mini",
    "mini, gpt2": "--size mini --preset gpt2",
    "mini, float32": "--size mini --device.precision float32",
    "mini, dropout": "--size mini --model.embedding-dropout 0.1 --model.residual-dropout 0.1"
    " --model.attention-dropout 0.1",
    "mini, 4 windows of 1,024": "--size mini --model.context-length 1024 --training.batch-size 4",
    "baby, 16 windows": "--size baby --training.batch-size 16",
    "baby, gpt2, 32 windows": "--size baby --preset gpt2 --training.batch-size 32",
    "baby, 64 windows, 8 at once": "--size baby --training.micro-batch-size 8",
}
"""Two threads on python-docs, in bfloat16, where nothing else is said."""
COMMON = {"--device.threads": "2", "--device.precision": "bfloat16", "--device.kind": "cpu"}
FEW_STEPS = ["--training.max-steps", "4", "--training.evaluation-interval", "4"]
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
        memory_and_time(FEW_STEPS, 1)
    else:
        memory_and_time(["--minutes", str(options.minutes)], options.repeats)


def memory_and_time(budget: list[str], repeats: int) -> None:
    rows = []
    for name, flags in CONFIGURATIONS.items():
        results = [run_once([*flags.split(), *budget]) for _ in range(repeats)]
        row = [name]
        for figure, unit in (("memory_bytes", 1e9), ("seconds", 1.0)):
            pairs = [(predicted[figure], measured[figure]) for predicted, measured in results]
            if pairs[0][0] is None:
                row += ["-"] * 3
                continue
            predicted, measured = (statistics.median(column) / unit for column in zip(*pairs))
            error = statistics.median(measured / predicted - 1 for predicted, measured in pairs)
            row += [f"{predicted:.2f}", f"{measured:.2f}", f"{100 * error:+.0f}"]
        own = statistics.median(measured["own_memory_bytes"] for _, measured in results)
        row.append(f"{own / 1e9:.2f}")
        rows.append(row)
        print("  ".join(row), flush=True)
    header = ["run", "GB predicted", "measured", "off by %", "s predicted", "measured", "off by %"]
    print("\n" + table([*header, "GB on its card"], rows))


def run_once(flags: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """What a run was predicted to take, and what it took."""
    common = [word for pair in COMMON.items() if pair[0] not in flags for word in pair]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "folio", "train", "python-docs", "--name", "bench"]
        command += [*flags, *common, "--corpus.validation-fraction", "0.03"]
        environment = os.environ | {"FOLIO_RUNS": folder}
        peak = watch(command, environment, stderr=subprocess.DEVNULL)
        both = read_json(Path(folder, "bench", "prediction.json"))
    measured = both["measured"]
    own = {"own_memory_bytes": measured["memory_bytes"], "memory_bytes": peak}
    return both["predicted"], measured | own


def watch(
    command: list[str],
    environment: dict[str, str],
    stderr: int | None = None,
    look: Callable[[], None] = lambda: None,
) -> int:
    """Run a command to its end; the most bytes that it held.

    Args:
        command, environment, stderr: as for subprocess.
        look: called each time that its memory is looked at.
    """
    peak, quiet = 0, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=stderr) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            look()
            time.sleep(0.02)
    assert process.returncode == 0, f"this failed: {' '.join(command)}"
    return peak


def memory_of(pid: int) -> int:
    """Bytes of a process and all that it started, shared pages once; of Linux.

    Pages of files count once in full, since other programs use the same libraries.
    """
    memory = files = 0
    for process in processes_from(pid):
        pages, status = account(f"{process}/smaps_rollup"), account(f"{process}/status")
        memory += pages.get("Pss_Anon", 0) + pages.get("Pss_Shmem", 0)
        files = max(files, status.get("RssFile", 0))
    return memory + files


def processes_from(pid: int) -> Iterator[int]:
    yield pid
    try:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from processes_from(int(child))
    except OSError:  # it has just ended
        return


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
