"""The table of all steps. Free of torch, so that the list appears at once."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from folio.ladder.sizes import Sizes

if TYPE_CHECKING:
    from torch import nn


COURSE = "a public course"
"""Builds a GPT in these steps; its losses are those that it reports."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step that has a file of its own."""

    number: int
    module: str
    """The file in this folder that has the model."""
    idea: str
    """What it adds to the previous step."""
    source: str
    expected: float
    """Validation loss that COURSE reports for this step, in nats per character of tiny
    Shakespeare."""
    learning_rate: float = 1e-3


STEPS = (
    Step(
        number=0,
        module="step0_bigram",
        idea="a table: the last character alone",
        source="https://doi.org/10.1002/j.1538-7305.1948.tb01338.x",
        expected=2.49,
        # A row is updated only when its character occurs, and starts far from its optimum.
        learning_rate=1e-2,
    ),
    Step(
        number=1,
        module="step1_head",
        idea="one self-attention head",
        source="https://arxiv.org/abs/1706.03762",
        expected=2.4114,
    ),
    Step(
        number=2,
        module="step2_heads",
        idea="four heads side by side",
        source="https://arxiv.org/abs/1706.03762",
        expected=2.3049,
    ),
    Step(
        number=3,
        module="step3_feed_forward",
        idea="a linear feed-forward layer",
        source="https://arxiv.org/abs/1706.03762",
        expected=2.2645,
    ),
    Step(
        number=4,
        module="step4_blocks",
        idea="three blocks of four heads",
        source="https://arxiv.org/abs/1512.03385",
        expected=2.2915,
    ),
    Step(
        number=5,
        module="step5_residuals",
        idea="residual connections, an MLP of four times the width",
        source="https://arxiv.org/abs/1512.03385",
        expected=2.0771,
    ),
    Step(
        number=6,
        module="step6_layer_norm",
        idea="LayerNorm before each sublayer",
        source="https://arxiv.org/abs/2002.04745",
        expected=2.0694,
    ),
)


def build_model(step: Step, sizes: Sizes) -> nn.Module:
    """Build the model of a step, with weights drawn from torch's global random state."""
    return importlib.import_module(f"folio.ladder.{step.module}").build(sizes)
