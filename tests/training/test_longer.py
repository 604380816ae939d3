"""What is said of a longer budget."""

from __future__ import annotations

from folio.training.longer import tell_rate_jump
from folio.training.schedule import ScheduleConfig


def test_a_rate_that_jumps_back_is_told_and_one_that_goes_on_is_not():
    falls = ScheduleConfig(kind="linear", warmup_fraction=0, cooldown_fraction=1, final_fraction=0)
    line = tell_rate_jump(falls, 20, 20, 80)
    assert "from 0% to 74% of its peak" in line and "--schedule.horizon-steps 80" in line
    assert not tell_rate_jump(falls, 10, 20, 20)  # nothing was changed
    assert not tell_rate_jump(falls, 20, 80, 40)  # shorter
    flat = ScheduleConfig(kind="linear", warmup_fraction=0, cooldown_fraction=0)
    assert not tell_rate_jump(flat, 20, 20, 80)
    room = ScheduleConfig(kind="linear", warmup_fraction=0, cooldown_fraction=1, horizon_steps=80)
    assert not tell_rate_jump(room, 20, 20, 80)
