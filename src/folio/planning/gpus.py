"""Cards and the wires between them: what their makers promise, and what was measured of it.

Peaks are without sparsity and with sums in float32, as torch computes. The shares below are the
only fitted numbers here; `python -m bench.cluster` fits them, and tells how far off they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from folio.config import unknown_name
from folio.errors import UserError

ACCELERATORS = "https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/README.md"
"""Peaks and memory, each with the address of its data sheet (read in August 2026)."""
NETWORKS = "https://github.com/stas00/ml-engineering/blob/master/network/README.md"
"""Measured bandwidths of an all-reduce, and those that are promised."""


@dataclass(frozen=True)
class Generation:
    """What cards of one generation reach of their peak."""

    product_share: float
    """Of a product of wide matrices in half precision."""
    attention_share: float
    """Of causal attention, forward and backward, where only the lower triangle is counted."""


AMPERE = Generation(0.77, 0.266)
"""Fitted; cards of other generations take it, too. A product alone reached 0.869 on an A100
(ACCELERATORS)."""
HOPPER = Generation(0.625, 0.153)
"""Fitted. A product alone reached 0.803 on an H100 (ACCELERATORS); in a step its clock is lower."""


@dataclass(frozen=True)
class Gpu:
    """A card."""

    half_flops: float
    """Peak of bfloat16, or of float16 where that is all it has, in FLOP/s."""
    full_flops: float
    """Peak of float32 without tensor cores, in FLOP/s."""
    memory_bytes: float
    bandwidth: float
    """Of its memory, in bytes per second."""
    link: float
    """Bus bandwidth of an all-reduce within a machine, in bytes per second: what
    nccl-tests calls busbw."""
    generation: Generation
    source: str
    """Where these numbers come from."""
    is_checked: bool = False
    """Whether published runs on this card were compared with the predictions."""


NVLINK_H = 365e9
"""Measured on 8 H200: 365 GB/s as a ring (NETWORKS); the switch can add up, too, which gave 473."""
NVLINK_A = 235e9
"""Measured on 8 A100 (NETWORKS)."""
PCIE_4 = 20e9
"""Assumption: two thirds of the 31 GB/s of 16 lanes. Cards that may not read each other's memory
reach less: https://github.com/NVIDIA/nccl/issues/1639 has up to 28 GB/s."""

GPUS = {
    "b200": Gpu(2250e12, 80e12, 180e9, 8.0e12, 680e9, HOPPER, ACCELERATORS),
    "h200": Gpu(989e12, 67e12, 141e9, 4.8e12, NVLINK_H, HOPPER, ACCELERATORS),
    "h100": Gpu(989e12, 67e12, 80e9, 3.35e12, NVLINK_H, HOPPER, ACCELERATORS, is_checked=True),
    "h100-pcie": Gpu(756e12, 51e12, 80e9, 2.0e12, PCIE_4, HOPPER, ACCELERATORS),
    "a100": Gpu(312e12, 19.5e12, 80e9, 2.0e12, NVLINK_A, AMPERE, ACCELERATORS, is_checked=True),
    "a100-40": Gpu(
        312e12,
        19.5e12,
        40e9,
        1.555e12,
        NVLINK_A,
        AMPERE,
        "https://sysrqmts.com/gpus/compare/nvidia-a100-pcie-vs-nvidia-tesla-v100-pcie-16-gb",
        is_checked=True,
    ),
    "l40s": Gpu(362e12, 91.6e12, 48e9, 0.86e12, PCIE_4, AMPERE, ACCELERATORS),
    "4090": Gpu(
        165.2e12,
        82.6e12,
        24e9,
        1.008e12,
        PCIE_4,
        AMPERE,
        "https://waredb.com/processor/nvidia-geforce-rtx-4090",
        is_checked=True,
    ),
    "3090": Gpu(
        71e12,
        35.6e12,
        24e9,
        0.936e12,
        PCIE_4,
        AMPERE,
        "https://github.com/karpathy/nanochat/issues/60, "
        "https://gpu.spicedreamphone.com/en/gpu/a40-pcie-vs-geforce-rtx-3090",
    ),
    "a6000": Gpu(
        154.8e12,
        38.7e12,
        48e9,
        0.768e12,
        PCIE_4,
        AMPERE,
        "https://github.com/karpathy/nanochat/issues/60, "
        "https://sysrqmts.com/ru/gpus/compare/nvidia-geforce-rtx-3060-vs-nvidia-rtx-a6000",
    ),
    "v100": Gpu(
        125e12,
        15.7e12,
        32e9,
        0.9e12,
        120e9,  # assumption: 0.8 of the 150 GB/s of NVLink 2
        AMPERE,
        "https://ozyphus.github.io/gpu-maths.html",
    ),
    "t4": Gpu(
        65e12,
        8.1e12,
        16e9,
        0.32e12,
        8e9,  # assumption: half of 16 lanes of PCIe 3
        AMPERE,
        "https://sysrqmts.com/en/gpus/nvidia/tesla/t4",
    ),
}
"""Name -> card."""

NETWORK_SHARE = 0.85
"""Of a network's line rate that is left of it in an all-reduce. Measured: 0.86 and 0.91 on 2 x 8
A100 with InfiniBand, 0.75 with RoCE, 0.92 on 4 x 8 B200; TCP may be far below, 0.41 on 2 x 4 A100
(bench/published.py has the addresses)."""

HOP_SECONDS = 7e-6
"""Latency of an all-reduce, by twice the logarithm of the number of GPUs: 42 us on 8, where one of
1 MiB takes 46 (NETWORKS)."""
NETWORK_HOP_SECONDS = 35e-6
"""The same across machines: 350 us on 4 x 8, where one of 1 MiB takes 378 (NETWORKS)."""


def gpu_of(name: str) -> Gpu:
    """Find a card by its name.

    Raises:
        UserError: an unknown name; the message has the nearest known one.
    """
    if name.lower() not in GPUS:
        raise UserError(unknown_name("GPU", name, GPUS) + f" There are {', '.join(GPUS)}.")
    return GPUS[name.lower()]
