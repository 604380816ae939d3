"""One sequence on the CPU: a compiled step that reads the weights as fast as memory gives them.

torch multiplies a matrix by a single row on one thread, and each of its calls costs more than
the arithmetic in it; one compiled call for the whole step does neither. What is not one token
of one sequence (the prompt, a full context read anew) goes to the model itself, over the same
cache.

Shapes:  L layers · C = d_model · K heads of keys and values · D head dimension · F = d_ff
         V vocabulary · B batch · T positions · I inputs, O outputs of a matrix
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from folio import jit
from folio.fast.accelerate import is_known
from folio.fast.kernels.weights import ACTIVATION_CODES, Weights
from folio.fast.written_for import is_as_written
from folio.model import kv_cache
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache

TRY_AGAIN_SECONDS = 0.5
"""How long the slower number of threads is left alone."""


COMPILED_FROM = 200
"""Tokens from which loading the compiled step, about half a second, pays for itself."""


def decoder_for(
    model: nn.Module, n_sequences: int, max_tokens: int | None, wanted: bool | None = None
) -> SingleRowDecoder | None:
    """Make a decoder to generate with, where it is of use; None leaves it to the model.

    Args:
        model: to generate with.
        n_sequences: side by side.
        max_tokens: of each; None is without end.
        wanted: None makes one where the text is long enough to pay for loading it.
    """
    if wanted is None:
        wanted = max_tokens is None or max_tokens >= COMPILED_FROM
    if wanted and single_row_applies(model, n_sequences):
        assert isinstance(model, GPT)
        return SingleRowDecoder(model)
    return None


def single_row_applies(model: nn.Module, n_sequences: int) -> bool:
    """Whether `SingleRowDecoder` can stand in for the model.

    It takes one sequence, a GPT in float32 on the CPU of which no layer was changed, and kernels.
    """
    if n_sequences != 1 or type(model) is not GPT:
        return False
    if not is_known(model) or not is_as_written(kv_cache):
        return False
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in model.parameters()):
        return False
    return jit.available()


class SingleRowDecoder:
    """Called like the model, and gives the same logits up to rounding."""

    def __init__(self, model: GPT) -> None:
        """Copy the weights: later changes to the model are not seen."""
        import numba

        from folio.fast.kernels.decoder import step_on

        self.model = model
        self.weights = pack(model)
        self.threads = FasterThreads(min(torch.get_num_threads(), numba.get_num_threads()))
        self._step_on = step_on

    def __call__(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, V), with the errors of `GPT.forward`; fast where B = T = 1."""
        config = self.model.config
        if cache is None or token_ids.shape != (1, 1) or cache.length >= config.context_length:
            return self.model(token_ids, cache)
        token_id = int(token_ids)
        if not 0 <= token_id < config.vocab_size:
            return self.model(token_ids, cache)  # which says what is wrong
        logits = torch.empty(1, 1, config.vocab_size)
        keys, values = cache.keys[:, 0].numpy(), cache.values[:, 0].numpy()  # (L, K, S, D)
        row = logits[0, 0].numpy()
        with self.threads.timed() as n_threads:
            self._step_on(n_threads, self.weights, keys, values, cache.length, token_id, row)
        cache.length += 1
        return logits


class FasterThreads:
    """One thread or all, whichever was faster lately. The logits do not depend on it.

    Threads wait for the slowest at every matrix. Beside another program that keeps the
    processor busy (a training run) that is a time slice each: all threads made 4 tokens per
    second where one made 130.
    """

    def __init__(self, most: int) -> None:
        self.seconds = {most: 0.0, 1: 0.0}  # of a step, lately; 0 is to be tried
        self.try_again_at = 0.0  # so that a first step, which may compile, is forgotten

    @contextmanager
    def timed(self) -> Iterator[int]:
        """Give the number of threads for the step inside, and learn from its time."""
        chosen = min(self.seconds, key=self.seconds.__getitem__)
        start = time.perf_counter()
        yield chosen
        end = time.perf_counter()
        before, now = self.seconds[chosen], end - start
        self.seconds[chosen] = (3 * before + now) / 4 if before else now
        if end > self.try_again_at:
            self.try_again_at = end + TRY_AGAIN_SECONDS
            slower = max(self.seconds, key=self.seconds.__getitem__)
            self.seconds[slower] = 0.0


def pack(model: GPT) -> Weights:
    """Lay the weights out for `kernels.decoder.step`."""
    config = model.config
    blocks: list[Any] = list(model.blocks)
    attentions = [block.attention for block in blocks]
    feed_forwards = [block.feed_forward for block in blocks]
    positions: Any = model.positions
    added = {
        "learned": lambda: positions.weight,
        "sinusoidal": lambda: positions.table,
    }.get(config.positions, lambda: torch.empty(0, config.d_model))()
    rotary = attentions[0].rotary
    no_angles = torch.empty(0, config.head_width)
    gated = config.activation == "swiglu"

    qkv, qkv_bias = pack_linear([[a.qkv_proj] for a in attentions])
    out, out_bias = pack_linear([[a.out_proj] for a in attentions])
    up, up_bias = pack_linear(
        [[f.gate_proj, f.up_proj] if gated else [f.up_proj] for f in feed_forwards]
    )
    down, down_bias = pack_linear([[f.down_proj] for f in feed_forwards])
    return Weights(
        embedding=array(model.token_embedding.weight),
        embedding_scale=np.float32(model.embedding_scale),
        positions=array(added),
        cosines=array(rotary.cosines if rotary else no_angles),
        sines=array(rotary.sines if rotary else no_angles),
        qkv=qkv,
        qkv_bias=qkv_bias,
        out=out,
        out_bias=out_bias,
        up=up,
        up_bias=up_bias,
        down=down,
        down_bias=down_bias,
        head=array(model.lm_head.weight),
        head_bias=np.zeros(config.vocab_size, np.float32),
        head_norms=pack_norms([n for a in attentions for n in (a.q_norm, a.k_norm)]),
        entry_norms=pack_norms(_of_both(blocks, "norm")),
        exit_norms=pack_norms(_of_both(blocks, "exit_norm")),
        sum_norms=pack_norms(_of_both(blocks, "sum_norm")),
        final_norm=pack_norms([model.final_norm]),
        epsilon=np.float32(config.normalization_epsilon),
        centered=config.normalization == "layernorm",
        activation=ACTIVATION_CODES[config.activation],
    )


def _of_both(blocks: Sequence[Any], norm: str) -> list[nn.Module]:
    """The norms of attention and of feed-forward in turn."""
    sides = ("attention", "feed_forward")
    return [getattr(block, f"{side}_{norm}") for block in blocks for side in sides]


def array(tensor: Tensor) -> np.ndarray:
    """The same memory, where it is contiguous."""
    return tensor.detach().contiguous().numpy()


def pack_linear(groups: Sequence[Sequence[nn.Linear]]) -> tuple[np.ndarray, np.ndarray]:
    """L groups of layers that read the same input -> (L, O, I) matrices and (L, O) biases."""
    n_inputs, n_outputs = groups[0][0].in_features, sum(layer.out_features for layer in groups[0])
    # One large block from numpy lies in huge pages where the system has them.
    matrices = np.empty((len(groups), n_outputs, n_inputs), np.float32)
    biases = np.zeros((len(groups), n_outputs), np.float32)
    for group, matrix, bias in zip(groups, matrices, biases):
        row = 0
        for layer in group:
            rows = slice(row, row := row + layer.out_features)
            matrix[rows] = array(layer.weight)
            if layer.bias is not None:
                bias[rows] = array(layer.bias)
    return matrices, biases


def pack_norms(norms: Sequence[Any]) -> np.ndarray:
    """N norms of one width W -> (N, 2, W) gains and biases, or empty where there are none."""
    if isinstance(norms[0], nn.Identity):
        return np.empty((0, 2, 0), np.float32)
    gains = [array(norm.weight) for norm in norms]
    biases = [
        np.zeros_like(gain) if getattr(norm, "bias", None) is None else array(norm.bias)
        for norm, gain in zip(norms, gains)
    ]
    return np.stack((gains, biases), axis=1)
