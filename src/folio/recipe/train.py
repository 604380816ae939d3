"""Train a recipe into a run directory. The whole of Folio in one page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from folio.config import Table
from folio.device import cores
from folio.recipe.budget import CommandClock, freeze_budget, read_at_end
from folio.recipe.build import build, clusters_of
from folio.recipe.check import check
from folio.recipe.finish import Result, finish
from folio.recipe.origin import kept_text, require_no_origin, weights_to_load
from folio.recipe.recipe import Recipe, with_pace, write_recipe
from folio.recipe.reserve import new_run
from folio.recipe.settle import expect, settle
from folio.recipe.speed import evaluation_now
from folio.recipe.watcher import Both, Watcher
from folio.run.checkpoint import list_checkpoints, newest_checkpoint
from folio.run.directory import Run, runs_folder
from folio.run.formats import stamped
from folio.run.metrics import set_aside_events_after
from folio.run.own_code import require_same_code
from folio.run.parts import write_parts
from folio.run.prediction import predict
from folio.storage import link_or_copy, write_json
from folio.training.deadline import Deadline, TimeBudget
from folio.training.distributed import require_one_process
from folio.training.loop import train
from folio.training.pace_file import write_pace
from folio.training.parts import Training
from folio.training.recorder import RunRecorder
from folio.training.state import TrainingState, load_model_tensors


def train_recipe(
    recipe: Recipe,
    name: str | None,
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
    given: Table | None = None,
    clock: CommandClock | None = None,
) -> Result:
    """Train a recipe into runs/<name>.

    Args:
        recipe: what to train.
        name: name of the run; None makes one from corpus and preset.
        watcher: is told what happens.
        should_stop: called after each step; True ends the training.
        folder: where the run is made; None means runs/.
        given: the settings that the recipe was made from; a budget in minutes chooses what they
            leave open. None takes the recipe as it is.
        clock: the clock against which a budget in minutes is measured; None starts one now.

    Raises:
        UserError: anything the user can fix, before anything is written.
    """
    require_one_process()
    clock = clock or CommandClock()
    with new_run(recipe, name, folder or runs_folder()) as run:
        settled = settle(recipe, watcher, given, clock)
        prepared, device = settled.prepared, settled.device
        texts = prepared.training(), prepared.validation()
        speed, at_end = settled.speed, read_at_end(prepared.files)
        frozen = freeze_budget(settled.recipe, device, *texts, clock, speed, at_end, watcher.tell)
        recipe = frozen.recipe
        families = prepared.record["families"]["validation"]
        clusters = clusters_of(texts[1], prepared.tokenizer, families)
        kept = kept_text(prepared.files.get("kept"), recipe, prepared.tokenizer.fingerprint)
        masks = prepared.loss_masks()
        training = build(recipe, device, *texts, clusters, kept, masks)  # fails here, or never

        prepared.tokenizer.save(run.tokenizer_file)
        for name_of_part, path in prepared.files.items():
            link_or_copy(path, run.tokens_file(name_of_part))
        write_parts(run, prepared.parts)
        if prepared.canaries:
            write_json(run.canaries_file, [canary.record() for canary in prepared.canaries])
        write_json(run.corpus_file, stamped("corpus", prepared.record))
        predict(run, expect(settled, recipe, frozen.speed))
        if settled.origin is not None:
            settled.origin.begin(run, recipe, training)
        if frozen.time is not None:
            write_pace(run.pace_file, frozen.time, training.pace.knots)
        write_recipe(run, recipe)  # last: from here on this is a run
        return train_in(run, recipe, training, watcher, should_stop, frozen.time, clock)


def train_in(
    run: Run,
    recipe: Recipe,
    training: Training,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    budget: TimeBudget | None,
    clock: CommandClock,
) -> Result:
    """Train a locked run, new or resumed.

    Args:
        run, recipe, training: the run and what it consists of.
        watcher, should_stop, clock: as in train_recipe.
        budget: the budget to keep by the clock; None if the steps are fixed.
    """
    check(training, recipe, watcher.tell)
    state = _restore(run, training, watcher)
    if budget is not None:
        before = state.used_seconds if state.step > budget.from_step else 0.0
        n, interval = training.config.evaluations, training.config.evaluation_interval
        now = partial(evaluation_now, training)
        deadline = Deadline(budget, n, lambda: before + clock.used(), interval, now)
        training = replace(training, deadline=deadline)
    state.cores = cores()
    recorder = RunRecorder(run, training, recipe.model)
    watcher.begin(run, training, state)
    try:
        ending = train(training, state, Both(recorder, watcher), should_stop)
    finally:
        if budget is not None:
            recipe = with_pace(recipe, training.pace.knots)
            write_recipe(run, recipe)
    nll = recorder.best_validation_nll
    return finish(run, recipe, ending, state, training, nll, watcher.sample_tokens, should_stop)


def _restore(run: Run, training: Training, watcher: Watcher) -> TrainingState:
    """Load the newest valid checkpoint into the parts; without one, begin at step 0."""
    checkpoint, complaints = newest_checkpoint(run.checkpoints_folder)
    if checkpoint is not None:
        complaints += require_same_code(training.model, checkpoint)
    for complaint in complaints:
        watcher.tell(f"warning: {complaint}")
    state = TrainingState()
    if checkpoint is None:
        require_no_origin(run)
    else:
        load_model_tensors(training.model, weights_to_load(run, checkpoint, training.model))
        training.step.optimizer.load(checkpoint.optimizer_tensors())
        state = TrainingState.restore(checkpoint.state, training.device.torch)
        if state.step:
            watcher.tell(f"going on from {checkpoint.path}")
    for path in list_checkpoints(run.checkpoints_folder):
        if checkpoint is None or path.name > checkpoint.path.name:  # the damaged ones
            shutil.rmtree(path, ignore_errors=True)
    set_aside_events_after(run.metrics_file, state.step or state.evaluated_step)
    return state
