"""What loss a size and a budget will come to on a text, before any of it is trained.

One short run of the smallest size on the text, the anchor, says how hard the text is. Relative to
its loss a longer run of another size follows one rule for all texts:

    loss / anchor = E + A / N^a + B / D^b

with N the weights in the blocks and D what the training amounts to in fresh tokens: a repeated
token counts less each time, and so does one in a large batch.

Sources: the sum, Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556; repeated tokens,
Muennighoff et al. 2023, https://arxiv.org/abs/2305.16264, equation 5; large batches, McCandlish
et al. 2018, https://arxiv.org/abs/1812.06162, section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.storage import read_json

ANCHOR_SIZE = "nano"
ANCHOR_STEPS = 150


@dataclass(frozen=True)
class LossRule:
    """The constants; `python -m bench.planning --calibrate` fits them to recorded runs."""

    floor: float
    """E: of an endless model on an endless text."""
    size_scale: float
    """A."""
    size_exponent: float
    """a."""
    data_scale: float
    """B."""
    data_exponent: float
    """b."""
    worthwhile_repeats: float
    """Epochs after the first, beyond which most of a repeated token's worth is gone."""
    critical_batch: float
    """Tokens in a batch at which a token is worth half of one in a small batch."""
    band: float
    """Two standard errors of a prediction, as a share of the loss."""

    def relative_loss(
        self, n_parameters: float, tokens_per_step: int, steps: int, text_tokens: int
    ) -> float:
        """Best validation loss of a run as a share of the anchor's.

        Args:
            n_parameters: in the blocks, as `block_parameters` counts them.
            tokens_per_step: batch size times context length.
            steps: of the whole schedule.
            text_tokens: of the training text.
        """
        fresh = self.fresh_tokens(tokens_per_step, steps, text_tokens)
        by_size = self.size_scale / n_parameters**self.size_exponent
        return self.floor + by_size + self.data_scale / fresh**self.data_exponent

    def fresh_tokens(self, tokens_per_step: int, steps: int, text_tokens: int) -> float:
        """D: so many tokens, each seen once in small batches, would teach as much."""
        useful = tokens_per_step * steps / (1 + tokens_per_step / self.critical_batch)
        repeats = useful / text_tokens - 1
        if repeats <= 0:
            return useful
        worth = self.worthwhile_repeats * -math.expm1(-repeats / self.worthwhile_repeats)
        return text_tokens * (1 + worth)


RULE = LossRule(
    floor=0.417,
    size_scale=6.8,
    size_exponent=0.35,
    data_scale=989.0,
    data_exponent=0.65,
    worthwhile_repeats=8.0,
    critical_batch=8000.0,
    band=0.15,
)
"""Provisional: fitted to ten runs of 0.2 and 0.8 M parameters, with the size's part assumed from
probes of 0.8 and 10.7 M; the band is assumed too (docs/experiments.md)."""


def block_parameters(model: ModelConfig) -> int:
    """Weights outside of the tables from and to token ids, which depend on the vocabulary."""
    tables = model.vocab_size * model.d_model * (1 if model.tied_head else 2)
    return model.n_parameters - tables


def anchor_file(training_file: Path) -> Path:
    """Where the anchor's loss is kept: in the cache, beside the tokens that it belongs to."""
    return training_file.with_name("anchor.json")


def read_anchor(training_file: Path) -> float | None:
    """The anchor's loss in nats per token; None where `folio plan` has not measured it."""
    try:
        return float(read_json(anchor_file(training_file))["loss"])
    except (UserError, KeyError, TypeError):
        return None
