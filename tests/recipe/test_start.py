"""Fine-tuning: a training that begins with the weights of a run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import folio
from folio.config import Table, merge, read_toml
from folio.errors import UserError
from folio.recipe.recipe import Recipe, lay_over, make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, find_run, runs_folder
from tests.conftest import turn_kernels
from tests.forked import Forked
from tests.recipe.test_resume import TINY, recipe_of, stop_at, weights_of

DEVICE = {"kind": "cpu", "precision": "float32", "threads": 1}
STEPS = 30
SAVED: Any = {"training": {"save_interval": 4}}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Another text of the same characters, but for one."""
    lines = [
        f"A wind sings of {i % 9} verses in {i % 5} lines of the {i % 7}th.\n" for i in range(99)
    ]
    path = tmp_path / "new.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def table_of(new: Path, **changes: Any) -> Table:
    table = {
        "start": {"run": "base"},
        "corpus": {"sources": [str(new)], "validation_fraction": 0.05},
        "training": {"max_steps": STEPS, "evaluation_interval": 10, "keep_checkpoints": 50},
        "device": DEVICE,
    }
    return started(merge(table, changes))


def tuned(new: Path, name: str, watcher: Watcher | None = None, **changes: Any) -> Run:
    recipe = make_recipe(table_of(new, **changes))
    return train_recipe(recipe, name, watcher or Watcher()).run


def goes_on(run: Run) -> str:
    result = resume_run(run, {}, Watcher())
    return result.ending if result is not None else "complete"


class Listener(Watcher):
    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, line: str) -> None:
        self.told.append(line)


# ---- what it begins with ------------------------------------------------------------------


def test_it_begins_with_the_best_weights_of_the_run_and_tells_their_loss(base: Run, new: Path):
    run = tuned(new, "tuned")
    best = base.checkpoint("best")[0].path / "model.safetensors"
    first = run.checkpoint("0")[0].path / "model.safetensors"
    assert first.read_bytes() == best.read_bytes()
    model = folio.load("base")
    assert folio.load("tuned").tokenizer.fingerprint == model.tokenizer.fingerprint

    own, old = folio.load("tuned").validation(), model.validation()
    expected = {
        "validation, before": model.score(own)[0].nats_per_token,
        "old text, before": model.score(old)[0].nats_per_token,
        "validation": folio.load("tuned").score(own)[0].nats_per_token,
        "old text": folio.load("tuned").score(old)[0].nats_per_token,
    }
    texts = json.loads(run.held_out_file.read_text())
    found = {t["name"]: t["nats_per_token"] for t in texts}
    for name, loss in expected.items():
        assert found[name] == pytest.approx(loss, abs=1e-5), name
    card = run.card_file.read_text()
    four = [f"{loss:.4f}" for loss in expected.values()]
    assert f"| new text, before and after | {four[0]}, {four[2]}: it learned " in card
    assert f"| old text, before and after | {four[1]}, {four[3]}: it " in card


def test_last_and_a_step_are_named_as_sample_names_checkpoints(base: Run, new: Path):
    steps = {"base:last": 30, "base:15": 15, "base": base.checkpoint("best")[0].step}
    for name, step in steps.items():
        assert table_of(new, start={"run": name})["start"]["checkpoint"] == str(step)
    with pytest.raises(UserError, match="no checkpoint '17'"):
        table_of(new, start={"run": "base:17"})
    with pytest.raises(UserError, match="Did you mean 'base'"):
        table_of(new, start={"run": "bose"})


def test_rates_are_the_usual_ones_times_the_factor_unless_given(base: Run, new: Path):
    scratch = make_recipe(TINY).optimizer
    usual = make_recipe(table_of(new)).optimizer
    assert usual.learning_rate == pytest.approx(0.3 * scratch.learning_rate, rel=0.02)
    assert usual.matrix_learning_rate == pytest.approx(0.3 * scratch.matrix_learning_rate, rel=0.02)
    given = make_recipe(table_of(new, optimizer={"learning_rate": 0.5})).optimizer
    assert given.learning_rate == 0.5
    assert given.matrix_learning_rate == usual.matrix_learning_rate
    tenth = make_recipe(table_of(new, start={"rate_factor": 0.1})).optimizer
    assert tenth.learning_rate == pytest.approx(usual.learning_rate / 3, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"preset": "gpt2"}, "preset"),
        ({"model": {"n_layers": 3}}, "model.n_layers"),
        ({"model": {"context_length": 32}}, "model.context_length"),
        ({"tokenizer": {"kind": "bpe"}}, "tokenizer.kind"),
        ({"tokenizer": {"vocab_size": 300}}, "tokenizer.vocab_size"),
    ],
)
def test_what_contradicts_the_run_is_refused(base: Run, new: Path, changes: Any, name: str):
    with pytest.raises(UserError, match=f"^{name} is .*, but the run .*base.* has ") as error:
        table_of(new, **changes)
    assert "\n" not in str(error.value)


def test_dropout_and_batches_are_free(base: Run, new: Path):
    recipe = make_recipe(table_of(new, model={"residual_dropout": 0.4}))
    assert recipe.model.residual_dropout == 0.4 and recipe.model.d_model == 16
    assert recipe.training.batch_size == 4
    assert make_recipe(table_of(new, training={"batch_size": 6})).training.batch_size == 6


def test_a_training_without_a_text_is_refused(base: Run):
    with pytest.raises(UserError, match="Name the text"):
        started({"start": {"run": "base"}})


def test_a_recipe_made_in_python_begins_with_a_run_too(base: Run, new: Path):
    recipe = Recipe.of(start={"run": "base"}, corpus={"sources": [str(new)]})
    assert recipe.model.d_model == 16 and recipe.start.sha256


# ---- old text -----------------------------------------------------------------------------


def test_old_text_in_each_batch_is_forgotten_less(base: Run, new: Path):
    losses = {}
    for keep in (0.0, 0.5):
        run = tuned(new, f"keep-{keep}", start={"keep": keep, "rate_factor": 1.0})
        texts = json.loads(run.held_out_file.read_text())
        losses[keep] = {text["name"]: text["nats_per_token"] for text in texts}
    assert losses[0.5]["old text"] < losses[0.0]["old text"]
    assert losses[0.5]["old text, before"] == losses[0.0]["old text, before"]


def test_without_keep_the_old_text_is_not_needed(base: Run, new: Path):
    shutil.rmtree(base.path / "tokens")
    table = table_of(new, start={"keep": 0.25})
    with pytest.raises(UserError, match=r"has no training text .* Give --keep 0"):
        train_recipe(make_recipe(table), "asked", Watcher(), given=table)
    run = tuned(new, "nothing-kept")
    assert read_toml(run.recipe_file)["start"]["keep"] == 0
    assert not run.tokens_file("kept").exists()
    assert "old text" not in run.card_file.read_text()
    assert "new text, before and after" in run.card_file.read_text()


def test_a_sequential_order_cannot_be_mixed(base: Run, new: Path):
    sequential = {"stream": {"order": "sequential"}}
    with pytest.raises(UserError, match="Give --keep 0"):
        make_recipe(table_of(new, **sequential))
    make_recipe(table_of(new, start={"keep": 0}, **sequential))


def test_epochs_count_the_new_text_only(base: Run, new: Path):
    budget = {"training": {"max_steps": 0, "max_epochs": 0.25}}
    steps = {}
    for keep in (0.0, 0.5):
        table = table_of(new, start={"keep": keep})
        del table["training"]["max_steps"]
        run = train_recipe(make_recipe(table, budget), f"epoch-{keep}", Watcher()).run
        steps[keep] = run.events("end")[-1]["step"]
    assert steps[0.5] == pytest.approx(2 * steps[0.0], abs=1)


# ---- what the vocabulary lacks --------------------------------------------------------------


def test_characters_that_the_vocabulary_lacks_are_told_with_counts(base: Run, new: Path):
    new.write_text(new.read_text().replace("A wind", "Ä wind") + "§§\n" + "The wind.\n" * 30)
    watcher = Listener()
    tuned(new, "umlauts", watcher)
    (line,) = [line for line in watcher.told if "unknown to the vocabulary" in line]
    assert "'Ä' (U+00C4) 99" in line and "'§' (U+00A7) 2" in line and "base" in line


def test_a_text_of_which_nothing_is_left_is_refused(base: Run, tmp_path: Path):
    strange = tmp_path / "strange.txt"
    strange.write_text("ЖЩЯФЦЫЪЭЮ" * 200, encoding="utf-8")
    with pytest.raises(UserError, match="nothing left to learn"):
        tuned(strange, "strange")
    assert not (runs_folder() / "strange").exists()


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_windows_may_be_shorter_than_those_of_the_run_and_its_losses_are_of_such(
    positions: str, book: Path, new: Path
):
    model: Any = {"positions": positions}
    run = train_recipe(
        recipe_of(book, training={"max_steps": 8}, model=model), "base", Watcher()
    ).run
    own = folio.load("base")
    length = own.model.config.context_length // 2
    listener = Listener()
    changes: Any = {"model": {"context_length": length}, "training": {"max_steps": 4}}
    short = tuned(new, "short", listener, **changes)
    assert f"windows of {length} of its {2 * length} positions" in listener.told
    first, last = (folio.load("short", step) for step in (0, 4))
    assert last.model.config.context_length == length
    ids = torch.from_numpy(own.validation()[:length].astype("int64"))[None]
    assert torch.equal(first.model(ids), own.model(ids))
    texts = {t["name"]: t["nats_per_token"] for t in json.loads(short.held_out_file.read_text())}
    whole = own.score(own.validation())[0].nats_per_token
    shorter = first.score(own.validation())[0].nats_per_token
    assert texts["old text, before"] == pytest.approx(shorter, abs=1e-5) and shorter != whole
    batches = [read_toml(r.recipe_file)["training"]["batch_size"] for r in (run, short)]
    assert batches[1] == 2 * batches[0]
    with pytest.raises(UserError, match=f"context_length is 99, but the run .* has {2 * length}"):
        table_of(new, model={"context_length": 99})
    assert goes_on(short) == "complete"


# ---- going on, and doing it again -----------------------------------------------------------


def test_resumed_fine_tuning_matches_an_uninterrupted_one(base: Run, new: Path):
    keep: Any = {"start": {"keep": 0.3}}  # 1.2 windows of four: now one, now two
    whole = tuned(new, "whole", **keep)
    recipe = make_recipe(table_of(new, **keep))
    stopped = {step: train_recipe(recipe, f"{step}", *stop_at(step)).run for step in (0, 10, 7)}
    shutil.rmtree(base.path)  # it is needed no longer
    resume_run(stopped[7], {}, *stop_at(23))
    for run in stopped.values():
        assert goes_on(run) == "finished"
        assert weights_of(run, STEPS) == weights_of(whole, STEPS)
        for kind, value in (("step", "loss"), ("evaluation", "validation_loss")):
            curves = [[(e["step"], e[value]) for e in r.events(kind)] for r in (run, whole)]
            assert curves[0] == curves[1]
    assert whole.checkpoint(str(STEPS))[0].state["place"]["kept"]["position"] > 0


def test_copies_on_threads_of_their_own_resume_exactly_too(
    base: Run, new: Path, monkeypatch: pytest.MonkeyPatch
):
    turn_kernels(monkeypatch, on=True)
    device: Any = {"device": {"threads": 2}}
    whole = tuned(new, "threads", **device)
    recipe = make_recipe(table_of(new, **device))
    parts = train_recipe(recipe, "threads-parts", *stop_at(17)).run
    assert goes_on(parts) == "finished"
    assert weights_of(parts, STEPS) == weights_of(whole, STEPS)


KILLED = """
import os, signal, sys
from {module} import *

class Dies(Watcher):
    def stepped(self, state, loss, learning_rate):
        if state.step == 13:
            os.kill(os.getpid(), signal.SIGKILL)

tuned(Path(sys.argv[1]), "killed", Dies(), **SAVED)
"""


def assert_a_killed_one_is_made_whole(module: str, source: Path, whole: Run):
    """Kill what `tuned` of a module of tests trains; it goes on to the bytes of `whole`."""
    # Another process: what a kill leaves cannot be had in this one.
    code, root = KILLED.format(module=module), Path(__file__).parents[2]
    assert Forked([sys.executable, "-c", code, str(source)], cwd=root).wait() == -9
    run = find_run("killed")
    assert run.newest()[0].step == 12
    assert goes_on(run) == "finished"
    assert weights_of(run, STEPS) == weights_of(whole, STEPS)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
@pytest.mark.xdist_group("forked")
def test_a_fine_tuning_that_is_killed_ends_with_the_same_bytes(base: Run, new: Path):
    assert_a_killed_one_is_made_whole(__name__, new, tuned(new, "whole", **SAVED))


def test_the_plain_step_reads_the_same_text(base: Run, new: Path):
    fast, plain = (tuned(new, name, device={"fast": name}) for name in ("on", "off"))
    losses = [[e["loss"] for e in run.events("step")] for run in (fast, plain)]
    # Without dropout they would be equal; with it, the masks differ.
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    places = [run.checkpoint(str(STEPS))[0].state["place"] for run in (fast, plain)]
    assert places[0] == places[1]


def test_the_resolved_recipe_gives_the_same_bytes(base: Run, new: Path):
    whole = tuned(new, "whole")
    table = started(read_toml(whole.recipe_file))
    again = train_recipe(make_recipe(table), "again", Watcher(), given=table).run
    assert weights_of(again, STEPS) == weights_of(whole, STEPS)
    assert (
        again.recipe_file.read_text().split("\n")[1:]
        == whole.recipe_file.read_text().split("\n")[1:]
    )


def test_a_recipe_whose_run_moved_says_so_and_how_to_go_on(base: Run, new: Path):
    whole = tuned(new, "whole")
    table = read_toml(whole.recipe_file)
    moved = base.path.rename(base.path.with_name("moved"))
    with pytest.raises(UserError, match=r"are not there any more.*--from RUN") as error:
        started(table)
    assert "\n" not in str(error.value)
    there = started(lay_over(table, {"start": {"run": str(moved)}}))
    again = train_recipe(make_recipe(there), "again", Watcher()).run
    assert weights_of(again, STEPS) == weights_of(whole, STEPS)


def test_a_recipe_whose_weights_changed_says_so(base: Run, new: Path, book: Path):
    table = read_toml(tuned(new, "whole").recipe_file)
    shutil.rmtree(base.path)
    train_recipe(recipe_of(book, seed=2, training={"max_steps": 30}), "base", Watcher())
    with pytest.raises(UserError, match=r"are others than those .*\(sha256 \w{12}, not \w{12}\)"):
        started(table)


def test_minutes_plan_a_fine_tuning_as_a_training(
    base: Run, new: Path, monkeypatch: pytest.MonkeyPatch
):
    from folio.recipe.speed import Throughput

    speeds = iter([Throughput(0.02, 0.01)])
    monkeypatch.setattr("folio.recipe.sizing.measure", lambda *_: next(speeds))
    monkeypatch.setattr("folio.recipe.budget.measure", lambda *_: next(speeds))
    table = table_of(new, training={"minutes": 0.1, "evaluation_interval": 0})
    del table["training"]["max_steps"], table["training"]["evaluation_interval"]
    watcher = Listener()
    result = train_recipe(make_recipe(table), "minutes", watcher, given=table)
    assert result.ending == "finished" and result.state.used_seconds < 12
    (line,) = [line for line in watcher.told if line.startswith("for 0.1 minutes")]
    assert "dropout" in line and "size" not in line
    recipe = make_recipe(read_toml(result.run.recipe_file))
    assert recipe.schedule.pace and recipe.model.d_model == 16
    assert result.run.events("evaluation")[0]["step"] == 0
    assert math.isfinite(result.state.best_validation_loss)


def test_without_a_checkpoint_it_never_begins_with_random_weights(base: Run, new: Path):
    run = train_recipe(make_recipe(table_of(new)), "parts", *stop_at(7)).run
    shutil.rmtree(run.checkpoints_folder)
    with pytest.raises(UserError, match=r"no usable checkpoint left.*folio train .*recipe.toml"):
        goes_on(run)


# ---- LoRA -----------------------------------------------------------------------------------

LORA: Any = {"start": {"lora": 2, "keep": 0.3}, "training": {"save_interval": 4}}


def test_lora_changes_each_matrix_of_the_blocks_by_its_rank_and_nothing_else(base: Run, new: Path):
    run = tuned(new, "lora", **LORA)
    first, last = (run.checkpoint(step)[0].model_tensors() for step in ("0", str(STEPS)))
    assert first.keys() == last.keys()
    assert (run.checkpoint("0")[0].path / "model.safetensors").read_bytes() == (
        base.checkpoint("best")[0].path / "model.safetensors"
    ).read_bytes()
    for name, before in first.items():
        change = last[name] - before
        if before.dim() == 2 and name.startswith("blocks."):
            singular = torch.linalg.svdvals(change)
            assert singular[1] > 0 and singular[2] < 1e-4 * singular[0], name
        else:
            assert not change.any(), name
    losses = {t["name"]: t["nats_per_token"] for t in json.loads(run.held_out_file.read_text())}
    assert losses["validation"] < losses["validation, before"]
    # What is evaluated while training, by corrections, is what the merged checkpoint gives.
    opened = folio.load("lora", STEPS)
    assert run.events("evaluation")[-1]["validation_loss"] == pytest.approx(
        opened.score(opened.validation())[0].nats_per_token, abs=1e-5
    )


def test_lora_resumes_exactly(base: Run, new: Path):
    changes = merge(LORA, {"training": {"keep_checkpoints": 1}})
    whole = tuned(new, "whole", **changes)
    recipe = make_recipe(table_of(new, **changes))
    for step in (0, 13, 20):
        run = train_recipe(recipe, f"stopped-{step}", *stop_at(step)).run
        assert goes_on(run) == "finished"
        assert weights_of(run, STEPS) == weights_of(whole, STEPS)
    again = started(read_toml(whole.recipe_file))
    assert again["optimizer"]["kind"] == "adamw" and again["device"]["fast"] == "off"


def test_lora_says_what_it_takes(base: Run, new: Path):
    for changes in ({"optimizer": {"kind": "muon"}}, {"device": {"fast": "on"}}):
        with pytest.raises(UserError, match="AdamW and the plain step"):
            make_recipe(table_of(new, **merge(LORA, changes)))
    with pytest.raises(UserError, match="Name it: --from RUN"):
        make_recipe({"start": {"lora": 8}})
