"""How many threads a step gets."""

from __future__ import annotations

import pytest

from folio.fast.threads import TRIAL_STEPS, TRY_AGAIN_SECONDS, FasterThreads


def test_one_thread_is_taken_while_all_are_slower_and_all_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
):
    clock, slow = [0.0], {1: 0.003, 2: 0.25}
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    threads = FasterThreads(2)

    def steps(n: int, n_tokens: int = 1) -> list[int]:
        taken = []
        for _ in range(n):
            with threads.timed(n_tokens) as n_threads:
                taken.append(n_threads)
                clock[0] += slow[n_threads]
        return taken

    trials = 2 * TRIAL_STEPS
    assert steps(trials + 40) == [2] * TRIAL_STEPS + [1] * (TRIAL_STEPS + 40)
    clock[0] += TRY_AGAIN_SECONDS
    assert steps(20) == [1, 2] + [1] * 18  # one look is enough
    slow[2] = 0.001
    clock[0] += TRY_AGAIN_SECONDS
    assert steps(50) == [1] + [2] * 49
    assert steps(1, n_tokens=40) == [2]  # of which nothing is known yet


def test_a_step_in_which_threads_wake_up_does_not_count(monkeypatch: pytest.MonkeyPatch):
    clock, waking = [0.0], [0.005]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    threads, taken = FasterThreads(2), []
    for _ in range(50):
        with threads.timed(1) as n_threads:
            taken.append(n_threads)
            clock[0] += 0.002 if n_threads == 1 else 0.001 + (waking.pop() if waking else 0)
    assert taken == [2] * TRIAL_STEPS + [1] * TRIAL_STEPS + [2] * (50 - 2 * TRIAL_STEPS)
