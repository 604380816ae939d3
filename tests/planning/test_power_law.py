"""L(D) = E + B * D^-b from three or four points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.planning.power_law import SEED_ERROR, fit_power_law

SHARES = np.array([0.06, 0.12, 0.25, 0.5])


@given(st.floats(0.5, 3), st.floats(0.1, 1), st.floats(0.15, 0.9))
def test_a_true_power_law_is_found_again(floor: float, scale: float, exponent: float):
    law = fit_power_law(1e6 * SHARES, floor + scale * SHARES**-exponent)
    assert law(1e6) == pytest.approx(floor + scale, abs=0.02)


def test_more_text_never_predicts_a_higher_loss():
    law = fit_power_law(SHARES, [1.0, 1.1, 1.2, 1.3])
    assert law(1.0) <= law(0.5) + 1e-9 and law.scale == 0


def test_the_interval_holds_what_seeds_would_give():
    """Of 200 noisy sets of points, 90 % of the intervals hold the truth at twice the text."""
    random, truth, held = np.random.default_rng(1), 1.5 + 0.3 * SHARES**-0.4, 0
    for _ in range(200):
        law = fit_power_law(SHARES, truth + random.normal(0, SEED_ERROR, 4))
        low, high = law.interval(1.0)
        held += low <= 1.8 <= high
    assert held > 160


def test_the_gain_of_twice_the_text_is_surer_than_the_loss_itself():
    law = fit_power_law(SHARES, 1.5 + 0.3 * SHARES**-0.4)
    low, high = law.interval(1.0, reference=0.5)
    assert low < law(1.0) - law(0.5) < high < 0
    alone = law.interval(1.0)
    assert high - low < alone[1] - alone[0]
