from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.tokens import stream as stream_module
from folio.tokens.ignored import IGNORED
from folio.tokens.permutation import permute
from folio.tokens.stream import Batch, StreamConfig, StreamPosition, TokenStream

ORDERS = st.sampled_from([StreamConfig(order="shuffled"), StreamConfig(order="sequential")])


def stream_of(
    n: int, window: int, seed: int = 0, config: StreamConfig | None = None, lanes: int = 1
) -> TokenStream:
    """Token i is the number i, so that a target names its place."""
    tokens = np.arange(n, dtype=np.uint32)
    return TokenStream(tokens, window, seed, config or StreamConfig(), lanes)


def windows_of(batch: Batch) -> list[list[int]]:
    return [[t for t in row if t != IGNORED] for row in batch.targets.tolist()]


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_permutation_maps_no_two_to_one(key: int, size: int):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_a_permutation_favours_no_place():
    counts = Counter(int(permute(np.array([0]), 6, key)[0]) for key in range(6000))
    # Six standard deviations of a binomial with p = 1/6.
    assert all(abs(counts[i] - 1000) < 6 * (6000 * 5 / 36) ** 0.5 for i in range(6))


@given(
    st.integers(2, 200),
    st.integers(1, 40),
    st.integers(0, 99),
    ORDERS,
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_every_token_is_a_target_once_an_epoch_whatever_the_batches(
    n: int,
    window: int,
    seed: int,
    config: StreamConfig,
    sizes: list[int],
    width: int,
):
    if n <= window:
        return
    stream = stream_of(n, window, seed, config, lanes=3)
    seen: list[int] = []
    turn = 0
    while len(seen) < 3 * (n - 1):
        batch = stream.next_batch(sizes[turn % len(sizes)], min(width, window))
        seen += [t for row in windows_of(batch) for t in row]
        turn += 1
    for epoch in range(3):
        assert sorted(seen[epoch * (n - 1) : (epoch + 1) * (n - 1)]) == list(range(1, n))


@given(st.integers(2, 100), st.integers(1, 20), ORDERS)
def test_targets_follow_their_inputs(n: int, window: int, config: StreamConfig):
    if n <= window:
        return
    stream = stream_of(n, window, config=config)
    for _ in range(10):
        batch = stream.next_batch(3)
        assert batch.inputs.shape == batch.targets.shape == (3, window)
        counted = batch.targets != IGNORED
        assert (batch.targets[counted] == batch.inputs[counted] + 1).all()
        for row in windows_of(batch):
            assert row == list(range(row[0], row[0] + len(row)))


def test_short_windows_come_from_all_over_the_text():
    n = 8 * 3000
    whole = {row[0] for row in windows_of(stream_of(n, 8, seed=5).next_batch(2999))}
    stream = stream_of(n, 8, seed=5)
    for k in range(4):  # all first pieces, then all second ones
        pieces = windows_of(stream.next_batch(2999, 2))
        assert {row[0] - 2 * k for row in pieces} == whole and len(pieces) == len(whole)


@pytest.mark.parametrize(("before", "after"), [(2, 8), (8, 2), (2, 4)])
def test_where_the_length_changes_as_many_are_read_twice_as_not_at_all(before: int, after: int):
    n = 8 * 64 * 3 + 1
    stream = stream_of(n, 8, seed=3)
    seen = [t for row in windows_of(stream.next_batch(100, before)) for t in row]
    while stream.place.epoch == 0:
        seen += [t for row in windows_of(stream.next_batch(1, after)) for t in row]
    assert 0 < len(seen) - len(set(seen)) == n - 1 - len(set(seen))


def test_a_stream_goes_on_exactly_from_its_place():
    one, other = stream_of(100, 8, seed=5), stream_of(100, 8, seed=5)
    for _ in range(7):
        one.next_batch(3)
    other.place = StreamPosition(**vars(one.place))
    for width in (8, 3, 8):
        a, b = one.next_batch(4, width), other.next_batch(4, width)
        assert (a.targets == b.targets).all()


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_places_that_are_looked_up_ahead_are_the_same(
    order: Literal["shuffled", "sequential"], monkeypatch: pytest.MonkeyPatch
):
    config = StreamConfig(order=order)

    def targets(ahead: int) -> list[list[list[int]]]:
        monkeypatch.setattr(stream_module, "AHEAD", ahead)
        stream = stream_of(100, 8, config=config, lanes=2)
        found = [windows_of(stream.next_batch(5)) for _ in range(7)]
        stream.place = StreamPosition(1, 16)
        return found + [windows_of(stream.next_batch(5, 3)) for _ in range(7)]

    assert targets(1) == targets(3) == targets(1024)


def test_epochs_and_seeds_differ_in_order_and_phase():
    stream = stream_of(1001, 10, seed=1)
    epochs = []
    for _ in range(2):
        epoch = []
        number = stream.place.epoch
        while stream.place.epoch == number:
            epoch += [tuple(row) for row in windows_of(stream.next_batch(1))]
        epochs.append(epoch)
    assert epochs[0] != epochs[1]
    assert {w[0] % 10 for w in epochs[0][:50]} != {w[0] % 10 for w in epochs[1][:50]}
    assert windows_of(stream_of(1001, 10, seed=2).next_batch(9)) != [list(w) for w in epochs[0][:9]]


def test_sequential_rows_go_on_where_they_stood():
    stream = stream_of(25, 3, config=StreamConfig(order="sequential"), lanes=2)
    first, second = windows_of(stream.next_batch(2)), windows_of(stream.next_batch(2))
    assert first == [[1, 2, 3], [13, 14, 15]]
    assert second == [[4, 5, 6], [16, 17, 18]]
    third, fourth = (windows_of(stream.next_batch(2, width)) for width in (2, 1))
    assert third == [[7, 8], [19, 20]] and fourth == [[9], [21]]


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match=r"8 tokens, fewer than one window.*--model.context-length"):
        stream_of(8, 8)


def test_a_text_that_is_too_short_for_any_window_is_not_said_to_be_enough_for_a_shorter_one():
    with pytest.raises(UserError, match=r"1 token, fewer .* Give more text\.$"):
        stream_of(1, 8)
    assert stream_of(2, 1).next_batch(1).n_targets == 1
