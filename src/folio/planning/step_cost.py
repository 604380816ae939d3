"""How long a training step takes on a GPU, and on several: a sum, nothing overlaps.

    products + attention + memory + update        what one GPU computes
    waiting                                        for Python, where that is slower
    all-reduce                                     once, after the backward pass; more if sharded

A product runs at a fixed share of the peak. Everything between products reads and writes memory,
and takes as long as that, which is why wide models reach more of the peak. Folio's step adds up all
gradients in float32 in one all-reduce after the backward pass (training/distributed.py), so it
hides behind nothing. What more is sent if processes divide the optimizer or the model, and what the
update takes less, is in `all_reduces` and `update_share`.

Shapes:  N parameters · L layers · C d_model · V vocabulary · n tokens of one GPU in a step
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from folio.model.config import ModelConfig
from folio.planning.gpus import HOP_SECONDS, NETWORK_HOP_SECONDS, NETWORK_SHARE, Gpu
from folio.training.config import Sharding

GRADIENT_BYTES = 4
"""Bytes per parameter in the all-reduce: training/distributed.py adds up in float32."""


@dataclass(frozen=True)
class Kernels:
    """How a step is written: how often numbers go to memory and back between products."""

    block_bytes: float
    """Bytes read and written per token, layer and dimension of the model, forward and backward."""
    rotary_bytes: float
    """The same of rotary positions, and of norms and gates that come with them."""
    loss_bytes: float
    """Bytes per token and entry of the vocabulary, from the logits to their gradient."""
    update_bytes: float
    """Bytes per parameter of clipping, update and rounding."""
    collect_bytes: float
    """Bytes per parameter that adding up the gradients of a further micro-batch takes."""
    block_launches: int
    """Operations per layer and micro-batch, there and back, each of which Python starts."""


LAUNCH_SECONDS = 9e-6
"""Assumption: from the call of an operation in Python to the next one."""
OTHER_LAUNCHES = 100
"""Counted: operations outside of the blocks, the update included."""

PLAIN = Kernels(
    block_bytes=370,
    rotary_bytes=160,
    loss_bytes=44,
    update_bytes=114,
    collect_bytes=26,
    block_launches=60,
)
"""torch operation by operation, as training/step.py is written. The first is fitted to GPTs of
llm-foundry, which are written so; it includes what narrow products lose, since 126 bytes are
counted in GPT-2's blocks. The others are counted, RMSNorm as one operation, which it is on GPUs. Of
the update, gradients in float32 take 14 bytes, AdamW 72, the copy of the weights before it 8, norms
and clipping 14, rounding 6."""
RECORDED = Kernels(
    block_bytes=370,
    rotary_bytes=160,
    loss_bytes=30,
    update_bytes=76,
    collect_bytes=14,
    block_launches=0,
)
"""training/accelerated as a CUDA graph: the blocks as above, the loss in chunks of which the logits
are read and written five times, AdamW in one pass (28 bytes)."""
COMPILED = Kernels(
    block_bytes=120,
    rotary_bytes=0,
    loss_bytes=12,
    update_bytes=40,
    collect_bytes=20,
    block_launches=12,
)
"""torch.compile, or kernels by hand. The first is fitted to llm.c; the others are what must be read
and written at least."""
RECORDED_COMPILED = replace(RECORDED, block_bytes=COMPILED.block_bytes, rotary_bytes=0)
"""training/accelerated, compiled by torch.compile."""


@dataclass(frozen=True)
class StepCost:
    """Seconds of each part of a step."""

    products: float
    attention: float
    memory: float
    update: float
    launching: float
    """From the first operation to the last, if the GPU took no time."""
    all_reduce: float = 0.0

    @property
    def computing(self) -> float:
        """Seconds without the all-reduce."""
        busy = self.products + self.attention + self.memory + self.update
        return max(busy, self.launching)

    @property
    def seconds(self) -> float:
        """Seconds of the whole step."""
        return self.computing + self.all_reduce


def block_matrices(model: ModelConfig) -> int:
    """Entries of the matrices of one block, which take part in a product for each token."""
    width, kv = model.attention_width, model.key_value_heads * model.head_width
    n_inputs = 2 if model.activation == "swiglu" else 1
    feed_forward = (n_inputs + 1) * model.d_model * model.feed_forward_width
    return 2 * model.d_model * (width + kv) + feed_forward


def muon_flops(model: ModelConfig) -> float:
    """Operations of an update by Muon: training/optimizers.py, orthogonalize.

    For a matrix of m rows and M columns, or the other way round, each polynomial takes two products
    with the matrix (2 m m M) and one of its square (2 m m m) for each coefficient.
    """
    d, kv = model.d_model, model.key_value_heads * model.head_width
    wide = [(d, model.attention_width)] * 2 + [(d, kv)] * 2
    n_inputs = 2 if model.activation == "swiglu" else 1
    wide += [(d, model.feed_forward_width)] * (n_inputs + 1)
    total = 0.0
    for rows, columns in wide:
        m, n_coefficients = min(rows, columns), 10 if rows == columns else 6
        total += 8.0 * m * m * max(rows, columns) + 2.0 * (n_coefficients + 1) * m**3
    return model.n_layers * total


def computing(
    model: ModelConfig,
    gpu: Gpu,
    n_tokens: float,
    n_micro_batches: int,
    kernels: Kernels = PLAIN,
    optimizer: str = "adamw",
) -> StepCost:
    """Predict a step of one GPU in mixed precision.

    Args:
        model: the shape, with its vocabulary.
        gpu: the card.
        n_tokens: of the whole step, on this GPU.
        n_micro_batches: into how many parts they are split.
        kernels: how the step is written.
        optimizer: optimizer.kind of the recipe; all GPUs update all weights.
    """
    entries = model.n_layers * block_matrices(model) + model.vocab_size * model.d_model
    # Forward, and twice that backward; of all positions half are looked at.
    products = 6 * n_tokens * entries / (gpu.half_flops * gpu.generation.product_share)
    looked_at = 6 * model.n_layers * model.context_length * model.attention_width
    attention = n_tokens * looked_at / (gpu.half_flops * gpu.generation.attention_share)
    block = kernels.block_bytes + (kernels.rotary_bytes if model.positions == "rope" else 0)
    block *= model.n_layers * model.d_model
    moved = n_tokens * (block + kernels.loss_bytes * model.vocab_size)
    passes = kernels.update_bytes + kernels.collect_bytes * (n_micro_batches - 1)
    update = model.n_parameters * passes / gpu.bandwidth
    if optimizer == "muon":
        update += muon_flops(model) / (gpu.full_flops * gpu.generation.product_share)
    launches = OTHER_LAUNCHES + n_micro_batches * kernels.block_launches * model.n_layers
    return StepCost(products, attention, moved / gpu.bandwidth, update, launches * LAUNCH_SECONDS)


def all_reduce_seconds(
    n_bytes: float, n_gpus: int, n_machines: int, link: float, network: float
) -> float:
    """Predict an all-reduce over a ring.

    Each GPU sends and receives 2 (n - 1) / n times the bytes. Between machines there are as many
    rings as it takes to use all of the network, so the slower of both wires decides.

    Args:
        n_bytes: of the tensor.
        n_gpus: in all machines together.
        n_machines: among which they are spread evenly.
        link: bus bandwidth within a machine, in bytes per second.
        network: line rate of a machine's network, in bytes per second.

    >>> all_reduce_seconds(1e9, 1, 1, 1e9, 1e9)
    0.0
    """
    if n_gpus == 1:
        return 0.0
    bandwidth = link if n_machines == 1 else NETWORK_SHARE * network
    if 1 < n_machines < n_gpus:
        bandwidth = min(bandwidth, link)
    hop = HOP_SECONDS if n_machines == 1 else NETWORK_HOP_SECONDS
    sent = 2 * (n_gpus - 1) / n_gpus * n_bytes
    return sent / bandwidth + 2 * math.log2(n_gpus) * hop


DIVIDED_UPDATE = 80 / 114
"""Share of the plain step's update that `optimizer` divides: of PLAIN's 114 bytes AdamW's 72, and 8
of the weights before the step."""


def update_share(sharding: Sharding, n_gpus: int) -> float:
    """Share of the whole update that each GPU makes."""
    divided = {"none": 0.0, "optimizer": DIVIDED_UPDATE, "full": 1.0}[sharding]
    return 1 - divided + divided / n_gpus


def all_reduces(sharding: Sharding, n_micro_batches: int) -> float:
    """What a step sends, in all-reduces of all gradients in float32.

    To gather tensors, or to scatter their sums, takes half as long as the all-reduce, which is
    both. `optimizer` gathers the weights of all shards after the update. `full` gathers all weights
    in half precision forward and backward, and scatters gradients, for each micro-batch anew; the
    matrices that Muon sends are left out.
    """
    return {"none": 1.0, "optimizer": 1.5, "full": 1.0 * n_micro_batches}[sharding]
