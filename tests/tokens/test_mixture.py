from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.tokens.ignored import IGNORED
from folio.tokens.mixture import Mixture
from folio.tokens.stream import Batch, StreamConfig, StreamPosition, TokenStream

OLD = 1000
"""Tokens of the old text are numbers from here on."""


def mixture_of(n_new: int, n_old: int, window: int, share: float, seed: int = 0) -> Mixture:
    """Token i of the new text is the number i."""
    texts = (np.arange(n, dtype=np.uint32) + first for n, first in ((n_new, 0), (n_old, OLD)))
    new, old = (TokenStream(text, window, seed, StreamConfig()) for text in texts)
    return Mixture(new, old, share)


def counts_of(batch: Batch) -> tuple[int, int]:
    """Targets of the new and of the old text."""
    targets = batch.targets[batch.targets != IGNORED]
    return int((targets < OLD).sum()), int((targets >= OLD).sum())


def test_a_quarter_of_eight_windows_is_two_in_every_batch():
    mixture = mixture_of(500, 900, window=7, share=0.25)
    batches = [mixture.next_batch(8) for _ in range(8)]  # within the first epoch of both
    assert [counts_of(batch) for batch in batches] == [(6 * 7, 2 * 7)] * 8
    assert batches[0].inputs.shape == (8, 7)


@settings(max_examples=40)
@given(
    st.integers(12, 200),
    st.integers(12, 200),
    st.integers(1, 8),
    st.floats(0, 0.95),
    st.integers(2, 9),
)
def test_the_share_of_old_targets_is_never_off_by_more_than_a_window(
    n_new: int, n_old: int, window: int, share: float, n_windows: int
):
    mixture = mixture_of(n_new, n_old, window, share)
    n_all = n_there = 0
    for _ in range(30):
        new, old = counts_of(mixture.next_batch(n_windows))
        n_all, n_there = n_all + new + old, n_there + old
        # Windows at the edges of a text may be short: at most two an epoch, of either text.
        assert abs(n_there - share * n_all) <= 3 * window


@settings(max_examples=40)
@given(st.integers(12, 60), st.integers(12, 60), st.floats(0, 0.9), st.integers(0, 20))
def test_a_mixture_goes_on_from_its_place_exactly(n_new: int, n_old: int, share: float, n: int):
    whole = mixture_of(n_new, n_old, 5, share)
    for _ in range(n):
        whole.next_batch(3)
    other = mixture_of(n_new, n_old, 5, share)
    other.place = whole.place
    for _ in range(10):
        first, second = whole.next_batch(3), other.next_batch(3)
        assert np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.targets, second.targets)
        assert whole.place == other.place


def test_every_token_of_both_texts_is_a_target_once_an_epoch():
    mixture = mixture_of(61, 41, window=4, share=0.4)
    seen: list[int] = []
    while mixture.place.epoch < 1 or (mixture.place.kept or StreamPosition()).epoch < 1:
        targets = mixture.next_batch(5).targets
        seen += targets[targets != IGNORED].tolist()
    new, old = ([t for t in seen if (t >= OLD) == is_old] for is_old in (False, True))
    assert sorted(new[:60]) == list(range(1, 61))
    assert sorted(old[:40]) == list(range(OLD + 1, OLD + 41))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_place_survives_json(share: float):
    from dataclasses import asdict

    mixture = mixture_of(61, 41, window=4, share=share)
    mixture.next_batch(5)
    assert StreamPosition.of(asdict(mixture.place)) == mixture.place
    assert StreamPosition.of({"epoch": 2, "position": 7}) == StreamPosition(
        2, 7
    )  # of a run that is older
