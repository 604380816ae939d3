"""Speeds of training that others have published, each with where it stands.

Taken: pretraining of GPTs in bfloat16 on one machine, or on several where the program hides
communication behind computing, with shape, batch and speed all told. Left out, by rule: float8,
recomputed activations (two of torchtitan's are in, whose extra products are known), attention that
is not fused, and sliding windows. Of llm-foundry's tables those with 8 GPUs and windows of 512,
2,048 and 8,192.

Shapes:  L layers · C width · H heads · V vocabulary · T context length
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from folio.model.config import ModelConfig
from folio.planning.gpus import GPUS, Gpu
from folio.planning.step_cost import COMPILED, PLAIN, Kernels

LLM_FOUNDRY = (
    "https://github.com/mosaicml/llm-foundry/blob/main/scripts/train/benchmarking/README.md"
)
LLM_C = "https://github.com/karpathy/llm.c/blob/master/scripts/run_gpt2_"
MODDED = "https://github.com/KellerJordan/modded-nanogpt/tree/master/records/track_1_short/"
TITAN = (
    "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
)
TITAN_A100 = (
    "https://github.com/pytorch/torchtitan/blob/041336434916bdc0f88c1f89fda176fd3c2092e4/"
    "docs/performance.md"
)
IBM = "https://github.com/foundation-model-stack/fms-fsdp/blob/main/README.md"

COOL_H100 = replace(GPUS["h100"], bandwidth=2.4e12)
"""torchtitan's: slower memory and 500 W, after its own words."""


FUSED_LOSS = replace(PLAIN, loss_bytes=COMPILED.loss_bytes, update_bytes=14, collect_bytes=20)
"""llm-foundry's: the loss is one kernel, and each of 8 GPUs updates an eighth of the weights."""


@dataclass(frozen=True)
class Published:
    """One figure."""

    program: str
    gpu: Gpu
    model: ModelConfig
    windows: int
    """At once, on one GPU."""
    parts: int
    """Micro-batches in a step."""
    tokens_per_second: float
    """Of one GPU."""
    kernels: Kernels
    source: str
    is_fitted: bool = False
    """Whether the constants were fitted to it."""
    recomputed: float = 0.0
    """Products that are computed once more, as a share of all of a step."""


def gpt(n_layers: int, d_model: int, n_heads: int, vocab_size: int = 50_304, length: int = 1024):
    """A GPT-2 of another size."""
    return ModelConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        vocab_size=vocab_size,
        context_length=length,
    )


def llama(n_layers: int, d_model: int, heads: tuple[int, int], d_ff: int, vocab: int, length: int):
    """A Llama: gated layers, keys that are shared, a head of its own."""
    return ModelConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=heads[0],
        n_kv_heads=heads[1],
        d_ff=d_ff,
        vocab_size=vocab,
        context_length=length,
        positions="rope",
        activation="swiglu",
        normalization="rmsnorm",
        bias=False,
        tied_head=False,
    )


MPT = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
}
FOUNDRY = {  # model, T, windows, micro-batches, tokens per second and GPU
    "h100": """
        760m 512 96 2 83749    760m 2048 24 2 63147    760m 8192 6 2 41825
        1b 512 56 4 52275      1b 2048 14 1 45455      1b 8192 3 4 29157
        3b 512 40 6 27965      3b 8192 3 6 16578
        7b 2048 6 1 10643      13b 2048 2 1 4792""",
    "a100": """
        125m 512 128 2 165681  125m 2048 40 2 142830   125m 8192 8 2 90392
        350m 512 128 2 69330   350m 2048 32 2 58782    350m 8192 8 2 36569
        760m 512 96 2 29446    760m 2048 24 2 32434    760m 8192 6 2 20933
        1b 512 56 4 23148      1b 2048 14 4 20513      1b 8192 3 4 13814
        3b 512 40 6 12127      3b 2048 10 2 10811      3b 8192 3 6 7695
        7b 2048 6 2 4641       13b 2048 2 3 2262""",
    "a100-40": """
        125m 512 104 3 156735  125m 2048 26 3 136334   125m 8192 5 3 86858
        350m 512 64 4 66284    350m 2048 16 4 55995    350m 8192 4 4 34933
        760m 512 48 4 34938    760m 2048 12 4 30173    760m 8192 3 4 20106
        1b 512 32 8 21782      1b 2048 8 8 19271       1b 8192 2 8 13474
        3b 512 20 8 11324      3b 2048 5 8 10065       3b 8192 1 8 7149""",
}


def foundry(card: str) -> list[Published]:
    """The rows of one of llm-foundry's tables."""
    words, rows = FOUNDRY[card].split(), list[Published]()
    for name, *numbers in (words[i : i + 5] for i in range(0, len(words), 5)):
        length, windows, parts, speed = map(int, numbers)
        model = gpt(*MPT[name], 50_368, length)
        rows.append(
            Published(
                f"llm-foundry {name}",
                GPUS[card],
                model,
                windows,
                parts,
                speed,
                FUSED_LOSS,
                LLM_FOUNDRY,
                card != "a100-40",
            )
        )
    return rows


A100, A100_40, H100 = (GPUS[name] for name in ("a100", "a100-40", "h100"))
SMALL, MEDIUM, LARGE, XL = gpt(12, 768, 12), gpt(24, 1024, 16), gpt(36, 1280, 20), gpt(48, 1600, 25)
LLAMA_7B = llama(32, 4096, (32, 32), 11_008, 32_000, 4096)
LLAMA_8B = llama(32, 4096, (32, 8), 14_336, 128_256, 8192)
LLAMA_13B = llama(40, 5120, (40, 40), 13_824, 32_000, 4096)
TINY_LLAMA = llama(22, 2048, (32, 4), 5632, 32_000, 2048)
BABY = gpt(6, 384, 6, 65, 256)
STEP = 2**19
"""Tokens of a step of llm.c and modded-nanogpt, on 8 GPUs."""

OTHERS = [
    Published("llm.c", A100, SMALL, 64, 1, STEP / 8 / 0.300, COMPILED, LLM_C + "124M.sh", True),
    Published("llm.c", A100, MEDIUM, 64, 1, STEP / 8 / 0.820, COMPILED, LLM_C + "350M.sh", True),
    Published("llm.c", A100, LARGE, 32, 2, STEP / 8 / 1.7, COMPILED, LLM_C + "774M.sh"),
    Published("llm.c", H100, XL, 16, 8, 2 * STEP / 8 / 2.80, COMPILED, LLM_C + "1558M.sh"),
    Published(
        "llm.c", H100, SMALL, 64, 1, STEP / 8 / 0.140, COMPILED, MODDED + "2024-10-13_llmc", True
    ),
    Published(
        "modded-nanogpt",  # with Adam
        H100,
        SMALL,
        64,
        1,
        STEP / 8 / 0.1386,
        COMPILED,
        MODDED + "2024-10-29_Optimizers",
    ),
    Published(
        "modded-nanogpt",  # with Muon, the matrices shared among the GPUs
        H100,
        gpt(52, 1536, 12),
        10,
        6,
        491_520 / 8 / 1.70356,
        COMPILED,
        MODDED + "2024-10-20_ScaleUp1B",
    ),
    Published(
        "nanoGPT",
        GPUS["4090"],
        SMALL,
        12,
        40,
        491_520 / 4.622,
        COMPILED,
        "https://github.com/karpathy/nanoGPT/pull/225",
    ),
    Published(
        "nanoGPT",  # with dropout
        GPUS["a6000"],
        BABY,
        64,
        40,
        64 * 256 * 40 / 1.608,
        COMPILED,
        "https://github.com/karpathy/nanoGPT/pull/225",
    ),
    Published(
        "build-nanogpt",
        A100,
        SMALL,
        64,
        1,
        1.1e6 / 8,
        COMPILED,
        "https://debtirthasaha.github.io/blog/2026/gpt2-124m/",
    ),
    Published(
        "nanochat d20",
        A100,
        replace(gpt(20, 1280, 10, 65_536, 2048), tied_head=False, positions="rope"),
        32,
        1,
        528_000 / 8,
        COMPILED,
        "https://github.com/karpathy/nanochat/pull/147",
    ),
    Published(
        "TinyLlama",
        A100_40,
        TINY_LLAMA,
        8,
        8,
        24_000,
        COMPILED,
        "https://github.com/jzhang38/TinyLlama/blob/main/README.md",
    ),
    Published("fms-fsdp 7b", A100, LLAMA_7B, 2, 1, 4550, COMPILED, IBM),
    Published("fms-fsdp 7b", H100, LLAMA_7B, 2, 1, 9600, COMPILED, IBM),
    Published("torchtitan 13b", A100, LLAMA_13B, 2, 1, 2162, PLAIN, TITAN_A100),
    Published("torchtitan 8b", A100, LLAMA_8B, 1, 1, 2973, PLAIN, TITAN_A100, recomputed=1 / 6),
    Published("torchtitan 8b", COOL_H100, LLAMA_8B, 2, 1, 5762, PLAIN, TITAN, recomputed=1 / 6),
    Published("torchtitan 8b", COOL_H100, LLAMA_8B, 2, 1, 6667, COMPILED, TITAN, recomputed=1 / 6),
]

RUNS = [*foundry("h100"), *foundry("a100"), *foundry("a100-40"), *OTHERS]


@dataclass(frozen=True)
class Sent:
    """A measured all-reduce."""

    what: str
    n_bytes: float
    n_gpus: int
    n_machines: int
    link: float
    network: float
    bus: float
    """Bytes per second as nccl-tests tells them: 2 (n - 1) / n bytes sent, by the time."""
    source: str


NETWORKS = "https://github.com/stas00/ml-engineering/blob/master/network/README.md"
H200, B200 = GPUS["h200"].link, GPUS["b200"].link
ALL_REDUCES = [
    Sent("8 H200", 2**20, 8, 1, H200, 0, 39.93e9, NETWORKS),
    Sent("8 H200", 2**26, 8, 1, H200, 0, 346.51e9, NETWORKS),
    Sent("8 H200", 2**29, 8, 1, H200, 0, 450.29e9, NETWORKS),
    Sent("8 B200", 2**20, 8, 1, B200, 0, 36.06e9, NETWORKS),
    Sent("8 B200", 2**26, 8, 1, B200, 0, 400.60e9, NETWORKS),
    Sent("8 B200", 2**29, 8, 1, B200, 0, 688.99e9, NETWORKS),
    Sent("4 x 8 B200", 2**20, 32, 4, B200, 400e9, 5.37e9, NETWORKS),
    Sent("4 x 8 B200", 2**26, 32, 4, B200, 400e9, 156.74e9, NETWORKS),
    Sent("4 x 8 B200", 2**29, 32, 4, B200, 400e9, 326.90e9, NETWORKS),
    Sent("4 x 8 B200", 2**32, 32, 4, B200, 400e9, 377.34e9, NETWORKS),
    Sent(
        "8 A100",
        2**32,
        8,
        1,
        A100.link,
        0,
        232.54e9,
        "https://github.com/NVIDIA/nccl-tests/issues/175",
    ),
    Sent(
        "2 x 8 A100",
        2**32,
        16,
        2,
        A100.link,
        100e9,
        86e9,
        "https://github.com/NVIDIA/nccl-tests/issues/175",
    ),
    Sent(
        "2 x 8 A100",
        2**33,
        16,
        2,
        A100.link,
        100e9,
        91e9,
        "https://github.com/NVIDIA/nccl-tests/issues/100",
    ),
    Sent(
        "2 x 8 A100, RoCE",
        2**32,
        16,
        2,
        A100.link,
        100e9,
        75e9,
        "https://github.com/NVIDIA/nccl/issues/495",
    ),
    Sent(
        "2 x 4 A100, TCP",
        2e9,
        8,
        2,
        A100.link,
        12.5e9,
        5.08e9,
        "https://github.com/lm-sys/FastChat/pull/9",
    ),
]
"""The size of #495's is not told."""
