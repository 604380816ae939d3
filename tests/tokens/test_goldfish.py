"""Targets that are never learned."""

from __future__ import annotations

import numpy as np

from folio.tokens.goldfish import dropped
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import StreamConfig, TokenStream

RANDOM = np.random.default_rng(0)


def test_a_passage_loses_the_same_targets_wherever_it_stands():
    passage = RANDOM.integers(0, 60, 200)
    tokens = np.concatenate([RANDOM.integers(0, 60, 77), passage, [3, 4], passage]).astype(np.uint8)
    first, second = (
        dropped(tokens, np.arange(start + 13, start + 200), 8, 13) for start in (77, 279)
    )
    assert (first == second).all() and first.any()


def test_about_one_in_k_is_dropped_and_others_by_other_tokens():
    tokens = RANDOM.integers(0, 60, 40_000).astype(np.uint8)
    places = np.arange(len(tokens))
    for k in (2, 8):
        share = dropped(tokens, places, k, 13).mean()
        # Four standard deviations of a binomial.
        assert abs(share - 1 / k) < 4 * (1 / k * (1 - 1 / k) / len(tokens)) ** 0.5 + 13 / len(
            tokens
        )
    assert not dropped(tokens, np.arange(13), 2, 13).any()


def test_what_is_dropped_depends_on_so_many_tokens_before_and_on_no_other():
    tokens = RANDOM.integers(0, 60, 100).astype(np.uint8)
    before = dropped(tokens, np.array([60]), 2, 13)
    changed = tokens.copy()
    changed[60:] = 1
    changed[:47] = 2
    assert dropped(changed, np.array([60]), 2, 13) == before


def test_the_inputs_stay_and_a_stream_goes_on_exactly_from_its_place():
    tokens = np.arange(500, dtype=np.uint32)
    plain, fish, again = (
        TokenStream(tokens, 16, 1, StreamConfig(), goldfish=g) for g in ((0, 0), (4, 5), (4, 5))
    )
    for number in range(80):
        all_targets, some = plain.next_batch(3), fish.next_batch(3)
        assert (all_targets.inputs == some.inputs).all()
        gone = (some.targets == IGNORED) & (all_targets.targets != IGNORED)
        kept = some.targets != IGNORED
        assert (some.targets[kept] == all_targets.targets[kept]).all()
        assert (gone == dropped(tokens, all_targets.inputs + 1, 4, 5) & ~kept)[gone].all()
        if number == 40:
            again.place = fish.place
        if number > 40:
            assert (again.next_batch(3).targets == some.targets).all()
