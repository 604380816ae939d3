"""What stands in the window counts by Witten and Bell's rule, however it is looked up."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.ngrams.window import (
    LONGEST,
    WindowRule,
    count_targets,
    count_window,
    mix_in,
    mix_in_targets,
)

V = 4
Window = list[int]
windows = st.lists(st.integers(0, V - 1), min_size=1, max_size=40)
rules = st.builds(WindowRule, st.sampled_from([0.5, 3.0, 8.0]), st.integers(1, LONGEST))
START = np.array([0.4, 0.3, 0.2, 0.1], np.float32)


def by_definition(window: Window, rule: WindowRule) -> NDArray[np.float64]:
    """(V,) what follows a window, by searching it for its own end."""
    p = START.astype(np.float64)
    for n in range(rule.shortest, LONGEST + 1):
        end = window[-n:]
        ends = [i for i in range(n - 1, len(window) - 1) if window[i - n + 1 : i + 1] == end]
        if not ends or len(window) < n:
            break
        counts = Counter(window[i + 1] for i in ends)
        kept = rule.k * len(counts)
        p *= kept / (len(ends) + kept)
        for token, count in counts.items():
            p[token] += count / (len(ends) + kept)
    return p


@given(windows, rules)
def test_probabilities_are_those_of_the_definition(window: Window, rule: WindowRule):
    found = np.tile(START, (len(window), 1))
    mix_in(found, count_window(np.array(window), len(window)), rule)
    for i, row in enumerate(found):
        np.testing.assert_allclose(row, by_definition(window[: i + 1], rule), rtol=1e-5)
        np.testing.assert_allclose(row.sum(), 1, rtol=1e-5)


@given(windows, rules, st.integers(0, V - 1))
def test_those_of_the_targets_are_found_without_the_others(
    window: Window, rule: WindowRule, last: int
):
    ids, targets = np.array(window), np.array([*window[1:], last])
    found = np.tile(START, (len(window), 1))
    mix_in(found, count_window(ids, len(ids)), rule)
    alone = START[targets].astype(np.float64)
    mixed = mix_in_targets(alone, count_targets(ids, targets), rule)
    np.testing.assert_allclose(mixed, found[range(len(ids)), targets], rtol=1e-5)


@given(windows, rules)
def test_the_last_positions_are_found_without_the_others(window: Window, rule: WindowRule):
    ids = np.array(window)
    whole = np.tile(START, (len(window), 1))
    mix_in(whole, count_window(ids, len(ids)), rule)
    for n in (1, len(window) // 2 + 1):
        last = np.tile(START, (n, 1))
        mix_in(last, count_window(ids, n), rule)
        np.testing.assert_array_equal(last, whole[-n:])


def test_what_stands_once_in_a_window_changes_nothing():
    found = np.tile(START, (V, 1))
    mix_in(found, count_window(np.arange(V), V), WindowRule(1.0, 1))
    np.testing.assert_array_equal(found, np.tile(START, (V, 1)))
