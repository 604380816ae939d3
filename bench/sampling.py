"""Tokens per second: Folio, llama.cpp and transformers in turn, same weights, shape and precision.

    python -m bench.sampling                      # all sizes, precisions and batches
    python -m bench.sampling --quick              # the smallest, to see that it runs
    python -m bench.sampling --sizes baby --precisions float32 --batches 1 --rounds 5

Each model is a GPT-2 with random weights, written as GGUF for llama.cpp (its server in xllamacpp).
All continue prompts of 4 to 32 tokens, another length for each text of a batch, with the likeliest
token, over a cache. The others may take one thread or all, and each cell of the table has the
number with which they were faster; Folio chooses by itself. They take turns in one process, so that
what else the machine does falls on all; the ratio of each round is given as a median with its
lowest and highest. Of llama.cpp its own `predicted_per_second` counts, with several requests at
once their sum; of the others the time from the first token to the last, all that `folio sample`
does for a token included.

llama.cpp's partner of int8 (a scale for each row) is q8_0 (one for each 32 numbers). transformers
has float32, and bfloat16 where the processor computes in it. A token of batch 1 reads every weight
once: the speed of memory, over the bytes of the weights, is the limit where they do not fit into
the processor's caches.
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
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from folio.device import cores, matrix_rate, processor_name
from folio.export.gguf import write_gguf_file
from folio.generation.batch import Batch
from folio.generation.engine import in_step
from folio.generation.readers import reader_for
from folio.generation.row import Request
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.pictures import Dots, draw_dots
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
LONGEST_PROMPT = 32
SECONDS = 0.8
"""Of one measurement, about."""
TRIAL_TOKENS = 24
"""Of each text, to find the better number of threads."""

PRODUCT = 256, 256
"""Rows and width of a product by which a precision is tried."""
EMULATED = 0.1
"""Share of the rate of float32 below which torch emulates a precision, which takes hours here."""

Sampler = Callable[[int], float]
"""Tokens of each text -> tokens per second of all."""


@dataclass
class Measured:
    """The rates of one cell of the table, by round."""

    size: str
    precision: str
    batch: int
    rates: dict[str, list[float]]
    threads: dict[str, int]
    """Of the others, with which they were faster."""
    bandwidths: list[float]

    def ratios(self, other: str) -> list[float]:
        """Of Folio's rate to another one's, by round."""
        return [a / b for a, b in zip(self.rates["folio"], self.rates[other])]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    names = ("torch", "numba", "transformers", "xllamacpp")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{processor_name()}, up to {options.threads} threads; {versions}\n")
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
    parser.add_argument("--picture", type=Path, help="an .svg of the ratios to llama.cpp")
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
    prompts = prompts_of(batch)
    samplers: dict[str, Sampler] = {"folio": folio_sampler(opened.model, precision, prompts)}
    threads: dict[str, int] = {}
    for name, make in peers(opened, precision, prompts, folder).items():
        if name not in options.without:
            threads[name], samplers[name] = better(make, options.threads)
    warm = min(sample(TRIAL_TOKENS) for sample in samplers.values())
    n_tokens = min(CONTEXT - LONGEST_PROMPT - 1, max(16, int(SECONDS * warm / batch)))
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    bandwidths = []
    for _ in range(options.rounds):
        for name, sample in samplers.items():
            rates[name].append(sample(n_tokens))
        bandwidths.append(memory_bandwidth(options.threads))
    samplers.clear()
    gc.collect()
    return Measured(size, precision, batch, rates, threads, bandwidths)


def better(make: Callable[[int], Sampler], threads: int) -> tuple[int, Sampler]:
    """One thread or all, whichever is faster, and the sampler that has them."""
    trials = {n: make(n) for n in (1, threads)}
    for sample in trials.values():
        sample(TRIAL_TOKENS)  # loads what is loaded when it is needed
    speeds = {n: max(sample(TRIAL_TOKENS) for _ in range(2)) for n, sample in trials.items()}
    n = max(speeds, key=speeds.__getitem__)
    return n, trials[n]


def peers(
    opened: Model, precision: str, prompts: list[list[int]], folder: Path
) -> dict[str, Callable[[int], Sampler]]:
    """The others that compute in a precision, each for a number of threads."""
    made: dict[str, Callable[[int], Sampler]] = {
        "llama.cpp": partial(llama_sampler, opened, precision, prompts, folder)
    }
    rate = matrix_rate("cpu", precision, *PRODUCT) if precision != "int8" else 0.0
    if rate > EMULATED * matrix_rate("cpu", "float32", *PRODUCT):
        peer = transformers_model(opened.model, precision)
        made["transformers"] = partial(transformers_sampler, peer, prompts)
    return made


def prompts_of(batch: int) -> list[list[int]]:
    """B prompts of 4, 8 ... 32 tokens in turn."""
    lengths = [4 + 4 * n % LONGEST_PROMPT for n in range(batch)]
    return [[1 + (n + t) % 250 for t in range(length)] for n, length in enumerate(lengths)]


HEADER = (
    f"{'Folio':>9} {'llama.cpp':>11} {'ratio':>20} {'transf.':>11} {'ratio':>22} "
    f"{'GB/s':>6} {'limit':>7}"
)


def line(cell: Measured, config: ModelConfig) -> str:
    """A row of the table; behind a rate of the others, their threads."""
    ours = cell.rates["folio"]
    text = f"{cell.size:6} {cell.precision:9} {cell.batch:5} {statistics.median(ours):9.0f}"
    for name, width in (("llama.cpp", 20), ("transformers", 22)):
        if theirs := cell.rates.get(name):
            text += f" {statistics.median(theirs):9.0f}/{cell.threads[name]}"
            text += f" {spread(cell.ratios(name)):>{width}}"
        else:
            text += f" {'-':>11} {'-':>{width}}"
    bandwidth = statistics.median(cell.bandwidths)
    n_read = config.n_parameters - config.context_length * config.d_model
    limit = cell.batch * bandwidth / (BYTES[cell.precision] * n_read)
    return f"{text} {bandwidth / 1e9:6.1f} {limit:7.0f}"


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


# ---- the three ---------------------------------------------------------------------------


def folio_sampler(model: GPT, precision: str, prompts: list[list[int]]) -> Sampler:
    """Ours, as `folio sample` writes."""
    reader = reader_for(model, weights=cast(Any, precision))

    def sample(n_tokens: int) -> float:
        greedy = SamplingConfig(temperature=0)
        requests = [Request(prompt=x, config=greedy, max_tokens=n_tokens) for x in prompts]
        steps = in_step(Batch(reader, len(prompts)), requests)
        next(steps)
        start = time.perf_counter()
        assert len(list(steps)) == n_tokens - 1
        return len(prompts) * (n_tokens - 1) / (time.perf_counter() - start)

    return sample


def llama_sampler(
    opened: Model, precision: str, prompts: list[list[int]], folder: Path, threads: int
) -> Sampler:
    """llama.cpp's server, with its usual settings."""
    xllamacpp: Any = import_module("xllamacpp")

    path = folder / f"{opened.run.name}-{precision}.gguf"
    if not path.exists():
        write_gguf_file(opened, PRECISIONS[precision], path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = CONTEXT * len(prompts), len(prompts), 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def complete(prompt: list[int], n_tokens: int, rates: list[float]) -> None:
        body = {"prompt": prompt, "n_predict": n_tokens, "temperature": 0.0, "ignore_eos": True}
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

    def sample(n_tokens: int) -> float:
        rates: list[float] = []
        requests = [
            threading.Thread(target=complete, args=(prompt, n_tokens, rates)) for prompt in prompts
        ]
        for request in requests:
            request.start()
        for request in requests:
            request.join()
        assert len(rates) == len(prompts)
        return sum(rates)

    return sample


def transformers_model(model: GPT, precision: str) -> Any:
    """The same shape in transformers."""
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
    return peer.to(getattr(torch, precision)).eval()


def transformers_sampler(peer: Any, prompts: list[list[int]], threads: int) -> Sampler:
    """`generate` of transformers; shorter prompts are padded on the left, and masked."""
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[n >= longest - len(p) for n in range(longest)] for p in prompts]).long()

    def sample(n_tokens: int) -> float:
        clock, before = Clock(), torch.get_num_threads()
        torch.set_num_threads(threads)
        made = peer.generate(
            padded,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            pad_token_id=0,
            logits_processor=[clock],
        )
        torch.set_num_threads(before)
        assert made.shape == (len(prompts), longest + n_tokens)
        return len(prompts) * (n_tokens - 1) / (clock.last - clock.first)

    return sample


class Clock:
    """Called for each token by transformers; notes the first and the last one."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def __call__(self, token_ids: Tensor, scores: Tensor) -> Tensor:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        return scores


def memory_bandwidth(threads: int, n_bytes: int = 256 * 2**20, repeats: int = 3) -> float:
    """Bytes read per second on all threads, the best of some repeats."""
    torch.set_num_threads(threads)
    numbers = torch.ones(n_bytes // 4)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - start)
    return n_bytes / best


# ---- the picture -------------------------------------------------------------------------


def draw(cells: Sequence[Measured], path: Path) -> None:
    """A row for each cell: Folio's rate over llama.cpp's, in each round."""
    rows = [
        Dots(f"{cell.size}, {cell.precision}, {cell.batch}", cell.ratios("llama.cpp"))
        for cell in cells
        if "llama.cpp" in cell.rates
    ]
    draw_dots(
        path,
        rows,
        title="Tokens per second beside llama.cpp: size, weights, texts at once",
        x_label="Folio / llama.cpp, with its better number of threads",
        each_label="each round",
        level=("equally fast", 1.0),
    )
    print(f"drawn: {path}")


if __name__ == "__main__":
    main()
