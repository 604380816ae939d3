"""Checkpoints by the clock."""

from __future__ import annotations

import time

import pytest

from folio.training.saving import SaveTimer
from folio.training.state import TrainingState


def test_a_checkpoint_is_due_so_many_minutes_after_the_last_one(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    timer, never = SaveTimer(2), SaveTimer(0)
    now[0] += 119
    assert not timer.is_due()
    now[0] += 1
    assert timer.is_due() and timer.is_due(), "until there is one"
    timer.save(TrainingState())
    assert not timer.is_due()
    now[0] += 120
    assert timer.is_due() and not never.is_due()
