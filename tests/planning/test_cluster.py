"""What a cluster gives, and where communication costs more than that."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from folio.planning.cluster import (
    WORTHWHILE_SECONDS,
    Cluster,
    ClusterPlan,
    asked_tokens,
    plan_cluster,
)
from folio.planning.gpus import GPUS
from folio.planning.step_cost import (
    COMPILED,
    PLAIN,
    RECORDED,
    RECORDED_COMPILED,
    Kernels,
)
from folio.recipe import compiling
from folio.recipe.recipe import Recipe, make_recipe
from folio.training.config import SHARDINGS

GIGABIT = 1.25e8


def recipe(batch: int = 512, **training: Any) -> Recipe:
    return make_recipe(
        {
            "preset": "gpt2",
            "size": "small",
            "model": {"vocab_size": 50_304},
            "training": {"batch_size": batch, **training},
        }
    )


def plan(network: float, batch: int = 512, gpu: str = "a100", machines: int = 2) -> ClusterPlan:
    card = GPUS[gpu]
    return plan_cluster(recipe(batch), Cluster(card, 8, machines, card.link, network))


def test_rows_double_the_gpus_and_then_the_machines():
    cluster = replace(plan(GIGABIT).cluster, n_gpus=6, n_machines=3)
    parts = [(part.n_gpus, part.n_machines) for part in cluster.parts()]
    assert parts == [(1, 1), (2, 1), (4, 1), (6, 1), (6, 2), (6, 3)]


def test_a_second_machine_costs_more_than_it_gives_over_a_slow_network():
    slow, fast = plan(10 * GIGABIT, batch=64), plan(3200 * GIGABIT, batch=64)
    assert slow.best.cluster.total == 8 and fast.best.cluster.total == 16
    assert slow.costs_more is slow.rows[-1] and fast.costs_more is None
    assert slow.verdict().startswith(
        "8 GPUs are fastest with this batch of 64 windows; from 16 on communication costs more "
        "than it gives; a batch of "
    )


def test_where_it_sends_longer_than_it_computes_is_told_apart():
    found = plan(100 * GIGABIT, machines=64)
    assert "; from 32 on it sends longer than it computes; " in found.verdict()
    row = next(row for row in found.rows if row.cluster.total == 32)
    assert row.cost.all_reduce > row.cost.computing
    assert row.tokens_per_second > found.rows[3].tokens_per_second


def test_with_the_batch_that_is_recommended_a_tenth_of_the_time_is_communication():
    slow = plan(10 * GIGABIT, batch=64)
    batch = slow.larger_batch()
    cost, before = (plan(10 * GIGABIT, n).rows[-1].cost for n in (batch, batch // 2))
    assert cost.all_reduce < 0.101 * cost.seconds
    assert before.all_reduce > 0.09 * before.seconds


def test_one_gpu_has_efficiency_one_and_no_all_reduce():
    found = plan(100 * GIGABIT)
    first, *others = found.rows
    assert found.efficiency(first) == 1 and first.cost.all_reduce == 0
    shares = [found.efficiency(row) for row in others]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.98
    assert all(row.cost.all_reduce > 0 for row in others)


def test_windows_that_do_not_fit_at_once_are_computed_in_parts():
    first = plan(GIGABIT, batch=512, gpu="4090").rows[0]
    assert first.windows == 512 and first.windows_at_once == 16
    assert first.fits and first.memory_bytes < 24e9


def test_each_gpu_has_a_share_of_the_batch_that_may_be_a_window_more_than_others_have():
    rows = plan(GIGABIT, batch=12).rows
    assert [row.windows for row in rows] == [12, 6, 3, 2, 1]
    # The last four have nothing to do, but wait for the others.
    assert rows[-1].cost.computing == pytest.approx(plan(GIGABIT, batch=16).rows[-1].cost.computing)


XL = {"n_layers": 48, "d_model": 1600, "n_heads": 25, "vocab_size": 50_304}


def plan_xl(gpu: str, n_gpus: int, **settings: Any) -> ClusterPlan:
    """Plan GPT-2 with 1,558 M parameters."""
    large = make_recipe({"preset": "gpt2", "size": "small", "model": XL}, settings)
    card = GPUS[gpu]
    return plan_cluster(large, Cluster(card, n_gpus, 1, card.link, GIGABIT))


def test_a_model_that_does_not_fit_is_told():
    alone, two = plan_xl("t4", 1), plan_xl("t4", 2)
    assert not any(row.fits for row in alone.rows + two.rows)
    assert "do not fit into the 16 GB of this card: each GPU holds the whole model" in (
        alone.verdict()
    )
    assert two.sharding == "none" and two.best is two.rows[-1]
    assert re.search(r", nor do the \d\d\.\d GB that each of 2 has with .* full\.$", two.verdict())


@pytest.mark.parametrize(
    ("gpu", "n_gpus", "sharding", "first"),
    [
        ("h100", 8, "none", 1),  # 80 GB
        ("a100-40", 8, "optimizer", 2),  # of which 24 bytes a parameter take 37, and a window 6
        ("4090", 8, "full", 2),  # 24 GB
    ],
)
def test_where_the_plain_way_does_not_fit_the_first_that_does_is_planned(
    gpu: str, n_gpus: int, sharding: str, first: int
):
    found = plan_xl(gpu, n_gpus)
    assert found.sharding == sharding
    assert next(row.cluster.total for row in found.rows if row.fits) == first
    if sharding == "none":
        return
    row = next(row for row in found.rows if row.fits)
    assert found.verdict().startswith(
        f"{found.rows[0].memory_by_sharding['none'] / 1e9:.1f} GB do not fit into the "
        f"{found.cluster.gpu.memory_bytes / 1e9:.0f} GB of this card; with --training.sharding "
        f"{sharding}, each of {first} has {row.memory_bytes / 1e9:.1f} GB; "
    )


def test_what_was_asked_for_is_planned_if_it_fits():
    found = plan_xl("h100", 2, training={"sharding": "optimizer"})
    assert found.sharding == "optimizer" and "--training.sharding" not in found.verdict()


def test_a_way_that_the_recipe_cannot_take_is_not_planned():
    with_page = plan_xl("4090", 8, training={"page": True})
    assert [*with_page.rows[0].memory_by_sharding] == ["none", "optimizer"]
    assert with_page.sharding == "none" and not any(row.fits for row in with_page.rows)


def test_sharding_sends_more_and_updates_less():
    rows = {s: plan_xl("h100", 4, training={"sharding": s}).rows[-1] for s in SHARDINGS}
    none, optimizer, full = (row.cost for row in rows.values())
    assert optimizer.all_reduce == pytest.approx(1.5 * none.all_reduce)
    assert optimizer.update == pytest.approx(full.update * (4 * 34 + 80) / 114)
    in_parts = {"sharding": "full", "micro_batch_size": 1}
    row, whole = plan_xl("h100", 4, training=in_parts).rows[-1], rows["none"]
    assert (row.windows, row.windows_at_once) == (4, 1)
    assert row.cost.all_reduce == pytest.approx(4 * whole.cost.all_reduce)


def test_tokens_are_those_of_the_budget_or_twenty_a_parameter():
    assert asked_tokens(recipe(max_tokens=10**9)) == pytest.approx(10**9, rel=1e-3)
    assert asked_tokens(recipe(batch=2, max_steps=100)) == 2 * 1024 * 100
    assert asked_tokens(recipe()) == 20 * recipe().model.n_parameters


def test_other_kernels_take_another_time():
    card = GPUS["a100"]
    cluster = Cluster(card, 1, 1, card.link, GIGABIT)
    speeds = [
        plan_cluster(recipe(), cluster, kernels).rows[0].tokens_per_second
        for kernels in (PLAIN, RECORDED, RECORDED_COMPILED, COMPILED)
    ]
    assert speeds == sorted(speeds) and speeds[-1] > 1.2 * speeds[0]


def test_the_step_is_the_one_that_the_recipe_would_take():
    card = GPUS["a100"]
    cluster = Cluster(card, 1, 1, card.link, GIGABIT)

    def kernels(steps: int, **device: str) -> Kernels:
        asked = recipe(max_steps=steps)
        asked = replace(asked, device=replace(asked.device, **device))
        return plan_cluster(asked, cluster).kernels

    assert WORTHWHILE_SECONDS == compiling.WORTHWHILE_SECONDS
    assert kernels(10_000) is RECORDED_COMPILED and kernels(10) is RECORDED
    assert kernels(10, compile="on") is RECORDED_COMPILED
    assert kernels(10_000, compile="off") is RECORDED
    assert kernels(10_000, fast="off") is PLAIN


def test_a_record_has_every_row_and_its_parts():
    record = plan(GIGABIT).record()
    assert [row["gpus"] for row in record["gpus"]] == [1, 2, 4, 8, 16]
    last = record["gpus"][-1]
    assert last["step_seconds"] > last["parts_seconds"]["all_reduce"] > 0
    assert record["sharding"] == "none"
    assert [*last["memory_by_sharding"]] == [*SHARDINGS]
    assert last["memory_bytes"] == last["memory_by_sharding"]["none"]
    assert record["fastest"] == plan(GIGABIT).best.cluster.total
