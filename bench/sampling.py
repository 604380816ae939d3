"""Tokens per second: Folio, llama.cpp and transformers in turn, same weights, shape and precision.

    python -m bench.sampling                      # all sizes, precisions and batches
    python -m bench.sampling --quick              # the smallest, to see that it runs
    python -m bench.sampling --sizes baby --precisions float32 --batches 1

Each model is a GPT-2 with random weights, written as GGUF for llama.cpp (its server in xllamacpp).
All continue prompts of 4 tokens with the likeliest token, over a cache, on all cores. They take
turns in one process, so that what else the machine does falls on all; the ratio of each round is
given as a median with its lowest and highest. Of llama.cpp its own `predicted_per_second` counts,
with several requests at once their sum; of the others the time from the first token to the last.

llama.cpp's partner of int8 (a scale for each row) is q8_0 (one for each 32 numbers). transformers
has float32 and bfloat16. A token of batch 1 reads every weight once: the speed of memory, over the
bytes of the weights, is the limit where they do not fit into the processor's caches.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from folio.device import cores, processor_name
from folio.export.gguf import write_gguf_file
from folio.fast.decoder import Decoder
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.run.model import Model
from folio.tokenizers.bpe.tokenizer import BPETokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "nano": {"n_layers": 4, "n_heads": 4, "d_model": 128, "vocab_size": 257},
    "mini": {"n_layers": 6, "n_heads": 4, "d_model": 256, "vocab_size": 1280},
    "baby": {"n_layers": 6, "n_heads": 6, "d_model": 384, "vocab_size": 257},
    "small": {"n_layers": 12, "n_heads": 12, "d_model": 768, "vocab_size": 50257},
}
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0"}
"""Ours -> llama.cpp's."""
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
CONTEXT = 256
PROMPT = [1, 2, 3, 4]
SECONDS = 0.8
"""Of one measurement, about."""

Sampler = Callable[[int, int], float]
"""Sequences side by side, tokens of each -> tokens per second of all."""


@dataclass
class Measured:
    """The rates of one cell of the table, by round."""

    size: str
    precision: str
    batch: int
    rates: dict[str, list[float]]
    bandwidths: list[float]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    names = ("torch", "numba", "transformers", "xllamacpp")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{processor_name()}, {options.threads} threads; {versions}\n")
    started, cells = time.perf_counter(), []
    print(f"{'size':6} {'weights':9} {'batch':>5} " + HEADER, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            opened = random_model(size)
            for precision in options.precisions:
                for batch in options.batches:
                    cell = measure(opened, size, precision, batch, options, Path(folder))
                    print(line(cell, opened.model.config), flush=True)
                    cells.append(cell)
    print(f"\n{time.perf_counter() - started:.0f} s. Ratio: Folio's rate over the other's.")
    if options.picture:
        draw(cells, options.picture)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sampling: Folio, llama.cpp, transformers.")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--without", nargs="+", default=[], choices=("llama.cpp", "transformers"))
    parser.add_argument("--picture", type=Path, help="an .svg to draw batch 1 to")
    parser.add_argument("--quick", action="store_true", help="one round of the smallest")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.batches, options.rounds = ["nano"], [1, 8], 1
    return options


def random_model(size: str) -> Model:
    """A model as a run has it, with a vocabulary that llama.cpp takes."""
    config = ModelConfig(**SHAPES[size], context_length=CONTEXT, activation="gelu_tanh")
    model = GPT(config, torch.Generator().manual_seed(1)).eval().requires_grad_(False)
    n_merges = config.vocab_size - 257
    pairs = [(k // 256, k % 256) for k in range(n_merges)]
    merges = np.array(pairs, np.int64).reshape(-1, 2)
    tokenizer = BPETokenizer.from_merges(merges, special_tokens=["<|endoftext|>"])
    assert tokenizer.vocab_size == config.vocab_size
    run = SimpleNamespace(name=size)
    return cast(Model, SimpleNamespace(model=model, tokenizer=tokenizer, run=run))


def measure(
    opened: Model,
    size: str,
    precision: str,
    batch: int,
    options: argparse.Namespace,
    folder: Path,
) -> Measured:
    """Let all take turns."""
    samplers: dict[str, Sampler] = {"folio": folio_sampler(opened.model, precision)}
    if "llama.cpp" not in options.without:
        samplers["llama.cpp"] = llama_sampler(opened, precision, batch, options.threads, folder)
    if "transformers" not in options.without and precision != "int8":
        samplers["transformers"] = transformers_sampler(opened.model, precision)
    warm = {name: sample(batch, 8) for name, sample in samplers.items()}
    n_tokens = min(CONTEXT - len(PROMPT) - 1, max(16, int(SECONDS * min(warm.values()) / batch)))
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    bandwidths = []
    for _ in range(options.rounds):
        for name, sample in samplers.items():
            rates[name].append(sample(batch, n_tokens))
        bandwidths.append(memory_bandwidth())
    samplers.clear()
    gc.collect()
    return Measured(size, precision, batch, rates, bandwidths)


HEADER = (
    f"{'Folio':>9} {'llama.cpp':>9} {'ratio':>20} {'transf.':>9} {'ratio':>20} "
    f"{'GB/s':>6} {'limit':>7}"
)


def line(cell: Measured, config: ModelConfig) -> str:
    """A row of the table."""
    ours = cell.rates["folio"]
    text = f"{cell.size:6} {cell.precision:9} {cell.batch:5} {statistics.median(ours):9.0f}"
    for name in ("llama.cpp", "transformers"):
        if theirs := cell.rates.get(name):
            ratios = [a / b for a, b in zip(ours, theirs)]
            text += f" {statistics.median(theirs):9.0f} {spread(ratios):>20}"
        else:
            text += f" {'-':>9} {'-':>20}"
    bandwidth = statistics.median(cell.bandwidths)
    n_read = config.n_parameters - config.context_length * config.d_model
    limit = cell.batch * bandwidth / (BYTES[cell.precision] * n_read)
    return f"{text} {bandwidth / 1e9:6.1f} {limit:7.0f}"


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


# ---- the three ---------------------------------------------------------------------------


def folio_sampler(model: GPT, precision: str) -> Sampler:
    """Ours, by the compiled decoder."""
    decoder = Decoder(model, cast(Any, precision))

    @torch.inference_mode()
    def sample(batch: int, n_tokens: int) -> float:
        caches = KVCache(model.config, batch, like=model.lm_head.weight).rows()
        drawn = decoder.read([torch.tensor(PROMPT)] * batch, caches).argmax(dim=1)
        start = time.perf_counter()
        for _ in range(n_tokens - 1):
            drawn = decoder.read(list(drawn[:, None]), caches).argmax(dim=1)
        return batch * (n_tokens - 1) / (time.perf_counter() - start)

    return sample


def llama_sampler(opened: Model, precision: str, batch: int, threads: int, folder: Path) -> Sampler:
    """llama.cpp's server, with its usual settings."""
    xllamacpp: Any = import_module("xllamacpp")

    path = folder / f"{opened.run.name}-{precision}.gguf"
    if not path.exists():
        write_gguf_file(opened, PRECISIONS[precision], path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = CONTEXT * batch, batch, 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def complete(n_tokens: int, rates: list[float]) -> None:
        body = {"prompt": PROMPT, "n_predict": n_tokens, "temperature": 0.0, "ignore_eos": True}
        body |= {"cache_prompt": False, "samplers": ["temperature"]}
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            timings = json.load(answer)["timings"]
        assert timings["predicted_n"] == n_tokens, timings
        rates.append(timings["predicted_per_second"])

    def sample(batch: int, n_tokens: int) -> float:
        rates: list[float] = []
        requests = [threading.Thread(target=complete, args=(n_tokens, rates)) for _ in range(batch)]
        for request in requests:
            request.start()
        for request in requests:
            request.join()
        assert len(rates) == batch
        return sum(rates)

    return sample


def transformers_sampler(model: GPT, precision: str) -> Sampler:
    """`generate` of transformers, in torch."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    transformers: Any = import_module("transformers")

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = model.config
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_embd=config.d_model,
            activation_function="gelu_new",
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    assert sum(p.numel() for p in peer.parameters()) == config.n_parameters
    peer = peer.to(getattr(torch, precision)).eval()

    def sample(batch: int, n_tokens: int) -> float:
        clock = Clock()
        prompt = torch.tensor([PROMPT] * batch)
        made = peer.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            pad_token_id=0,
            logits_processor=[clock],
        )
        assert made.shape == (batch, len(PROMPT) + n_tokens)
        return batch * (n_tokens - 1) / (clock.last - clock.first)

    return sample


class Clock:
    """Called for each token by transformers; notes the first and the last one."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def __call__(self, token_ids: Tensor, scores: Tensor) -> Tensor:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        return scores


def memory_bandwidth(n_bytes: int = 256 * 2**20, repeats: int = 3) -> float:
    """Bytes read per second on all threads, the best of some repeats."""
    numbers = torch.ones(n_bytes // 4)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - start)
    return n_bytes / best


# ---- the picture -------------------------------------------------------------------------


def draw(cells: Sequence[Measured], path: Path) -> None:
    """Bars of Folio's rate over llama.cpp's, at batch 1."""
    from matplotlib.figure import Figure

    shown = [cell for cell in cells if cell.batch == 1 and "llama.cpp" in cell.rates]
    figure = Figure(figsize=(7.5, 1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colors = {"float32": "#2563eb", "bfloat16": "#ea580c", "int8": "#059669"}
    for place, cell in enumerate(shown):
        ratios = [a / b for a, b in zip(cell.rates["folio"], cell.rates["llama.cpp"])]
        middle = statistics.median(ratios)
        reach = [[middle - min(ratios)], [max(ratios) - middle]]
        axes.barh(place, middle, xerr=reach, color=colors[cell.precision], ecolor="#1f2937")
    axes.axvline(1, color="#1f2937", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{cell.size}, {cell.precision}" for cell in shown])
    axes.invert_yaxis()
    axes.set_xlabel("tokens per second, Folio / llama.cpp, batch 1")
    figure.savefig(path)
    print(f"drawn: {path}")


if __name__ == "__main__":
    main()
