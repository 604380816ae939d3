"""Named models: the family decides what blocks are made of, the size how many and how wide.

A preset is a table of default settings, each of which the user can override.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from folio.config import Table, merge, unknown_name
from folio.errors import UserError

FAMILIES: dict[str, Table] = {
    # The textbook model: Radford et al. 2019, as in nanoGPT and most courses.
    "gpt2": {
        "model": {
            "positions": "learned",
            "normalization": "layernorm",
            "norm_placement": "pre",
            "activation": "gelu",
            "bias": True,
            "tied_head": True,
            "qk_norm": False,
        },
    },
    # The graph of Qwen3 (https://arxiv.org/abs/2505.09388), so that other programs can run a model.
    "modern": {
        "model": {
            "positions": "rope",
            "normalization": "rmsnorm",
            "normalization_epsilon": 1e-6,
            "norm_placement": "pre",
            "activation": "swiglu",
            "bias": False,
            "tied_head": True,
            "qk_norm": True,
        },
        # Muon, and a learning rate that decays to zero over most of the run: docs/experiments.md,
        # "The lowest loss in a minute".
        "optimizer": {"kind": "muon"},
        "schedule": {
            "kind": "linear",
            "warmup_fraction": 0.02,
            "cooldown_fraction": 0.7,
            "final_fraction": 0.0,
        },
    },
}

# The model of `modern`, read beside the n-grams of its text once it is trained, which Qwen3's graph
# knows nothing of: docs/experiments.md, "A model beside n-grams".
FAMILIES["research"] = merge(FAMILIES["modern"], {"ngrams": {"order": 10}})


@dataclass(frozen=True)
class Size:
    """A size of a family: its shape, and how much a step reads."""

    n_layers: int
    n_heads: int
    d_model: int
    step_tokens: int
    context_length: int
    rotary_context: int
    """Context length with rotary positions, which need not be learned one by one; a step of 512
    costs a fifth more than one of 128. Learned positions are far from trained when such a model is
    done (docs/experiments.md, "Longer windows")."""
    counted_context: int = 0
    """Context length where what stands in the window counts (research), 0 for the usual one: longer
    ones say more (docs/experiments.md, "What stands in a window, mixed in last")."""

    def table(self, family: Table) -> Table:
        """The settings of this size in a family."""
        rotary = family["model"]["positions"] == "rope"
        context_length = self.rotary_context if rotary else self.context_length
        if "ngrams" in family:
            context_length = self.counted_context or context_length
        return {
            "model": {
                "n_layers": self.n_layers,
                "n_heads": self.n_heads,
                "d_model": self.d_model,
                "context_length": context_length,
            },
            "training": {"batch_size": self.step_tokens // context_length},
        }


SIZES = {
    "nano": Size(4, 4, 128, 1024, 128, 128, 512),  # 0.8 M parameters: minutes on a laptop
    "micro": Size(4, 6, 192, 2048, 128, 512, 1024),  # 1.8 M
    "mini": Size(6, 4, 256, 2048, 256, 512),  # 4.8 M
    "baby": Size(6, 6, 384, 16_384, 256, 512),  # 10.7 M: nanoGPT's "baby GPT"
    "small": Size(12, 12, 768, 16_384, 1024, 1024),  # 124 M with GPT-2's vocabulary
    "medium": Size(24, 16, 1024, 16_384, 1024, 1024),  # 350 M
}

RATE_TIMES_WIDTH = 0.5
"""For AdamW, alone or beside Muon. From width 64 to 256 the best learning rate falls with the
width, even a little faster (docs/experiments.md, "How the best rates move with the width"); at 768
this is the 6e-4 of GPT-3 (https://arxiv.org/abs/2005.14165, table 2.1)."""
MATRIX_RATE_TIMES_ROOT = 0.16
"""For Muon, times the square root of the width: its best learning rate falls as the width to the
power -0.45."""


def usual_rates(d_model: int, factor: float = 1.0) -> dict[str, float]:
    """The default learning rates for a width, times a factor.

    >>> usual_rates(256)
    {'learning_rate': 0.002, 'matrix_learning_rate': 0.01}
    """
    return {
        "learning_rate": two_digits(factor * RATE_TIMES_WIDTH / d_model),
        "matrix_learning_rate": two_digits(factor * MATRIX_RATE_TIMES_ROOT / math.sqrt(d_model)),
    }


def two_digits(number: float) -> float:
    """Round to two significant digits: no more are known."""
    return float(f"{number:.2g}")


def preset_table(family: str, size: str) -> Table:
    """The settings of a family and a size.

    Raises:
        UserError: an unknown name; the message has the nearest known one.
    """
    for noun, name, known in (("preset", family, FAMILIES), ("size", size, SIZES)):
        if name not in known:
            raise UserError(unknown_name(noun, name, known) + f" There are {', '.join(known)}.")
    return merge(FAMILIES[family], SIZES[size].table(FAMILIES[family]))
