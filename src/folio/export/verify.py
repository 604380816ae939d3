"""Compare a run with what was read back from the files that were made of it.

Shapes:  B windows · T positions · V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio.errors import UserError
from folio.export.foreign import Foreign
from folio.model.loss import next_token_loss
from folio.run.model import Model

HOSTILE = (
    "",
    " ",
    "   ",
    "\n",
    "\r\n\r\n",
    "\t\ttabs\tand  spaces ",
    " leading, trailing ",
    "I'LL we'Ve they're 'tis O'Neil's ''s",
    "3.14159 100,000 1234567890 12 345 ١٢٣٤ ½ Ⅷ²",
    "snake_case CamelCase kebab-case __init__ a.b.c",
    "def f(x):\n    return x  # twice\n\n\n",
    "naïve café, Äpfel, ÀÉÎ, e\u0301 ﬁ ſt",
    "漢字かな交じり文、テスト。한국어 ไทย العربية עברית हिन्दी",
    "Ελληνικά ΣΑΣ, Русский ёж, ǅ",
    "🙂👩‍👩‍👧‍👦🇩🇪 ☃️ 🏳️‍🌈",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u0085g\u001dh",
    "\x00\x01\x07\x1b[31m\x7f\ufeff\uffff\ufffd",
    "<|endoftext|> <bos> <eos> <unk> </s> [INST] <|im_start|> <think>",
    "\u2581 Ġ Ċ ## ▁the",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "https://example.org/a?b=c&d=%20#e me@example.org",
    '!!!???...---***((([[[{{{}}}]]])))"""```',
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n",
    "1  2   3    4\n 5\n  6 a1b2 c3",
)
"""Texts on which tokenizers that are almost the same part ways."""
MOST_TOKENS, WINDOWS = 1024, 4
"""Most tokens that are read, and most windows. These are as long as the context, since a wrong
position may be a late one."""
WORST_LOSS = {"f32": 1e-3, "f16": 1e-3, "bf16": 3e-3, "q8_0": 7e-3, "int8": 7e-3}
"""Nats by which the loss may differ, by type: three times and more what trained models showed, f16
0.0001, bf16 0.0006, q8_0 0.0021 and int8 0.0019 (docs/experiments.md). A block or a row with a
wrong scale shows much more."""
WITHOUT_TEXT = 4.0
"""Times as much where a run has no text of its own: texts of many kinds have few tokens that a
small vocabulary knows, again and again, so that what is rounded does not average out."""


@dataclass(frozen=True)
class Verified:
    """Says how far what was read back is from the run."""

    texts: int
    """Hostile ones, and the run's own."""
    tokens: int
    """Number of tokens of the texts that both models read."""
    of_text: str
    """Name of the text, such as the validation text."""
    logit_difference: float
    """Largest difference of logits."""
    loss: float
    """Loss of the run on these tokens, in nats per token."""
    other_loss: float


def verify(opened: Model, foreign: Foreign, kind: str, tolerance: float) -> Verified:
    """Compare token ids on hostile texts, and logits and loss on the run's own text.

    Args:
        opened: the run.
        foreign: what was read back.
        kind: type of the weights.
        tolerance: of logits, where the weights are float32.

    Raises:
        UserError: they differ by more than the type explains.
    """
    texts = [*HOSTILE, *_own_texts(opened)]
    for text in texts:
        ours, theirs = (t.encode(text).tolist() for t in (opened.tokenizer, foreign.tokenizer))
        if ours != theirs:
            raise UserError(
                f"The tokenizer that was written gives other ids than the run's for {text[:40]!r}: "
                f"{theirs[:8]}, not {ours[:8]}. Nothing was exported."
            )
    windows, of_text = _windows(opened)
    n_ids = opened.tokenizer.vocab_size
    with torch.no_grad():
        ours = opened.model(windows)[:, :, :n_ids].float()  # (B, T, V)
        theirs = foreign.model()(windows)[:, :, :n_ids]
    difference = float((ours - theirs).abs().max())
    losses = [_loss(logits, windows) for logits in (ours, theirs)]
    scale = max(1.0, float(ours.abs().max()) / 10)  # of ten, float32 keeps six digits
    too_far = kind == "f32" and not difference <= tolerance * scale
    worst = WORST_LOSS.get(kind, max(WORST_LOSS.values())) * (
        1 if opened.has_text else WITHOUT_TEXT
    )
    if too_far or not abs(losses[0] - losses[1]) <= worst:
        raise UserError(
            f"What was written computes something else than the run: logits differ by "
            f"{difference:.3g}, the loss is {losses[1]:.4f}, not {losses[0]:.4f}. Nothing was "
            f"exported."
        )
    return Verified(len(texts), windows.numel(), of_text, difference, *losses)


def _loss(logits: Tensor, windows: Tensor) -> float:
    return float(next_token_loss(logits[:, :-1], windows[:, 1:]))


def _own_texts(opened: Model) -> list[str]:
    """Return some lines of the run's own text."""
    if not opened.has_text:
        return []
    return opened.tokenizer.decode(opened.validation()[:2000], skip_special=True).splitlines()[:20]


def _windows(opened: Model) -> tuple[Tensor, str]:
    """Return (B, T) token ids of the validation text, or of hostile texts if there is none."""
    tokens: NDArray[np.int64] = np.zeros(0, np.int64)
    of_text = "the run's validation text"
    if opened.has_text:
        tokens = np.asarray(opened.validation()[:MOST_TOKENS], np.int64)
    if len(tokens) < 3:
        encoded = [opened.tokenizer.encode(text) for text in HOSTILE]
        tokens, of_text = np.concatenate(encoded).astype(np.int64), "texts of many kinds"
    length = min(MOST_TOKENS, opened.model.config.context_length, len(tokens))
    n = min(WINDOWS, MOST_TOKENS // length, len(tokens) // length)
    return torch.from_numpy(tokens[: n * length].reshape(n, length)), of_text
