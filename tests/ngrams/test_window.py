"""What stands in the window counts by Witten and Bell's rule, however it is looked up."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import count_window, expected_in_window, mix_in

V = 4
Window = list[int]
windows = st.lists(st.integers(0, V - 1), min_size=1, max_size=40)
START = np.array([0.4, 0.3, 0.2, 0.1], np.float32)


def by_definition(window: Window, k: float, order: int) -> NDArray[np.float64]:
    """(V,) what follows a window, by searching it for its own end."""
    p = START.astype(np.float64)
    for n in range(1, order + 1):
        end = window[-n:]
        ends = [i for i in range(n - 1, len(window) - 1) if window[i - n + 1 : i + 1] == end]
        if not ends or len(window) < n:
            break
        counts = Counter(window[i + 1] for i in ends)
        kept = k / n * len(counts)
        p *= kept / (len(ends) + kept)
        for token, count in counts.items():
            p[token] += count / (len(ends) + kept)
    return p


@given(windows, st.sampled_from([0.5, 3.0, 8.0]), st.integers(1, 8))
def test_probabilities_are_those_of_the_definition(window: Window, k: float, order: int):
    found = np.tile(START, (len(window), 1))
    mix_in(found, count_window(np.array(window), len(window), order), k)
    for i, row in enumerate(found):
        np.testing.assert_allclose(row, by_definition(window[: i + 1], k, order), rtol=1e-5)
        np.testing.assert_allclose(row.sum(), 1, rtol=1e-5)


@given(windows)
def test_the_last_positions_are_found_without_the_others(window: Window):
    ngrams, ids = count_ngrams(np.arange(20) % V, 3, V), np.array([window])
    whole = expected_in_window(ngrams, ids, 3.0, len(window))
    for n in (1, len(window) // 2 + 1):
        last = expected_in_window(ngrams, ids, 3.0, n)
        np.testing.assert_array_equal(last, whole[:, -n:])


def test_a_window_that_does_not_count_changes_nothing():
    ngrams, ids = count_ngrams(np.arange(20) % V, 3, V), np.array([[1, 2, 1, 2, 1], [0] * 5])
    np.testing.assert_array_equal(expected_in_window(ngrams, ids, 0, 5), ngrams.probabilities(ids))
    assert not np.allclose(expected_in_window(ngrams, ids, 3.0, 5), ngrams.probabilities(ids))


def test_weights_of_older_runs_have_no_window():
    assert Weights.of({"model": 0.7, "ngrams": 0.3}) == Weights(0.7, 0.3, 0.0)
    new = Weights(0.7, 0.3, 8.0)
    assert Weights.of(new._asdict()) == new
