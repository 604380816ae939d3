"""Step 9: what newer papers changed, one change at a time, and what was kept of it.

Every run is an ordinary one, `folio train` with a few settings, and differs from the first only in
the change that its row names: text, order of reading, budget and learning rate are the same.
Whether a change pays at another size, length or learning rate is another question.

The budget is equal steps, or equal time, of which a slow step makes fewer. Rows at equal time
depend on the machine and on what else runs on it.

Free of torch, so that the list appears at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from folio.config import Table, merge, unknown_name
from folio.console import amount
from folio.errors import UserError
from folio.evaluation.uncertainty import seed_noise, student_quantile

MAX_STEPS = 1000

BASE: Table = {
    "preset": "gpt2",
    "size": "nano",
    "tokenizer": {"kind": "character"},
    "model": {"d_model": 64, "context_length": 64},
    "optimizer": {
        "kind": "adamw",
        "learning_rate": 2e-3,
        "matrix_learning_rate": 0.02,
        # Muon as in Jordan's code.
        "matrix_beta2": 1.0,
        "cautious_decay": False,
    },
    "schedule": {
        "kind": "cosine",
        "warmup_fraction": 0.05,
        "cooldown_fraction": 0.4,
        "final_fraction": 0.1,
    },
    "training": {"batch_size": 12},
    # One precision and one thread, so that a row is the same on any day.
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


@dataclass(frozen=True)
class Change:
    """One change: a row of the ablation table."""

    name: str
    what: str
    source: str
    settings: Table
    """The settings that are changed in BASE."""


BASELINE = Change(
    "gpt2",
    "GPT-2's block, AdamW, cosine",
    "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
    {},
)

KEPT: Table = {
    "preset": "modern",
    "optimizer": {"kind": "muon"},
    "schedule": {"kind": "linear"},
}
NGRAMS: Table = {"ngrams": {"order": 10}}

CHANGES = (
    BASELINE,
    Change(
        "rope",
        "rotary positions for learned ones",
        "https://arxiv.org/abs/2104.09864",
        {"model": {"positions": "rope"}},
    ),
    Change(
        "sinusoidal",
        "sinusoidal positions, embeddings times sqrt(d)",
        "https://arxiv.org/abs/1706.03762",
        # Sinusoids are as large as 1; without the factor they would drown embeddings of 0.02.
        {"model": {"positions": "sinusoidal", "scale_embeddings": True}},
    ),
    Change(
        "rmsnorm",
        "RMSNorm for LayerNorm",
        "https://arxiv.org/abs/1910.07467",
        {"model": {"normalization": "rmsnorm"}},
    ),
    Change(
        "qk-norm",
        "queries and keys normalized",
        "https://arxiv.org/abs/2010.04245",
        {"model": {"qk_norm": True}},
    ),
    Change(
        "post-norm",
        "norms after the sum, not before the sublayer",
        "https://arxiv.org/abs/2002.04745",
        {"model": {"norm_placement": "post"}},
    ),
    Change(
        "swiglu",
        "SwiGLU for GELU, about as many parameters",
        "https://arxiv.org/abs/2002.05202",
        {"model": {"activation": "swiglu"}},
    ),
    Change(
        "relu2",
        "squared ReLU for GELU",
        "https://arxiv.org/abs/2109.08668",
        {"model": {"activation": "relu2"}},
    ),
    Change(
        "no-bias",
        "no biases",
        "https://arxiv.org/abs/2204.02311",
        {"model": {"bias": False}},
    ),
    Change(
        "untied",
        "a head of its own, not the embedding",
        "https://arxiv.org/abs/1608.05859",
        {"model": {"tied_head": False}},
    ),
    Change(
        "wsd",
        "a plateau and a linear cooldown (WSD) for cosine",
        "https://arxiv.org/abs/2405.18392",
        {"schedule": {"kind": "linear"}},
    ),
    Change(
        "muon",
        "Muon for AdamW on the matrices within the blocks",
        "https://kellerjordan.github.io/posts/muon/",
        {"optimizer": {"kind": "muon"}},
    ),
    Change(
        "modern",
        "the preset modern: RoPE, RMSNorm, QK-norm, SwiGLU, no biases",
        "https://arxiv.org/abs/2505.09388",
        {"preset": "modern"},
    ),
    Change(
        "kept",
        "the preset modern, Muon, and a plateau",
        # Of the part that gives most; the sources of the other two are those of their own rows.
        "https://kellerjordan.github.io/posts/muon/",
        KEPT,
    ),
    Change(
        "n-grams",
        "GPT-2's block beside n-grams of 10 tokens",
        "https://doi.org/10.1006/csla.1999.0128",
        NGRAMS,
    ),
    Change(
        "all",
        "the preset modern, Muon, and a plateau, beside n-grams of 10 tokens",
        # Of the product of the two probabilities.
        "https://doi.org/10.1214/ss/1177013825",
        merge(KEPT, NGRAMS),
    ),
)


def find_change(name: str) -> Change:
    """Return the change of this name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    for change in CHANGES:
        if change.name == name:
            return change
    names = [change.name for change in CHANGES]
    raise UserError(unknown_name("row", name, names) + f" There are {', '.join(names)}.")


@dataclass(frozen=True)
class Budget:
    """What each row has: equal steps, or equal time.

    >>> str(Budget()), str(Budget(minutes=0.75))
    ('1,000 steps', '0.75 minutes')
    """

    max_steps: int = MAX_STEPS
    minutes: float | None = None
    """For the whole run, from reading the text to its card, in place of the steps."""

    @property
    def settings(self) -> Table:
        """Settings of [training], with one evaluation, at the end."""
        if self.minutes is None:
            return {"max_steps": self.max_steps, "evaluation_interval": self.max_steps}
        return {"minutes": self.minutes, "evaluations": 1}

    def run_name(self, change: Change, seed: int) -> str:
        """Name the run of a change; runs of equal steps and of other minutes have other names.

        >>> Budget().run_name(BASELINE, 1), Budget(minutes=0.75).run_name(BASELINE, 1)
        ('ladder-9-gpt2-1', 'ladder-9-0.75min-gpt2-1')
        """
        time = "" if self.minutes is None else f"{self.minutes:.15g}min-"
        return f"ladder-9-{time}{change.name}-{seed}"

    def __str__(self) -> str:
        if self.minutes is None:
            return amount(self.max_steps, "step")
        return amount(self.minutes, "minute")


def settings_of(change: Change, seed: int, sources: Sequence[str], budget: Budget) -> Table:
    """Return the settings of one run, for `make_recipe`."""
    run: Table = {
        "seed": seed,
        "corpus": {"sources": list(sources)},
        "training": budget.settings,
    }
    return merge(BASE, change.settings, run)


@dataclass(frozen=True)
class Row:
    """The results of one change."""

    change: Change
    n_parameters: int
    losses: list[float]
    """Validation loss in nats per token at the end, for each seed; of model and n-grams together
    where a row has both."""
    seconds: list[float] = field(default_factory=list)
    """Of training, without what follows it, such as counting n-grams, for each seed."""
    steps: list[int] = field(default_factory=list)
    """Made until the end, for each seed."""

    @property
    def mean(self) -> float:
        """Mean loss over the seeds."""
        return mean(self.losses)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        return stdev(self.losses) if len(self.losses) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """A row compared with the baseline."""

    difference: float
    """Difference of the means in nats per token; negative is better."""
    standard_error: float | None
    """Standard error of the difference; None if no row has two seeds."""
    freedom: int = 0
    """Degrees of freedom of that error."""

    @property
    def verdict(self) -> str:
        """The verdict in words.

        Only three standard errors count as a difference, more where few seeds say how large they
        are: among so many rows, one in twenty would exceed two by chance.
        """
        if self.standard_error is None:
            return "one seed does not tell"
        if abs(self.difference) <= max(3.0, student_quantile(self.freedom)) * self.standard_error:
            return "no difference seen"
        return "helps" if self.difference < 0 else "hurts"


def compare(rows: Sequence[Row]) -> dict[str, Comparison]:
    """Compare every row with the baseline, which must be among them.

    The deviation between seeds is assumed to be the same in all rows, since three seeds per row say
    little about it and all rows together say more. Those beside n-grams, which hardly differ by
    their seeds, do not count for it.

    >>> rows = [Row(BASELINE, 1, [1.50, 1.52]), Row(find_change("rope"), 1, [1.40, 1.42])]
    >>> rope = compare(rows)["rope"]
    >>> round(rope.difference, 4), round(rope.standard_error, 4), rope.verdict
    (-0.1, 0.0141, 'helps')
    """
    (baseline,) = [row for row in rows if row.change is BASELINE]
    noise = seed_noise([r.losses for r in rows if "ngrams" not in r.change.settings])
    comparisons = {}
    for row in rows:
        if row is baseline:
            continue
        found = Comparison(row.mean - baseline.mean, None)
        if noise is not None:
            error = noise.error(len(row.losses), len(baseline.losses))
            found = replace(found, standard_error=error, freedom=noise.freedom)
        comparisons[row.change.name] = found
    return comparisons


def records(rows: Sequence[Row], budget: Budget) -> list[dict[str, Any]]:
    """Return what --json prints: one object per row, which names the minutes if it had some."""
    comparisons = compare(rows)
    found = []
    for row in rows:
        record: dict[str, Any] = {
            "row": row.change.name,
            "what": row.change.what,
            "source": row.change.source,
            "parameters": row.n_parameters,
            "validation_losses": row.losses,
            "mean": row.mean,
            "deviation": row.deviation,
            "seconds": row.seconds,
            "steps": row.steps,
        }
        if budget.minutes is not None:
            record["minutes"] = budget.minutes
        if other := comparisons.get(row.change.name):
            record |= {
                "difference": other.difference,
                "standard_error": other.standard_error,
                "verdict": other.verdict,
            }
        found.append(record)
    return found
