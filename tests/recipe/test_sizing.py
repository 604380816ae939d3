"""What the minutes choose: the size, and how much is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import folio
from folio.cli.main import main
from folio.config import Table, merge, read_toml
from folio.device import Device, DeviceConfig
from folio.recipe import sizing, speed
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.presets import SIZES, Size
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.sizing import best_of, candidates, size_recipe
from folio.recipe.speed import Throughput, token_flops

CPU: Table = {"device": {"kind": "cpu", "precision": "float32", "threads": 1}}
FLOPS = 2e11
"""A second, of a machine on which nano reads 36,000 tokens a second."""


MakeText = Callable[[int], Prepared]
"""Number of characters -> a text of that length, prepared."""


def speed_of(recipe: Recipe) -> Throughput:
    per_step = recipe.training.batch_size * recipe.model.context_length
    return Throughput(token_flops(recipe) * per_step / FLOPS, 0.0)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine of so many operations a second, and the sizes that were tried on it."""
    names: list[str] = []

    def try_out(recipe: Recipe, *_: object) -> Throughput:
        names.append(recipe.size)
        return speed_of(recipe)

    monkeypatch.setattr(sizing, "try_out", try_out)
    return names


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> MakeText:
    @cache  # it takes a second or two, and no test changes it
    def of(n_characters: int) -> Prepared:
        path = tmp_path_factory.mktemp("text") / "text.txt"
        words = "".join(f"the {i} of {i * i % 97} and\n" for i in range(n_characters // 14))
        path.write_text((words * 2)[:n_characters])
        return prepare(make_recipe({"corpus": {"sources": [str(path)]}}), lambda _: None)

    return of


def chosen(given: Table, prepared: Prepared) -> tuple[Recipe, list[str]]:
    lines: list[str] = []
    return size_recipe(merge(CPU, given), prepared, 0, lines.append)[0], lines


def minutes(n: float) -> Table:
    return {"training": {"minutes": n}}


def test_more_minutes_choose_a_larger_model(text: MakeText, tried: list[str]):
    prepared = text(1_000_000)
    sizes = [chosen(minutes(n), prepared)[0].size for n in (0.1, 1, 2, 6, 30, 120)]
    assert sizes == ["nano", "nano", "nano", "micro", "mini", "baby"]


def test_what_is_chosen_has_tokens_enough_and_the_next_one_has_not(
    text: MakeText, tried: list[str]
):
    recipes = (make_recipe(CPU, {"size": size}) for size in SIZES)
    best, next_one = best_of(candidates(recipes, text(1_000_000), 10, 0))
    assert next_one is not None
    assert best.n_tokens >= 2 * best.recipe.model.n_parameters
    assert next_one.n_tokens < 2 * next_one.recipe.model.n_parameters
    seconds = best.n_tokens * token_flops(best.recipe) / FLOPS
    assert seconds == pytest.approx(600, rel=0.01)
    assert next_one.recipe.size == list(SIZES)[list(SIZES).index(best.recipe.size) + 1]


def test_beside_muon_a_text_that_can_be_read_ten_times_is_enough(text: MakeText, tried: list[str]):
    prepared = text(200_000)  # 180,000 to train on, where 2 tokens a parameter are 3.6 M
    for kind, minutes_each, size in (
        ("muon", 2.2, "nano"),
        ("muon", 2.6, "micro"),
        ("adamw", 2.6, "nano"),
    ):
        given: Table = {"optimizer": {"kind": kind}}
        assert chosen(merge(given, minutes(minutes_each)), prepared)[0].size == size


def test_a_short_text_holds_the_model_down_however_long_it_is_trained(
    text: MakeText, tried: list[str]
):
    recipe, lines = chosen(minutes(1000), text(100_000))
    assert recipe.size == "nano" and "micro starves: 20 parameters for each token" in lines[0]


def test_memory_holds_the_model_down(
    text: MakeText, tried: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "folio.recipe.memory.peak_memory_bytes",
        lambda recipe, *_: 10**9 * (1 + list(SIZES).index(recipe.size)),
    )
    limit: Table = {"device": {"memory_gigabytes": 2.5}}
    recipe, lines = chosen(merge(limit, minutes(1000)), text(1_000_000))
    assert recipe.size == "micro" and lines[0].endswith("mini needs 3.0 GB of memory")


def test_no_more_sizes_are_tried_than_must_be(text: MakeText, tried: list[str]):
    chosen(minutes(0.5), text(1_000_000))
    assert tried == ["nano"]


@pytest.mark.parametrize(
    ("given", "short_fraction", "decay"),
    [
        ({"size": "mini"}, 0.7, 2.0),
        ({"model": {"n_layers": 2}}, 0.0, 1.6),
        ({"model": {"d_model": 64}}, 0.0, 1.1),
    ],
)
def test_a_size_or_a_shape_that_is_given_stays(
    given: Table, short_fraction: float, decay: float, text: MakeText, tried: list[str]
):
    prepared = text(300_000)
    found = chosen(merge(given, minutes(1000)), prepared)[0]
    asked = make_recipe(CPU, given, minutes(1000))
    dropped = {"embedding_dropout": 0.1, "residual_dropout": 0.1, "attention_dropout": 0.0}
    regularization: Table = {
        "model": dropped,
        "optimizer": {"matrix_weight_decay": decay},
        "training": {"confidence_penalty": 0.1},
        "schedule": {"short_fraction": short_fraction},
    }
    assert found == make_recipe(CPU, given, minutes(1000), regularization)
    assert found.size == asked.size


@pytest.mark.parametrize("budget", ["max_steps", "max_tokens", "max_epochs"])
def test_a_recipe_with_another_budget_stays_as_it_is(budget: str, text: MakeText, tried: list[str]):
    given: Table = {"training": {budget: 30, "minutes": 5}}
    recipe, lines = chosen(given, text(100_000))
    assert recipe == make_recipe(CPU, given) and not lines and not tried


def test_what_else_is_given_stays_beside_the_size(text: MakeText, tried: list[str]):
    given = {"training": {"minutes": 30, "batch_size": 5}, "optimizer": {"learning_rate": 1e-4}}
    recipe = chosen(given, text(1_000_000))[0]
    assert recipe.size == "mini" and recipe.training.batch_size == 5
    assert recipe.optimizer.learning_rate == 1e-4


LITTLE, SOME, MUCH = (0.0, 0.0, 0.0), (0.1, 0.1, 0.0), (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "muon",
            [
                (LITTLE, 0.05, 0.0),
                (LITTLE, 0.5, 0.1),
                (LITTLE, 1.0, 0.1),
                (SOME, 2.0, 0.1),
                (SOME, 2.0, 0.1),
            ],
        ),
        ("adamw", [(dropped, 0.05, 0.0) for dropped in (LITTLE, SOME, SOME, MUCH, MUCH)]),
    ],
)
def test_dropout_decay_and_penalty_follow_the_epochs(
    kind: str, expected: object, text: MakeText, tried: list[str]
):
    found = []
    given: Table = {"size": "nano", "optimizer": {"kind": kind}}
    for n_characters in (2_000_000, 200_000, 140_000, 100_000, 40_000):
        recipe, lines = chosen(merge(given, minutes(0.6)), text(n_characters))
        model = recipe.model
        assert f"dropout {model.residual_dropout:g} " in lines[0]
        dropped = (model.embedding_dropout, model.residual_dropout, model.attention_dropout)
        decay = recipe.optimizer.matrix_weight_decay
        assert (f"epochs), decay {decay:g}" in lines[0]) == (kind == "muon")
        penalty = recipe.training.confidence_penalty
        assert ("confidence penalty 0.1" in lines[0]) == (penalty == 0.1)
        found.append((dropped, decay, penalty))
    assert found == expected


@pytest.mark.parametrize(
    ("rate", "decay"), [(0.0, 1.0), (0.01, 1.0), (0.1, None), (0.3, None), (5.0, 0.05)]
)
def test_decay_takes_most_of_a_weight_in_no_less_than_a_sixth_of_an_epoch(
    rate: float, decay: float | None, text: MakeText, tried: list[str]
):
    prepared = text(140_000)
    given: Table = {"size": "nano", "optimizer": {"kind": "muon", "matrix_learning_rate": rate}}
    recipe = chosen(merge(given, minutes(0.6)), prepared)[0]
    step_tokens = recipe.training.batch_size * recipe.model.context_length
    steps = len(prepared.training()) / step_tokens / 6
    found = recipe.optimizer.matrix_weight_decay
    assert found == decay or 1 / (rate * found) == pytest.approx(steps, rel=0.05)


def test_dropout_decay_or_penalty_that_is_given_stays(text: MakeText, tried: list[str]):
    short = text(100_000)
    recipe = chosen(merge({"model": {"attention_dropout": 0.3}}, minutes(1)), short)[0]
    assert (recipe.model.attention_dropout, recipe.model.residual_dropout) == (0.3, 0.0)
    assert recipe.optimizer.matrix_weight_decay == 2.0
    recipe = chosen(merge({"optimizer": {"matrix_weight_decay": 0.0}}, minutes(1)), short)[0]
    assert recipe.optimizer.matrix_weight_decay == 0.0
    assert recipe.model.residual_dropout == 0.1 == recipe.training.confidence_penalty
    recipe = chosen(merge({"training": {"confidence_penalty": 0.0}}, minutes(1)), short)[0]
    assert recipe.training.confidence_penalty == 0.0
    assert recipe.optimizer.matrix_weight_decay == 2.0


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A text of 1,000 ids, 10 % of them held out."""
    path = tmp_path_factory.mktemp("pairs") / "text.txt"
    numbers = np.random.default_rng(1).integers(0, 3000, 110_000)
    path.write_text("".join(f"{n:x} {n % 7}\n" for n in numbers))
    tokenizer = {"kind": "bpe", "vocab_size": 1000}
    given: Table = {"corpus": {"sources": [str(path)]}, "tokenizer": tokenizer}
    return prepare(make_recipe(given), lambda _: None)


def test_rare_ids_are_remembered_for_longer_and_move_farther(
    byte_pairs: Prepared, text: MakeText, tried: list[str]
):
    recipe, lines = chosen(minutes(0.5), byte_pairs)
    optimizer = recipe.optimizer
    assert "beta2 0.999, learning_rate 0.0058" in lines[0]
    assert (optimizer.beta2, optimizer.learning_rate) == (0.999, 0.0058)
    optimizer = chosen(minutes(0.5), text(1_000_000))[0].optimizer
    assert (optimizer.beta2, optimizer.learning_rate) == (0.99, 0.0039)


def test_a_rate_or_a_memory_that_is_given_stays(byte_pairs: Prepared, tried: list[str]):
    given: Table = {"optimizer": {"beta2": 0.95, "learning_rate": 1e-3}}
    recipe = chosen(merge(given, minutes(0.5)), byte_pairs)[0]
    assert (recipe.optimizer.beta2, recipe.optimizer.learning_rate) == (0.95, 1e-3)
    recipe = chosen(merge({"optimizer": {"kind": "adamw"}}, minutes(0.5)), byte_pairs)[0]
    assert (recipe.optimizer.beta2, recipe.optimizer.learning_rate) == (0.99, 0.0039)


def test_long_windows_begin_short_where_a_batch_has_few_of_them(text: MakeText, tried: list[str]):
    found = {}
    prepared = text(1_000_000)
    for n in (0.5, 5, 30, 120):
        recipe, lines = chosen(minutes(n), prepared)
        model, batch_size = recipe.model, recipe.training.batch_size
        found[recipe.size] = model.context_length, batch_size, recipe.schedule.short_fraction
        told = "windows of 512 (of 128 for the first 70 % of the steps)" in lines[0]
        assert told == (recipe.schedule.short_fraction > 0)
    assert found == {
        "nano": (512, 2, 0.7),
        "micro": (512, 4, 0.7),
        "mini": (512, 4, 0.7),
        "baby": (512, 32, 0.0),
    }


@pytest.mark.parametrize(
    "given",
    [
        {"model": {"context_length": 128}},
        {"model": {"positions": "learned"}},
        {"training": {"batch_size": 8}},
        {"schedule": {"short_fraction": 0.0}},
    ],
)
def test_windows_stay_as_they_are_if_anything_of_them_is_given(
    given: Table, text: MakeText, tried: list[str]
):
    recipe = chosen(merge(given, minutes(0.5)), text(1_000_000))[0]
    assert recipe.model.context_length == 128 and recipe.training.batch_size == 8
    assert recipe.schedule.short_fraction == 0.0


def test_a_context_that_is_given_leaves_the_size_open(text: MakeText, tried: list[str]):
    prepared = text(1_000_000)
    recipe, lines = chosen(merge({"model": {"context_length": 256}}, minutes(30)), prepared)
    assert (recipe.size, recipe.model.context_length) == ("mini", 256) and "size mini" in lines[0]
    _, lines = chosen(merge({"model": {"d_model": 96}}, minutes(30)), prepared)
    assert "0.4 M parameters in your shape" in lines[0]


def test_a_dropout_beside_a_size_leaves_open_what_else_the_minutes_choose(
    text: MakeText, tried: list[str]
):
    prepared, size = text(300_000), {"size": "nano"}
    expected = chosen(merge(size, minutes(1000)), prepared)[0]
    dropout = {"model": {"residual_dropout": 0.3}}
    found = chosen(merge(size, dropout, minutes(1000)), prepared)[0]
    assert found.model.residual_dropout == 0.3 and found.model.embedding_dropout == 0.0
    same = replace(expected.model, embedding_dropout=0.0, residual_dropout=0.3)
    assert replace(found, model=same) == replace(expected, model=same)


@pytest.mark.parametrize(
    ("threads", "windows"),
    [
        (1, (512, 2, 0.7)),
        (2, (512, 2, 0.7)),
        (3, (256, 4, 0.7)),
        (4, (256, 4, 0.7)),
        (8, (128, 8, 0.0)),
    ],
)
def test_each_thread_has_a_window_of_its_own(
    threads: int, windows: tuple[int, int, float], text: MakeText, tried: list[str]
):
    recipe = chosen(merge(minutes(0.5), {"device": {"threads": threads}}), text(1_000_000))[0]
    model, batch_size = recipe.model, recipe.training.batch_size
    assert (model.context_length, batch_size, recipe.schedule.short_fraction) == windows


def test_a_short_text_is_read_in_short_windows(text: MakeText, tried: list[str]):
    lengths = [chosen(minutes(0.5), text(n))[0].model.context_length for n in (56_000, 58_000)]
    assert lengths == [128, 512]


def test_without_any_budget_the_default_minutes_choose(text: MakeText, tried: list[str]):
    prepared = text(1_000_000)
    assert chosen({}, prepared)[0].size == chosen(minutes(5), prepared)[0].size == "micro"


def test_what_was_chosen_stands_in_the_recipe_of_the_run(
    book: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("folio.recipe.budget.measure", lambda *_: Throughput(0.02, 0.05))
    monkeypatch.setattr("folio.recipe.budget.CommandClock.used", lambda _: 0.0)
    monkeypatch.setitem(SIZES, "nano", Size(1, 2, 16, 64, 16, 16))
    flags = ["--device.kind", "cpu", "--device.precision", "float32", "--device.threads", "1"]
    main(["train", str(book), "--minutes", "0.003", "--name", "one", *flags])
    assert "for 0.003 minutes: size nano" in capfd.readouterr().err
    settings = merge(CPU, {"training": {"minutes": 0.003}})
    again = folio.train(str(book), name="two", **settings)
    recipes = [read_toml(again.run.path.parent / name / "recipe.toml") for name in ("one", "two")]
    assert recipes[0] == recipes[1]
    assert recipes[0]["size"] == "nano" and recipes[0]["model"]["n_layers"] == 1
    assert recipes[0]["training"]["max_steps"] > 0 and recipes[0]["training"]["minutes"] == 0


def test_a_trial_on_a_gpu_is_as_long_on_any_card(monkeypatch: pytest.MonkeyPatch):
    recipe = make_recipe({"size": "baby", "model": {"vocab_size": 100}})
    gpu, cpu = (
        Device(DeviceConfig(kind=kind, precision="float32", threads=1), "")
        for kind in ("cuda", "cpu")
    )
    window_flops = recipe.model.context_length * token_flops(recipe)
    for rate in (20_000.0, 40_000.0):  # GFLOP/s
        monkeypatch.setattr(speed, "matrix_rate", lambda *given, rate=rate: rate)
        of_gpu, of_cpu = (sizing.trial_windows(recipe, device) for device in (gpu, cpu))
        assert of_gpu * window_flops == pytest.approx(0.1 * rate * 1e9, rel=0.05)
        assert 0.5e11 < of_cpu * window_flops <= 1e11  # whatever the rate


def test_each_size_is_tried_on_a_gpu_until_one_does_not_fit(
    text: MakeText, monkeypatch: pytest.MonkeyPatch
):
    names: list[str] = []

    def try_out(recipe: Recipe, *_: object) -> Throughput:
        names.append(recipe.size)
        if recipe.size == "mini":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Throughput(1e-3, 0.0)

    gpu = Device(DeviceConfig(kind="cuda", precision="float32", threads=1), "")
    monkeypatch.setattr(sizing, "choose_for", lambda recipe: gpu)
    monkeypatch.setattr(sizing, "try_out", try_out)
    monkeypatch.setattr("folio.recipe.memory.free_memory", lambda device: 10**11)
    recipes = (make_recipe({"size": size}) for size in SIZES)
    found = []
    for candidate in candidates(recipes, text(1_000_000), 100.0, 0):
        found.append(candidate)
        if candidate.impossible:
            break
    assert names == ["nano", "micro", "mini"] and found[-1].recipe.size == "mini"
    assert "GB of memory" in found[-1].impossible
