"""Learning rate and length of the windows, which depend on the step and never on a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from folio.config import require


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warmup, then a decay; and windows that may begin short."""

    kind: Literal["cosine", "linear"] = "cosine"
    """`cosine` decays from the end of warmup (https://arxiv.org/abs/1608.03983); `linear` stays on
    a plateau and cools down at the end (WSD, https://arxiv.org/abs/2405.18392)."""

    warmup_fraction: float = 0.05
    """Share of all optimizer steps. 0 starts at the peak."""

    cooldown_fraction: float = 0.4
    """Share of all optimizer steps in which `linear` decays. 0 never decays, 1 decays from the end
    of warmup."""

    final_fraction: float = 0.1
    """Learning rate at the end of the decay, as a share of the peak."""

    short_fraction: float = 0.0
    """Share of all optimizer steps, the first ones, that read short windows, and as many more of
    them. More windows say more of a text than longer ones while a model knows little
    (https://arxiv.org/abs/2108.06084). Until long ones begin, the model makes little of what is
    further back than a short one reaches, so evaluations read windows as short, and
    `training.patience` does not count them."""

    short_length: int = 128
    """Tokens in a short window, at most the context length."""

    horizon_steps: int = 0
    """Number of steps that the shares refer to; 0 means training.max_steps. Set it to leave room
    for a longer run that must have the same beginning."""

    pace: tuple[str, ...] = ()
    """How a budget in minutes was planned again, as STEP:LAST: from a step on, the rest of the
    schedule is spread over the steps up to the last one; STEP:LAST:EVALUATIONS if fewer evaluations
    follow than were planned. Folio writes it at the end of such a run, so that the recipe repeats
    it without a clock."""

    def __post_init__(self) -> None:
        shares = "warmup_fraction", "cooldown_fraction", "final_fraction", "short_fraction"
        require(self, "schedule", "a share, 0 to 1", lambda x: 0 <= x <= 1, *shares)
        require(self, "schedule", "1 or more", lambda x: x >= 1, "short_length")
        require(self, "schedule", "0 or more", lambda x: x >= 0, "horizon_steps")


def lr_scale_at(config: ScheduleConfig, step: float, max_steps: int) -> float:
    """Factor on the peak learning rate for a step.

    Args:
        config: the schedule.
        step: steps of progress already made, from 0; whole numbers except with a pace (pace.py).
        max_steps: steps of the run, overridden by `config.horizon_steps`.

    Returns:
        0 to 1. The decay ends with final_fraction; without one, the rate stays at 1. Steps after
        the horizon have the rate of its last one.

    >>> config = ScheduleConfig(kind="linear", warmup_fraction=0.2, cooldown_fraction=0.5)
    >>> [round(lr_scale_at(config, step, 10), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28, 0.1]
    """
    horizon = config.horizon_steps or max_steps
    warmup = round(config.warmup_fraction * horizon)
    if step < warmup:
        return min((step + 1) / warmup, 1.0)
    falling = horizon - warmup
    if config.kind == "linear":
        falling = min(round(config.cooldown_fraction * horizon), falling)
    fallen = min(max((step + 1 - (horizon - falling)) / falling, 0.0), 1.0) if falling else 0.0
    shape = (1 + math.cos(math.pi * fallen)) / 2 if config.kind == "cosine" else 1 - fallen
    return config.final_fraction + (1 - config.final_fraction) * shape


def window_length(config: ScheduleConfig, context_length: int, step: float, max_steps: int) -> int:
    """Tokens in each window of a step; arguments as for `lr_scale_at`.

    >>> config = ScheduleConfig(short_fraction=0.5, short_length=128)
    >>> [window_length(config, 512, step, 4) for step in range(4)]
    [128, 128, 512, 512]
    """
    is_short = step < round(config.short_fraction * (config.horizon_steps or max_steps))
    return min(config.short_length, context_length) if is_short else context_length
