"""Train a recipe into a run directory. The whole of Folio in one page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from folio.config import Table, to_toml
from folio.device import Device
from folio.errors import UserError
from folio.model.fused import must_compile
from folio.recipe.budget import CommandClock, Speed, freeze_budget
from folio.recipe.build import build, check_device, choose_for, fit_vocabulary, validation_cluster
from folio.recipe.expected_loss import RULE, effort_of, read_anchors
from folio.recipe.finish import Result, finish
from folio.recipe.memory import fit_memory, memory_before
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import Recipe
from folio.recipe.sizing import size_recipe
from folio.recipe.watcher import Both, Watcher
from folio.run.checkpoint import list_checkpoints, newest_checkpoint
from folio.run.directory import Run, runs_folder
from folio.run.metrics import set_aside_events_after
from folio.run.prediction import Figures, predict
from folio.storage import atomic_write, link_or_copy, write_json
from folio.training.deadline import Deadline, TimeBudget
from folio.training.loop import Training, train
from folio.training.pace import Knot
from folio.training.pace_file import write_pace
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
        name: of the run; made from corpus and preset where it is None.
        watcher: hears what happens.
        should_stop: asked after each step.
        folder: where the run is made; runs/ where it is None.
        given: the settings that the recipe was made of; what they leave open, the minutes choose.
            None takes the recipe as it is.
        clock: of the command, which a budget in minutes counts from; from now on where it is None.

    Raises:
        UserError: whatever the user can mend, before anything is written.
    """
    clock = clock or CommandClock()
    with new_run(recipe, name, folder or runs_folder()) as run:
        recipe, prepared, device, memory_bytes = settle(recipe, watcher, given, clock)
        texts = prepared.training(), prepared.validation()
        frozen = freeze_budget(recipe, device, *texts, clock, prepared.read_at_end(), watcher.tell)
        recipe = frozen.recipe
        training = build(recipe, device, *texts)  # fails here, before anything is written, or never
        cluster = validation_cluster(texts[1], prepared.tokenizer, prepared.record)
        training = replace(training, validation_cluster=cluster)

        prepared.tokenizer.save(run.tokenizer_file)
        for name_of_part, path in prepared.files.items():
            link_or_copy(path, run.tokens_file(name_of_part))
        write_json(run.corpus_file, prepared.record)
        predict(run, _expect(recipe, prepared, memory_bytes, frozen.speed))
        if frozen.time is not None:
            write_pace(run.pace_file, frozen.time, training.pace.knots)
        write_recipe(run, recipe)  # last: from here on this is a run
        return train_in(run, recipe, training, watcher, should_stop, frozen.time, clock)


@contextmanager
def new_run(recipe: Recipe, name: str | None, folder: Path) -> Iterator[Run]:
    """Reserve a name for a run: while this lasts, nobody else can take it or write into it.

    Raises:
        UserError: the run exists, or another process is making it.
    """
    run, held = _reserve(recipe, name, folder)
    with held:
        yield run


def _reserve(recipe: Recipe, name: str | None, folder: Path) -> tuple[Run, ExitStack]:
    while True:
        run = Run(folder / (name or _new_name(recipe, folder)))
        _refuse_existing(run)
        is_new = not run.path.exists()
        with ExitStack() as held:
            try:
                held.enter_context(run.lock())
            except UserError:
                # Another command may have taken the same number a moment ago.
                if name is None and _new_name(recipe, folder) != run.name:
                    continue
                raise
            _refuse_existing(run)  # it may have been finished while nobody held the lock
            if is_new:
                held.callback(_discard_unfinished, run)
            return run, held.pop_all()


def _refuse_existing(run: Run) -> None:
    if run.exists():
        raise UserError(
            f"The run {run.path} exists already. Go on with it: folio resume {run.name}. "
            f"Or give another --name."
        )


def _discard_unfinished(run: Run) -> None:
    """Remove a folder that never became a run; its lock is held."""
    if not run.exists():
        shutil.rmtree(run.path, ignore_errors=True)


def settle(
    recipe: Recipe,
    watcher: Watcher,
    given: Table | None = None,
    clock: CommandClock | None = None,
) -> tuple[Recipe, Prepared, Device, int]:
    """Prepare the text, and write out all that a recipe leaves open but its budget.

    Args:
        recipe, watcher, given, clock: as in train_recipe.

    Returns:
        The recipe, its text, where it is trained, and the bytes of memory that this should take; 0
        where that is not known.

    Raises:
        UserError: as `prepare`, `choose_device` and `fit_memory`.
    """
    prepared = prepare(recipe, watcher.tell)
    for warning in prepared.warnings:
        watcher.tell(f"warning: {warning}")
    in_use = memory_before()
    if given is not None:
        used = clock.used() if clock else 0.0
        recipe = size_recipe(given, prepared, in_use, watcher.tell, used)
    recipe = replace(recipe, tokenizer=prepared.tokenizer_config)
    recipe = fit_vocabulary(recipe, prepared.tokenizer.vocab_size)
    device = choose_for(recipe)
    watcher.tell(f"device: {device}")
    recipe = replace(_with_absolute_paths(recipe), device=device.config)
    recipe, memory_bytes = fit_memory(recipe, device, in_use, watcher.tell)
    return recipe, prepared, device, memory_bytes


def _expect(recipe: Recipe, prepared: Prepared, memory_bytes: int, speed: Speed | None) -> Figures:
    """What is known beforehand: memory on a processor, time where it was measured, loss where
    this text was planned for."""
    config, length = recipe.training, recipe.model.context_length
    anchors = read_anchors(prepared.files["train"])
    effort = effort_of(recipe.model, config.batch_size, config.max_steps, len(prepared.training()))
    return Figures(
        max_steps=config.max_steps,
        memory_bytes=memory_bytes or None,
        seconds=speed and speed.run_seconds(config, length, len(prepared.validation())),
        loss=RULE.expected_loss(anchors, effort) if anchors else None,
        loss_band=RULE.band if anchors else None,
    )


def train_in(
    run: Run,
    recipe: Recipe,
    training: Training,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    budget: TimeBudget | None,
    clock: CommandClock,
) -> Result:
    """Train a run that is locked, a new one or one that goes on.

    Args:
        run, recipe, training: that belong together.
        watcher, should_stop: as in train_recipe.
        budget: what is kept to the clock; None where the steps are fixed.
        clock: of the command.
    """
    check_device(training)
    state = _restore(run, training, watcher)
    if training.device.config.kind == "cpu" and must_compile():
        watcher.tell("compiling the kernels, once, for some seconds ...")
    if budget is not None:
        before = state.used_seconds if state.step > budget.from_step else 0.0
        n = training.config.evaluations or -(
            -training.pace.last // training.config.evaluation_interval
        )
        training = replace(training, deadline=Deadline(budget, n, lambda: before + clock.used()))
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


def with_pace(recipe: Recipe, knots: Sequence[Knot]) -> Recipe:
    """The recipe that repeats what a clock decided, without one."""
    schedule = replace(recipe.schedule, pace=tuple(map(str, knots)))
    config = replace(recipe.training, max_steps=knots[-1].last)
    return replace(recipe, schedule=schedule, training=config)


def _restore(run: Run, training: Training, watcher: Watcher) -> TrainingState:
    """The newest whole checkpoint into the parts; the beginning where there is none."""
    checkpoint, complaints = newest_checkpoint(run.checkpoints_folder)
    for complaint in complaints:
        watcher.tell(f"warning: {complaint}")
    step = 0
    state = TrainingState()
    if checkpoint is not None:
        load_model_tensors(training.model, checkpoint.model_tensors())
        training.optimizer.load(checkpoint.optimizer_tensors())
        state = TrainingState.restore(checkpoint.state, training.device.torch)
        step = checkpoint.step
        watcher.tell(f"going on from {checkpoint.path}")
    for path in list_checkpoints(run.checkpoints_folder):
        if checkpoint is None or path.name > checkpoint.path.name:  # those that are damaged
            shutil.rmtree(path, ignore_errors=True)
    set_aside_events_after(run.metrics_file, step)
    return state


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Files by their whole path, so that the recipe means the same from any folder."""

    def absolute(sources: tuple[str, ...]) -> tuple[str, ...]:
        paths = [Path(source).expanduser() for source in sources]
        return tuple(
            str(path.resolve()) if source != "-" and path.exists() else source
            for source, path in zip(sources, paths)
        )

    corpus = recipe.corpus
    return replace(
        recipe,
        corpus=replace(
            corpus,
            sources=absolute(corpus.sources),
            validation=absolute(corpus.validation),
        ),
    )


def _new_name(recipe: Recipe, folder: Path) -> str:
    """<corpus>-<preset>-<number>, the number one above those that are there."""
    first = recipe.corpus.sources[0]
    stem = "stdin" if first == "-" else re.sub(r"[^\w.-]+", "-", Path(first).stem).strip("-.")
    base = f"{stem or 'text'}-{recipe.preset}"
    taken = [0]
    for path in folder.glob(f"{base}-*"):
        if (number := path.name.removeprefix(f"{base}-")).isdecimal():
            taken.append(int(number))
    return f"{base}-{max(taken) + 1}"


def write_recipe(run: Run, recipe: Recipe) -> None:
    """Write the resolved recipe."""
    with atomic_write(run.recipe_file) as file:
        file.write(f"# folio train {run.recipe_file}\n\n{to_toml(recipe)}")
