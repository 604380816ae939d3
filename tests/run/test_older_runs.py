"""Runs of earlier releases are opened, evaluated and resumed; tests/data/ keeps some of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from folio.errors import UserError
from folio.recipe.resume import resume_run
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.held_out import evaluate_held_out
from folio.run.metrics import set_aside_events_after
from folio.run.opening import open_run
from folio.storage import read_json, write_json

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted(path.parent for path in DATA.glob("format-*/*/recipe.toml"))


@pytest.fixture(params=RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(request.param, tmp_path / "run")))


def back_to_step_5(run: Run) -> None:
    """As if it had been interrupted there."""
    shutil.rmtree(run.checkpoints_folder / "step-00000010")
    set_aside_events_after(run.metrics_file, 5, 5)


def test_there_are_runs_of_each_optimizer_and_tokenizer():
    assert len(RUNS) >= 4


def test_an_older_run_is_opened_and_evaluated_as_it_was(run: Run):
    opened = open_run(run)
    assert not opened.complaints
    noted = read_json(run.held_out_file)[0]["nats_per_token"]
    found = evaluate_held_out(opened)[0]
    assert found.nats_per_token == pytest.approx(noted, rel=1e-4)
    assert len(opened.generate("The ", max_tokens=5, seed=1)) > 0


def test_an_older_run_goes_on_to_where_it_was_and_beyond(run: Run):
    expected = run.checkpoint("10")[0].model_tensors()
    back_to_step_5(run)
    resume_run(run, {}, Watcher())
    found = run.checkpoint("10")[0].model_tensors()
    for name, tensor in expected.items():  # another machine has other last bits
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    result = resume_run(run, {"training": {"max_steps": 14}}, Watcher())
    assert result is not None and result.state.step == 14


@pytest.mark.parametrize("kind", ["corpus", "checkpoint"])
def test_a_run_of_a_newer_version_gets_a_line(run: Run, kind: str):
    path = run.corpus_file
    if kind == "checkpoint":
        path = run.newest()[0].path / "manifest.json"
        shutil.rmtree(run.checkpoints_folder / "step-00000005")
    write_json(path, read_json(path) | {"format": 99})
    with pytest.raises(UserError, match="made by a newer version"):
        open_run(run)


def test_a_checkpoint_of_another_optimizer_is_a_line(run: Run):
    text = run.recipe_file.read_text(encoding="utf-8")
    other = text.replace('kind = "muon"', 'kind = "sgd"').replace('kind = "adamw"', 'kind = "sgd"')
    run.recipe_file.write_text(other, encoding="utf-8")
    back_to_step_5(run)
    with pytest.raises(UserError, match=r"another optimizer .* folio train"):
        resume_run(run, {}, Watcher())
