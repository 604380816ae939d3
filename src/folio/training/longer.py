"""What is said when a run is trained longer than it was meant to be."""

from __future__ import annotations

from folio.training.schedule import ScheduleConfig, learning_rate_share


def tell_rate_jump(config: ScheduleConfig, step: int, before: int, after: int) -> str:
    """A line where the learning rate does not go on as it would have.

    Args:
        config: the schedule.
        step: steps already taken.
        before, after: all steps of the run, as it was planned and as it is now.

    Returns:
        The line; empty where the rate goes on within a tenth of its peak.
    """
    taken = max(step - 1, 0)
    old = learning_rate_share(config, min(taken, before - 1), before)
    new = learning_rate_share(config, step, after)
    if new <= old + 0.1:
        return ""
    return (
        f"the learning rate goes back from {old:.0%} to {new:.0%} of its peak, since its schedule "
        f"is stretched over {after:,} steps; the loss may rise at first. A run that leaves room "
        f"from the start: --schedule.horizon-steps {after}"
    )
