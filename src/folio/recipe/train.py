"""Train a recipe into a run directory. The whole of Folio in one page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from folio.config import Table
from folio.device import cores
from folio.loggers.logger import require_installed
from folio.recipe.budget import CommandClock, freeze_budget, read_at_end, with_deadline
from folio.recipe.build import build, clusters_of
from folio.recipe.check import check
from folio.recipe.finish import Result, finish
from folio.recipe.observing import observing
from folio.recipe.origin import kept_text
from folio.recipe.recipe import Recipe, save_recipe, with_pace
from folio.recipe.reserve import new_run
from folio.recipe.restore import forget_later, restore
from folio.recipe.settle import expect, settle, with_absolute_paths
from folio.recipe.together import follow, leading, require_steps, train_along
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, runs_folder
from folio.run.formats import stamped
from folio.run.parts import write_parts
from folio.run.prediction import predict
from folio.storage import link_or_copy, write_json
from folio.training.batches import evaluated_length
from folio.training.config import is_timed
from folio.training.deadline import TimeBudget
from folio.training.distributed import join, joined
from folio.training.pace_file import write_pace
from folio.training.parts import Training


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
        watcher: is told what happens, in the first of several processes.
        should_stop: called after each step; True ends the training.
        folder: where the run is made; None means runs/.
        given: the settings that the recipe was made from; a budget in minutes chooses what they
            leave open. None takes the recipe as it is.
        clock: the clock against which a budget in minutes is measured; None starts one now.

    Raises:
        UserError: anything the user can fix, before anything is written.
    """
    clock, group = clock or CommandClock(), join()
    if group is not None and group.rank:
        followed = follow(group, should_stop)
        assert followed is not None, "a new run is never complete"
        return followed
    with leading(group), new_run(recipe, name, folder or runs_folder()) as run:
        require_installed(recipe.training.log)
        require_steps(group, is_timed(recipe.training))
        settled = settle(recipe, watcher, given, clock, group)
        prepared, device = settled.prepared, settled.device
        texts = prepared.training(), prepared.validation()
        speed, at_end = settled.speed, read_at_end(prepared.files, recipe.ngrams.order)
        frozen = freeze_budget(settled.recipe, device, *texts, clock, speed, at_end, watcher.tell)
        asked, recipe = with_absolute_paths(recipe), frozen.recipe
        families = prepared.record["families"]["validation"]
        clusters = clusters_of(texts[1], prepared.tokenizer, families)
        kept = kept_text(prepared.files.get("kept"), recipe, prepared.tokenizer.fingerprint)
        masks = prepared.loss_masks()
        # It fails here, or never.
        training = build(recipe, device, *texts, clusters, kept, masks, group)

        prepared.tokenizer.save(run.tokenizer_file)
        for name_of_part, path in prepared.files.items():
            link_or_copy(path, run.tokens_file(name_of_part))
        if prepared.parts is not None:
            write_parts(run, prepared.parts)
        if prepared.canaries:
            write_json(run.canaries_file, [canary.record() for canary in prepared.canaries])
        write_json(run.corpus_file, stamped("corpus", prepared.record))
        predict(run, expect(settled, recipe, frozen.speed))
        if settled.origin is not None:
            settled.origin.begin(run, recipe, training)
        if frozen.time is not None:
            write_pace(run.pace_file, frozen.time, training.pace.plans)
        save_recipe(run.asked_file, asked)
        save_recipe(run.recipe_file, recipe)  # last: from here on this is a run
        return train_in(run, recipe, training, watcher, should_stop, frozen.time, clock)


def train_in(
    run: Run,
    recipe: Recipe,
    training: Training,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    budget: TimeBudget | None,
    clock: CommandClock,
    with_new_patience: bool = False,
) -> Result:
    """Train a locked run, new or resumed.

    Args:
        run, recipe, training: the run and what it consists of.
        watcher, should_stop, clock: as in train_recipe.
        budget: the budget to keep by the clock; None if the steps are fixed.
        with_new_patience: whether evaluations before this count no longer towards
            `training.patience`.
    """
    check(training, recipe, watcher.tell)
    run.ngram_weights_file.unlink(missing_ok=True)  # written anew at the end of this training
    state, checkpoint = restore(run, training, watcher.tell)
    forget_later(run, state, checkpoint)
    if with_new_patience:
        state.stale_evaluations = 0
    training = with_deadline(training, budget, state, clock)
    state.cores = cores()
    with observing(run, recipe, training, state, watcher) as observers:
        watcher.begin(run, training, state)
        if (group := joined()) is not None:
            own = {"step": state.step, "stale_evaluations": state.stale_evaluations}
            group.tell({"run": str(run.path.resolve()), **own})
            group.note_run(run.name)
        try:
            ending = train_along(group, recipe, training, state, observers, should_stop)
            length = evaluated_length(training, state.step)
            if ending != "finished" and length < training.context_length:
                watcher.tell(
                    f"warning: so far it read windows of {length} tokens only, and writes little "
                    f"sense beyond {length}; longer ones come when it goes on"
                )
        finally:
            if budget is not None and run.exists():  # and was not removed meanwhile
                recipe = with_pace(recipe, training.pace.plans)
                save_recipe(run.recipe_file, recipe)
        nll, n_sample = observers.recorder.best_validation_nll, watcher.sample_tokens
        result = finish(run, recipe, ending, state, training, nll, n_sample, should_stop)
        observers.finished(result)
    return result
