"""Tokens per second of sampling: Folio against `generate` of transformers, same shape, in turn.

    python -m bench.sampling --rounds 5

Both are GPT-2 in the size of nanoGPT's Shakespeare model with random weights, and draw at
temperature 1 from the whole vocabulary, with a cache, in float32. They take turns in one process
on the same threads, so that what else the machine does falls on both; the ratio of each round is
reported as a median with its lowest and highest. A token at batch 1 reads every weight once: the
speed of memory, measured by summing more than the caches hold, over the bytes of the model is the
limit.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from folio.device import cores
from folio.generation.engine import generate
from folio.generation.readers import reader_for
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT

CONFIG = ModelConfig(vocab_size=67, context_length=256, n_layers=6, n_heads=6, d_model=384)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sampling: Folio against transformers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument(
        "--tokens", type=int, default=CONFIG.context_length - 1, help="per sequence, after one"
    )
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    if not 0 < options.tokens < CONFIG.context_length:
        parser.error(f"--tokens is 1 to {CONFIG.context_length - 1}: transformers stops there")
    torch.set_num_threads(options.threads)

    names = ("torch", "numba", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    folio, peer = GPT(CONFIG).eval(), make_peer(CONFIG)
    weight_bytes = 4 * CONFIG.n_parameters
    print(f"{versions}; {platform.machine()}, {options.threads} threads")
    print(f"{CONFIG.n_parameters / 1e6:.2f} M parameters; {options.tokens} tokens per sequence\n")

    for batch_size in options.batch_sizes:
        samplers: dict[str, Callable[[int, int], None]] = {
            "folio": lambda b, n: sample_folio(folio, b, n),
            "transformers": lambda b, n: sample_peer(peer, b, n),
        }
        for sample in samplers.values():
            sample(batch_size, 8)  # compiles, and fills caches
        rates: dict[str, list[float]] = {name: [] for name in samplers}
        bandwidths = []
        for _ in range(options.rounds):
            for name, sample in samplers.items():
                start = time.perf_counter()
                sample(batch_size, options.tokens)
                seconds = time.perf_counter() - start
                rates[name].append(batch_size * options.tokens / seconds)
            bandwidths.append(memory_bandwidth())
        ratios = [ours / theirs for ours, theirs in zip(rates["folio"], rates["transformers"])]
        for name, values in rates.items():
            print(f"batch {batch_size:2}  {name:12}  {spread(values, '.0f')} tokens/s")
        print(f"batch {batch_size:2}  {'ratio':12}  {spread(ratios, '.2f')}")
        gigabytes = [value / 1e9 for value in bandwidths]
        limit = batch_size * statistics.median(bandwidths) / weight_bytes
        print(f"          memory        {spread(gigabytes, '.1f')} GB/s", end="")
        print(f", at which the weights are read for {limit:.0f} tokens/s\n")


def sample_folio(model: GPT, batch_size: int, n_tokens: int) -> None:
    """Draw n_tokens after one token, for each of batch_size sequences."""
    config, reader = SamplingConfig(temperature=1.0, seed=1), reader_for(model, batch_size)
    made = list(generate(model, [[0]] * batch_size, config, max_tokens=n_tokens, reader=reader))
    assert len(made) == n_tokens


def sample_peer(model: Any, batch_size: int, n_tokens: int) -> None:
    """The same by transformers."""
    prompt = torch.zeros(batch_size, 1, dtype=torch.long)
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=n_tokens,
        min_new_tokens=n_tokens,
        pad_token_id=0,
    )
    assert made.shape == (batch_size, 1 + n_tokens)


def make_peer(config: ModelConfig) -> torch.nn.Module:
    """GPT-2 of transformers in the same shape."""
    import transformers  # type: ignore[import-not-found]

    logging.getLogger("transformers").setLevel(logging.ERROR)
    peer_config = transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        n_embd=config.d_model,
        activation_function="gelu",
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = transformers.GPT2LMHeadModel(peer_config).eval()
    assert sum(p.numel() for p in peer.parameters()) == config.n_parameters
    return peer


def memory_bandwidth(n_bytes: int = 256 * 2**20, repeats: int = 5) -> float:
    """Bytes read per second on all threads, the best of some repeats."""
    numbers = torch.ones(n_bytes // 4)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - start)
    return n_bytes / best


def spread(values: list[float], form: str) -> str:
    """Median, lowest and highest."""
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
