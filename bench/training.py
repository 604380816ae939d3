"""Training: Folio against the plain loop, the same model on the same text, in turn.

    python -m bench.training                  0.8 M parameters
    python -m bench.training --size baby      10.7 M parameters
    python -m bench.training --precision int8 with products made of bytes
    python -m bench.training --fast off       the plain step, give it --precision float32 too
    python -m bench.training --busy           while another program takes a core
    python -m bench.training --losses 300     the training loss after so many steps, over seeds
    python -m bench.training --whole-run      the CPU recipe against 2000 plain steps

The first five compare steps per second, Folio with AdamW, Folio with Muon and the plain loop with
AdamW, each in a process of its own: some steps of one while the others wait, then of the next.
`--losses` shows that both learn the same with dropout in the same places, inside of attention too,
where it slows learning: the mean over seeds may differ by what seeds do.
`--whole-run` runs each as a command, from start to exit; Folio evaluates, the plain loop does not.
Before anything is timed, both models get the same weights and must give the same logits. Where the
plain loop drops a share of everything, Folio's recipe drops it of the embedding and on the residual
path, and none of the weights inside of attention, where steps are timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.busy import keep_core_busy
from bench.limits import measure_limits
from bench.plain_loop import PlainGPT, PlainLoop, Shape
from folio.corpus.builtin import BUILTIN
from folio.model.gpt import GPT
from folio.recipe.build import build, choose_for
from folio.recipe.recipe import Recipe, make_recipe
from folio.tokenizers.character import CharacterTokenizer
from folio.training.loop import update_weights
from folio.training.parts import Training

SIZES = {
    "nano": Shape(),
    "baby": Shape(67, 256, 6, 6, 384, dropout=0.2, batch_size=64),
}
WARM_UP = 6
"""Steps until nobody gets faster: the first ask for memory, and are captured."""
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Training: Folio against the plain loop.")
    parser.add_argument("--text", type=Path, help="default: the built-in python-docs")
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="in each round")
    parser.add_argument("--losses", type=int, default=0, help="after so many steps")
    parser.add_argument("--precision", default="auto", help="Folio's, as device.precision")
    parser.add_argument("--fast", choices=["on", "off"], default="on", help="as device.fast")
    parser.add_argument("--whole-run", action="store_true")
    parser.add_argument("--busy", action="store_true", help="another program takes a core")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.text or write_python_docs(Path(folder))
        if options.whole_run:
            compare_whole_runs(path.resolve(), options.rounds)
        elif options.losses:
            shape, n = SIZES[options.size], options.losses
            compare_losses(path, shape, options.precision, n, options.rounds)
        else:
            steps = options.steps or {"nano": 50, "baby": 2}[options.size]
            shape = SIZES[options.size]
            device = {"precision": options.precision, "fast": options.fast}
            compare_steps(path, shape, device, options.rounds, steps, options.busy)


def write_python_docs(folder: Path) -> Path:
    path = folder / "python-docs.txt"
    path.write_text("".join(d.text for d in BUILTIN["python-docs"]()), encoding="utf-8")
    return path


def compare_steps(
    path: Path, shape: Shape, settings: dict[str, str], rounds: int, steps: int, busy: bool
) -> None:
    shape, training_ids, validation_ids = tokens_of(path, shape)
    recipe = recipe_of(shape, settings)
    device = choose_for(recipe)
    limits = measure_limits()
    print(f"device: {device}\nthis machine: {limits}")
    check_same_function(shape, recipe)

    takes = {
        name: start(
            take_folio_steps,
            recipe_of(shape, settings, kind),
            device,
            training_ids,
            validation_ids,
        )
        for name, kind in {"folio": "adamw", "folio, muon": "muon"}.items()
    }
    takes["plain loop"] = start(take_plain_steps, shape, training_ids)
    for take in takes.values():
        take(WARM_UP)
    seconds: dict[str, list[float]] = {name: [] for name in takes}
    neighbour = keep_core_busy() if busy else None
    for _ in range(rounds):
        for name, take in takes.items():
            seconds[name].append(take(steps))
    if neighbour is not None:
        neighbour.kill()
    per_step = shape.batch_size * shape.context_length
    useful = flops_per_token(shape, recipe.model.n_parameters) / 1e9
    for name, values in seconds.items():
        rate = per_step / statistics.median(values)
        share = useful * rate / max(limits.float32, limits.bfloat16)
        print(
            f"{name:12} {spread([1e3 * v for v in values])} ms a step, {rate:,.0f} tokens/s, "
            f"{share:.0%} of the machine's rate"
        )
    for name in ("folio, muon", "plain loop"):
        ratios = [other / ours for other, ours in zip(seconds[name], seconds["folio"])]
        print(f"a step of {name} takes {spread(ratios)} times as long as one of folio")


def start(contestant: Callable[..., None], *arguments: object) -> Callable[[int], float]:
    """A contestant in a process of its own, as each would run: n -> seconds of one of n steps.

    It waits while the others take theirs.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=contestant, args=(theirs, *arguments), daemon=True).start()
    theirs.close()

    def take(n: int) -> float:
        ours.send(n)
        return ours.recv()

    return take


def take_folio_steps(connection: Connection, *parts: Any) -> None:
    """What the training loop does between two evaluations, of what `build` makes of the parts."""
    training = build(*parts)
    with training.step.running():
        answer(connection, lambda: folio_step(training, 100))


def take_plain_steps(connection: Connection, shape: Shape, training_ids: np.ndarray) -> None:
    """Those of the fixed opponent."""
    answer(connection, PlainLoop(shape, training_ids, steps=2000).step)


def answer(connection: Connection, step: Callable[[], object]) -> None:
    """n -> seconds of one of n steps."""
    while True:
        try:
            n = connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()
        for _ in range(n):
            step()
        connection.send((time.perf_counter() - begin) / n)


def compare_losses(path: Path, shape: Shape, precision: str, steps: int, n_seeds: int) -> None:
    """The mean training loss of the last tenth of so many steps, dropout included."""
    shape, training_ids, validation_ids = tokens_of(path, shape)
    found: dict[str, list[float]] = {"folio": [], "plain loop": []}
    recipe = recipe_of(shape, {"precision": precision})
    recipe = replace(recipe, model=replace(recipe.model, attention_dropout=shape.dropout))
    device = choose_for(recipe)
    for seed in range(1, n_seeds + 1):
        training = build(replace(recipe, seed=seed), device, training_ids, validation_ids)
        plain = PlainLoop(shape, training_ids, steps=2000, seed=seed)
        with training.step.running():
            ours = [folio_step(training, step) for step in range(steps)]
        theirs = [plain.step() for _ in range(steps)]
        for values, losses in zip(found.values(), (ours, theirs)):
            values.append(statistics.mean(losses[-max(1, steps // 10) :]))
        print(
            f"seed {seed}: " + ", ".join(f"{k} {v[-1]:.4f}" for k, v in found.items()), flush=True
        )
    means = {name: statistics.mean(values) for name, values in found.items()}
    print(f"folio's mean is higher by {means['folio'] - means['plain loop']:+.4f} nats")


def tokens_of(path: Path, shape: Shape) -> tuple[Shape, np.ndarray, np.ndarray]:
    """The shape with the vocabulary of a text, and its characters for training and validation."""
    text = path.read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.train([text])
    token_ids = tokenizer.encode(text)
    cut = int(0.9 * len(token_ids))
    return replace(shape, vocab_size=tokenizer.vocab_size), token_ids[:cut], token_ids[cut:]


def flops_per_token(shape: Shape, n_parameters: int) -> float:
    """Of a training step, by the usual count: six a parameter, and attention without its mask."""
    attention = 12 * shape.n_layers * shape.context_length * shape.d_model
    return 6 * n_parameters + attention


def compare_whole_runs(path: Path, rounds: int) -> None:
    """The CPU recipe as a command against the plain loop as a command."""
    recipe = ROOT / "recipes" / "shakespeare-cpu.toml"
    plain = [sys.executable, "bench/plain_loop.py", "--text", str(path), "--steps", "2000"]
    ratios = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            folders = {"FOLIO_RUNS": f"{folder}/runs", "FOLIO_CACHE": f"{folder}/cache"}
            environment = os.environ | folders
            command = [sys.executable, "-m", "folio", "train", str(recipe), "--name", "bench"]
            ours = timed([*command, "--corpus.sources", str(path)], environment)
            best = json.loads(Path(folder, "runs/bench/best.json").read_text())
        theirs = timed(plain, dict(os.environ))
        ratios.append(ours / theirs)
        print(
            f"round {number + 1}: folio {ours:.1f} s, validation loss "
            f"{best['validation_loss']:.4f} (exact); plain loop {theirs:.1f} s"
        )
    print(f"share of the plain loop's time: {spread(ratios)}")


def timed(command: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begin


def recipe_of(shape: Shape, device: dict[str, str], optimizer: str = "adamw") -> Recipe:
    model = {
        "vocab_size": shape.vocab_size,
        "context_length": shape.context_length,
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "d_model": shape.d_model,
        "embedding_dropout": shape.dropout,
        "residual_dropout": shape.dropout,
    }
    return make_recipe(
        {
            "preset": "gpt2",
            "model": model,
            "optimizer": {"kind": optimizer, "learning_rate": 1e-3},
            "training": {"batch_size": shape.batch_size, "max_steps": 2000},
            "device": device,
        }
    )


def folio_step(training: Training, step: int) -> float:
    """Returns the loss before it."""
    batch = training.stream.next_batch(training.config.batch_size, training.context_length)
    gradient = training.step.backward(batch, step)
    update_weights(training, step, gradient)
    return gradient.loss


def check_same_function(shape: Shape, recipe: Recipe) -> None:
    """The plain model with Folio's weights gives Folio's logits."""
    ours, theirs = GPT(recipe.model).eval(), PlainGPT(shape).eval()
    own = dict(ours.named_parameters())
    names = {
        "tokens.weight": "token_embedding.weight",
        "places.weight": "positions.weight",
        "norm.": "final_norm.",
        "norm_1.": "attention_norm.",
        "norm_2.": "feed_forward_norm.",
        "qkv.": "attention.qkv_proj.",
        "out.": "attention.out_proj.",
        "up.": "feed_forward.up_proj.",
        "down.": "feed_forward.down_proj.",
    }
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            prefix = ".".join(name.split(".")[:2]) + "." if name.startswith("blocks") else ""
            leaf = name.removeprefix(prefix)
            old = next(old for old in names if leaf.startswith(old))
            parameter.copy_(own[prefix + names[old] + leaf.removeprefix(old)])
        token_ids = torch.from_numpy(np.arange(2 * shape.context_length).reshape(2, -1) % 60)
        torch.testing.assert_close(ours(token_ids), theirs(token_ids), rtol=1e-4, atol=1e-4)


def spread(values: list[float]) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
