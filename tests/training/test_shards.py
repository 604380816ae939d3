"""Who updates what: all of it, each weight once, and about as much for each process."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from folio.training.groups import Members
from folio.training.optimizers import SGD, AdamW, Muon, Rule
from folio.training.shards import VECTOR, Shard, Shards, cut_evenly, divide, share_out

sizes_of_a_group = st.lists(st.integers(1, 5000), min_size=1, max_size=12)


def parameters(sizes: list[int]) -> list[Tensor]:
    return [torch.empty(size, device="meta") for size in sizes]


def spans(shards: Shards) -> list[Shard]:
    return sorted(shard for own in shards for shard in own)


def weights_each(shards: Shards) -> list[int]:
    return [sum(shard.stop - shard.start for shard in own) for own in shards]


@given(sizes_of_a_group, st.integers(1, 9))
def test_even_cuts_give_each_weight_to_one_process_and_all_about_as_many(
    sizes: list[int], world_size: int
):
    shards = cut_evenly(parameters(sizes), world_size)
    place, number = 0, -1
    for shard in spans(shards):
        if shard.parameter != number:
            assert place == (sizes[number] if number >= 0 else 0)
            place, number = 0, number + 1
        assert (shard.parameter, shard.start) == (number, place)
        place = shard.stop
    assert (number, place) == (len(sizes) - 1, sizes[-1])
    # A cut is at most VECTOR before its exact place, at both ends.
    assert all(abs(n - sum(sizes) / world_size) <= VECTOR + 1 for n in weights_each(shards))


@given(sizes_of_a_group, st.integers(1, 9))
def test_a_cut_lies_between_the_vectors_of_a_processor(sizes: list[int], world_size: int):
    for shard in spans(cut_evenly(parameters(sizes), world_size)):
        assert shard.start % VECTOR == 0
        assert shard.stop % VECTOR == 0 or shard.stop == sizes[shard.parameter]


@given(sizes_of_a_group, st.integers(1, 9))
def test_whole_parameters_are_shared_out_within_one_of_the_mean(sizes: list[int], world_size: int):
    shards = share_out(sizes, sizes, world_size)
    assert spans(shards) == [Shard(i, 0, size) for i, size in enumerate(sizes)]
    assert max(weights_each(shards)) <= sum(sizes) / world_size + max(sizes)


def test_a_rule_of_ones_own_is_never_divided():
    class Own(Rule):
        """Might look at all weights of its group."""

    class Edited(AdamW):
        """Might do so, too."""

    weights = [nn.Parameter(torch.zeros(300, 2)) for _ in range(3)]
    members = Members(weights, [(300,)] * 3, 0.0)

    def n_owners(kind: type[Rule], turn: int = 0) -> int:
        return sum(map(bool, divide(kind, members, 3, turn, cut_evenly)))

    assert [n_owners(kind) for kind in (AdamW, SGD, Muon, Own, Edited)] == [3, 3, 3, 1, 1]
    (first, second) = (divide(Own, members, 3, turn, cut_evenly) for turn in (1, 2))
    assert first[1] and second[2]
