"""One GPU, measured in one call of at most 570 seconds: is Folio right on it, and how fast?

    python -m bench.gpu                          all parts, JSON after each of them to $OUT or here
    python -m bench.gpu --only card,correct      some of them, in the order of their worth
    FOLIO_GPU_REHEARSAL=1 python -m bench.gpu    the same on a processor with tiny models

A part that fails or has no time left is told, and the others go on. Speeds are medians over steps,
each of which ends when the device is done; warm-up and compilation are not in them. `goal` says
what a part is expected to give on an H100.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from folio import accelerator
from folio.config import Table, from_table, merge
from folio.device import Device, DeviceConfig, choose_device
from folio.evaluation.score import exact_windows
from folio.model.loss import next_token_loss
from folio.recipe.build import build
from folio.recipe.gpu_memory import gpu_bytes
from folio.recipe.recipe import make_recipe
from folio.training.accelerated.head import MULTIPLE, chunked_loss
from folio.training.accelerated.rules import GraphedRule, orthogonalize_stack
from folio.training.accelerated.step import AcceleratedStep
from folio.training.loop import update_weights
from folio.training.low_rank import load_model_tensors, merged
from folio.training.optimizers import Optimizer, orthogonalize
from folio.training.parts import Training
from folio.training.state import TrainingState

SECONDS = 570
WARM_UP, STEPS = 3, 20
SMALL: Table = {
    "model": {"n_layers": 12, "n_heads": 12, "d_model": 768, "context_length": 1024},
    "training": {"batch_size": 16},
}
"""GPT-2, 124 M parameters."""
TINY: Table = {
    "model": {"n_layers": 2, "n_heads": 2, "d_model": 64, "context_length": 32},
    "training": {"batch_size": 4},
}
PRESETS = ("gpt2", "modern")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Bench:
    """Where it is measured."""

    rehearsal: bool

    @property
    def kind(self) -> Any:
        return "cpu" if self.rehearsal else "cuda" if torch.cuda.is_available() else "mps"

    @property
    def small(self) -> Table:
        return TINY if self.rehearsal else SMALL

    @cached_property
    def text(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 50_257, 4_000_000).astype(np.uint16)

    def device(self, precision: str = "bfloat16", **settings: Any) -> Device:
        table = {"kind": self.kind, "precision": precision, "threads": 1, "fast": "off"}
        return choose_device(from_table(DeviceConfig, table | settings))

    def training(
        self, preset: str, table: Table, device: Device, vocab_size: int = 50_257
    ) -> Training:
        fixed = {
            "preset": preset,
            "seed": 1,
            "model": {"vocab_size": vocab_size},
            "training": {"max_steps": 1000, "evaluation_interval": 1000, "log_interval": 1},
        }
        text = self.text % min(vocab_size, 50_257)
        return build(make_recipe(merge(table, fixed)), device, text[:-40_000], text[-40_000:])

    def wait(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()

    def seconds(self, work: Callable[[], Any], times: int, warm_up: int = WARM_UP) -> float:
        """Median seconds of a piece of work."""
        took = []
        for i in range(warm_up + times):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            took += [time.perf_counter() - start] * (i >= warm_up)
        return statistics.median(took)


HOWS = ("plain", "eager", "graph", "compiled")
"""PlainStep; AcceleratedStep without graphs, with them, and compiled."""


def by(training: Training, how: str) -> Training:
    """The same training by another step."""
    if how == "plain":
        return training
    configs = training.device, training.config, training.optimizer_config
    step = AcceleratedStep(training.model, *configs, compiled=how == "compiled")
    rules = cast(Optimizer, step.optimizer).rules
    for graphed in (step._add, *(r.move for r in rules if isinstance(r, GraphedRule))):
        graphed.is_usable = how != "eager"
    return replace(training, step=step)


def take_step(training: Training, step: int) -> float:
    """One step of the loop without its observers; returns the loss."""
    batch = training.stream.next_batch(training.config.batch_size, training.context_length)
    gradient = training.step.backward(batch, step)
    update_weights(training, step, gradient)
    return gradient.loss


# ---- the parts ---------------------------------------------------------------------------


def card(bench: Bench) -> Table:
    """The two ceilings: a large product, and a copy."""
    n = 256 if bench.rehearsal else 8192
    a = torch.randn(n, n, device=bench.device().torch, dtype=torch.bfloat16)
    big = torch.empty((1 << 20) if bench.rehearsal else (1 << 30), device=a.device)
    flops = 2 * n**3 / bench.seconds(lambda: a @ a, 5)
    copied = 2 * 4 * len(big) / bench.seconds(big.clone, 5)
    name = torch.cuda.get_device_name() if bench.kind == "cuda" else bench.kind
    return {
        "name": name,
        "torch": torch.__version__,
        "product_tflops": flops / 1e12,
        "copy_gb_per_second": copied / 1e9,
    }


def correct(bench: Bench) -> Table:
    """Gradient and losses of 40 steps against the processor in float32."""
    found: Table = {"goal": "gradient 1e-4 and 3e-2, losses 1e-3 and 2e-2"}
    cpu = Device(DeviceConfig(kind="cpu", precision="float32", threads=1, fast="off"), "bench")

    def run(preset: str, device: Device, how: str = "plain") -> tuple[Tensor, list[float]]:
        training = by(bench.training(preset, TINY, device, vocab_size=300), how)
        batch = training.stream.next_batch(4)
        for _ in range(3):  # as written, captured, replayed
            training.step.backward(batch, 0)
        gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten().float().cpu() for g in gradients])
        return flat, [take_step(training, step) for step in range(40)]

    for preset in PRESETS:
        expected, losses = run(preset, cpu)
        for precision, how in itertools.product(("float32", "bfloat16", "float16"), HOWS):
            if how == "compiled" and precision != "bfloat16":
                continue
            gradient, own = run(preset, bench.device(precision), how)
            off = max(abs(a - b) for a, b in zip(own, losses))
            error = ((gradient - expected).norm() / expected.norm()).item()
            found[f"{preset} {precision} {how}"] = {"gradient": error, "losses": off}
    return found


def muon(bench: Bench) -> Table:
    """Where Muon's polynomials bring singular values of the interval that they are made for.

    Random square matrices have some near 0, which no polynomial of their degree raises; so these
    are spread evenly, by their logarithms, from a little above the lower end to 1.
    """
    found: Table = {"goal": "values 0.40 to 1.60 if square, else 0.48 to 1.52; turned below 0.01"}
    device = bench.device("float32").torch
    stacked = {"one": orthogonalize, "stacked": lambda x: orthogonalize_stack(x[None])[0]}
    for (rows, columns), lowest in (((64, 64), 0.01), ((64, 256), 0.04), ((256, 64), 0.04)):
        n, draw = min(rows, columns), torch.Generator().manual_seed(0)
        u, v = (torch.linalg.qr(torch.randn(m, n, generator=draw))[0] for m in (rows, columns))
        x = u * lowest ** torch.linspace(0, 1, n) @ v.T
        for name, function in stacked.items():
            inside = u.T @ function(x.to(device)).cpu() @ v  # diagonal if no direction is turned
            values = inside.diagonal()
            found[f"{rows} x {columns}, {name}"] = {
                "smallest": values.min().item(),
                "largest": values.max().item(),
                "turned": ((inside - values.diag()).norm() / values.norm()).item(),
            }
    return found


def resume(bench: Bench) -> Table:
    """Sixty steps, and thirty and thirty, with and without deterministic kernels."""
    found: Table = {"goal": "0 where deterministic"}
    for deterministic in (False, True):
        device = bench.device("bfloat16", deterministic=deterministic)

        def begin(device: Device = device) -> Training:
            return bench.training("gpt2", TINY, device, vocab_size=300)

        whole, first, then = begin(), begin(), begin()
        for step in range(60):
            take_step(whole, step)
        for step in range(30):
            take_step(first, step)
        record = TrainingState(step=30).record(device.torch)
        load_model_tensors(then.model, merged(first.model))
        then.step.optimizer.load({k: x.clone() for k, x in first.step.optimizer.tensors.items()})
        TrainingState.restore(record | {"place": {"epoch": 0, "position": 0}}, device.torch)
        then.stream.place = first.stream.place
        then.step.refresh()
        for step in range(30, 60):
            take_step(then, step)
        pairs = zip(whole.model.parameters(), then.model.parameters())
        name = "deterministic" if deterministic else "usual"
        found[name] = max((a - b).abs().max().item() for a, b in pairs)
    torch.use_deterministic_algorithms(False)
    return found


def memory(bench: Bench) -> Table:
    """A step that does not fit has fewer windows at once, and the same loss."""
    if bench.kind != "cuda":
        return {"skipped": "takes CUDA"}
    table = merge(SMALL, {"training": {"batch_size": 64}})
    recipe = make_recipe(merge(table, {"preset": "gpt2", "model": {"vocab_size": 50_257}}))
    predicted = gpu_bytes(recipe, bench.device(fast="on"))
    free = bench.training("gpt2", table, bench.device(fast="on"))
    expected = take_step(free, 0)
    peak = torch.cuda.max_memory_allocated()
    del free
    accelerator.release()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.5 * peak / total)
    try:
        tight = bench.training("gpt2", table, bench.device(fast="on"))
        loss = take_step(tight, 0)
        windows = tight.step.fitting_windows
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    gb = {"peak_gb": peak / 1e9, "predicted_gb": predicted / 1e9}
    return gb | {"windows": windows, "off": abs(loss - expected), "goal": "1e-2"}


def waits(bench: Bench) -> Table:
    """Where the processor waits for the card in a step, and how many kernels it starts."""
    if bench.kind != "cuda":
        return {"skipped": "takes CUDA"}
    found: Table = {"goal": "3 waits or fewer"}
    for preset, how in itertools.product(PRESETS, HOWS):
        training = by(bench.training(preset, bench.small, bench.device()), how)
        for step in range(WARM_UP):
            take_step(training, step)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            take_step(training, WARM_UP)
        torch.cuda.set_sync_debug_mode("default")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            take_step(training, WARM_UP + 1)
            bench.wait()
        kernels = sum(event.count for event in profile.key_averages())
        found[f"{preset} {how}"] = {"waits": len(heard), "kernels": kernels}
    return found


def small(bench: Bench) -> Table:
    """Tokens a second of 124 M parameters, by each step, with 16 and 64 windows."""
    found: Table = {"goal": "compiled 440 k tokens/s (gpt2) and 380 k (modern), plain 230 k"}
    # In the order of their worth, as time may run out.
    for size, how, preset in itertools.product((64, 16), reversed(HOWS), PRESETS):
        n_windows, vocab = (4, 502) if bench.rehearsal else (size, 50_257)
        table = merge(bench.small, {"training": {"batch_size": n_windows}})
        training = by(bench.training(preset, table, bench.device(), vocab), how)
        began = time.perf_counter()
        once = bench.seconds(partial(take_step, training, 0), STEPS)
        tokens = n_windows * training.context_length
        n_parameters = sum(p.numel() for p in training.model.parameters())
        found[f"{preset}, {size} windows, {how}"] = {
            "tokens_per_second": tokens / once,
            "tflops": 6 * n_parameters * tokens / once / 1e12,
            "all_seconds": time.perf_counter() - began,
        }
        del training
        accelerator.release()
    return found


def loss_share(bench: Bench) -> Table:
    """What the head and its loss take of a step of 16,384 positions."""
    n, width, vocab = (64, 16, 300) if bench.rehearsal else (16_384, 768, 50_257)
    device, padded = bench.device().torch, -(-vocab // MULTIPLE) * MULTIPLE
    options: Table = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
    x, head = torch.randn(1, n, width, **options), torch.randn(padded, width, **options)
    targets = torch.randint(0, vocab, (1, n), device=device)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: next_token_loss(x @ head[:vocab].T, targets, "sum"),
        "chunked": lambda: chunked_loss(x, head[:vocab], targets, vocab),
        "chunked, padded": lambda: chunked_loss(x, head, targets, vocab),
    }

    def milliseconds(loss: Callable[[], Tensor]) -> float:
        return 1e3 * bench.seconds(lambda: torch.autograd.grad(loss(), (x, head)), STEPS)

    return {name: milliseconds(loss) for name, loss in ways.items()}


def reading(bench: Bench) -> Table:
    """Tokens a second of an evaluation."""
    n = 2_000 if bench.rehearsal else 1_000_000
    table = merge(TINY, {"model": {"context_length": 256 if not bench.rehearsal else 32}})
    training = bench.training("gpt2", table, bench.device(), vocab_size=65)
    text = (bench.text % 65)[:n]
    windows = exact_windows(n, training.context_length)
    once = bench.seconds(lambda: training.step.score(text, windows, "exact"), 2, 1)
    return {"tokens_per_second": n / once, "goal": "3 M tokens/s"}


def choice(bench: Bench) -> Table:
    """What `auto` takes, and how long a step of each size takes there and on the processor."""
    found: Table = {"auto": str(choose_device(DeviceConfig())), "goal": "the faster one"}
    for size in ("nano",) if bench.rehearsal else ("nano", "micro", "mini"):
        for kind in dict.fromkeys((bench.kind, "cpu")):
            device = choose_device(DeviceConfig(kind=kind))
            training = bench.training("modern", {"size": size}, device, vocab_size=65)
            with training.step.running():
                once = bench.seconds(partial(take_step, training, 0), 5)
            found[f"{size} {kind}"] = {"milliseconds": 1e3 * once}
    return found


def folio(*words: str, seconds: float, processes: int = 0) -> float:
    """Run the command, and return how long it took from start to exit."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes else []), "-m", "folio", *words]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return time.perf_counter() - start


def baby(bench: Bench) -> Table:
    """The course's baby GPT as a command: start, evaluations and end included."""
    words = ["train", "recipes/shakespeare-baby.toml", f"--device.kind={bench.kind}"]
    if bench.rehearsal:
        words = ["train", "python-docs", "--training.max-steps=2", *_tiny("cpu")]
    with tempfile.TemporaryDirectory() as runs:
        os.environ["FOLIO_RUNS"] = runs
        seconds = folio(*words, "--name=baby", seconds=200)
        best = json.loads((Path(runs) / "baby" / "best.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "best": best, "goal": "60 s, loss 1.46 to 1.49"}


def together(bench: Bench) -> Table:
    """Two processes on one card, by gloo, against one."""
    losses: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as runs:
        os.environ["FOLIO_RUNS"] = runs
        for n in (0, 2):
            words = ["train", "python-docs", "--training.max-steps=10", *_tiny(bench.kind)]
            folio(*words, f"--name=by-{n}", seconds=120, processes=n)
            lines = (Path(runs) / f"by-{n}" / "metrics.jsonl").read_text(encoding="utf-8")
            events = map(json.loads, lines.splitlines())
            losses[n] = [event["loss"] for event in events if event["event"] == "step"]
    off = max(abs(a - b) for a, b in zip(losses[0], losses[2]))
    return {"steps": len(losses[2]), "off": off, "goal": "1e-4"}


def _tiny(kind: str) -> list[str]:
    model = {"n-layers": 2, "n-heads": 2, "d-model": 64, "context-length": 32}
    words = [f"--model.{name}={value}" for name, value in model.items()]
    words += [f"--device.kind={kind}", "--device.precision=float32", "--device.fast=off"]
    words += ["--tokenizer.kind=character", "--training.log-interval=1", "--device.threads=1"]
    return [*words, "--training.evaluation-sample=2000", "--training.evaluation-interval=1000"]


PARTS: dict[str, Callable[[Bench], Table]] = {
    f.__name__: f
    for f in (
        *(card, correct, small, baby, waits, memory, together),
        *(resume, muon, reading, choice, loss_share),
    )
}
"""In the order of their worth."""


def main() -> None:
    parser = argparse.ArgumentParser(description="One GPU in one call.")
    parser.add_argument("--only", default=",".join(PARTS), help="some parts, by commas")
    names = parser.parse_args().only.split(",")
    bench = Bench(os.environ.get("FOLIO_GPU_REHEARSAL") == "1")
    if not bench.rehearsal and not any(map(accelerator.available, ("cuda", "mps"))):
        sys.exit("There is no GPU here. FOLIO_GPU_REHEARSAL=1 runs the parts on a processor.")
    os.chdir(ROOT)
    out = Path(os.environ.get("OUT", ".")) / "gpu.json"
    found: Table = {}
    begin = time.perf_counter()
    for name in names:
        start = time.perf_counter()
        if start - begin > SECONDS - 60:
            found[name] = {"skipped": "no time left"}
            continue
        try:
            found[name] = PARTS[name](bench)
        except Exception as error:  # the other parts still say something
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        accelerator.release()
        found[name]["part_seconds"] = round(time.perf_counter() - start, 1)
        out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    for name, result in found.items():
        print(f"\n{name}")
        for key, value in result.items():
            print(f"    {key:44}{value}")


if __name__ == "__main__":
    main()
