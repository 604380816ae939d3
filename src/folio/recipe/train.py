"""Train a recipe into a run directory, and go on with a run. The whole of Folio in one page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folio.config import Table, read_toml, to_table, to_toml
from folio.device import Device, choose_device, peak_memory
from folio.errors import UserError
from folio.model.fused import must_compile
from folio.recipe.build import (
    Speed,
    build,
    check_device,
    choose_for,
    evaluation_interval,
    fit_vocabulary,
    freeze_budget,
    steps_in,
)
from folio.recipe.expected_loss import RULE, effort_of, read_anchors
from folio.recipe.memory import fit_memory, memory_before
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import BUDGETS, Recipe, make_recipe
from folio.recipe.sizing import size_recipe
from folio.run.card import diagnose_run, draw_loss, write_card
from folio.run.checkpoint import list_checkpoints, newest_checkpoint
from folio.run.diagnosis import Diagnosis
from folio.run.directory import Run, runs_folder
from folio.run.held_out import HeldOut, evaluate_held_out, evaluate_on
from folio.run.look_back import look_back
from folio.run.metrics import set_aside_events_after
from folio.run.opening import open_run
from folio.run.parts import write_parts
from folio.run.prediction import Figures, compare_with_prediction, predict
from folio.storage import atomic_write, link_or_copy, write_json
from folio.tokenizers import load
from folio.tokens.token_file import open_token_file
from folio.training.config import budget_steps
from folio.training.loop import Ending, Evaluation, Observer, Training, train
from folio.training.recorder import RunRecorder
from folio.training.state import TrainingState, load_model_tensors


class Watcher:
    """An Observer that also hears what happens around the training. This one is silent."""

    sample_tokens = 600
    """Length of the text that the model writes at the end; 0 saves its time."""

    def tell(self, line: str) -> None:
        """A line about what is being done."""

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        """Training begins, or goes on."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """As an Observer."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """As an Observer."""

    def save(self, state: TrainingState) -> None:
        """As an Observer."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """As an Observer."""


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    run: Run
    ending: Ending
    state: TrainingState
    diagnosis: Diagnosis
    sample: str
    held_out: list[HeldOut]
    """The best checkpoint on each held-out text, and the last one on the test text."""


def train_recipe(
    recipe: Recipe,
    name: str | None,
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
    given: Table | None = None,
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

    Raises:
        UserError: whatever the user can mend, before anything is written.
    """
    folder = folder or runs_folder()
    if name is not None and (there := Run(folder / name)).exists():
        raise UserError(
            f"The run {there.path} exists already. Go on with it: folio resume {name}. "
            f"Or give another --name."
        )
    recipe, prepared, device, memory_bytes = settle(recipe, watcher, given)
    texts = prepared.training(), prepared.validation()
    recipe, speed = freeze_budget(recipe, device, *texts)
    training = build(recipe, device, *texts)  # fails here, before anything is written, or never

    run = Run(folder / (name or _new_name(recipe)))
    with run.lock():
        prepared.tokenizer.save(run.tokenizer_file)
        for name_of_part, path in prepared.files.items():
            link_or_copy(path, run.tokens_file(name_of_part))
        write_parts(run, prepared.parts)
        if prepared.canaries:
            write_json(run.canaries_file, [canary.record() for canary in prepared.canaries])
        write_json(run.corpus_file, prepared.record)
        predict(run, _expect(recipe, prepared, memory_bytes, speed))
        _write_recipe(run, recipe)  # last: from here on this is a run
        return _train_in(run, recipe, training, watcher, should_stop)


def settle(
    recipe: Recipe, watcher: Watcher, given: Table | None = None
) -> tuple[Recipe, Prepared, Device, int]:
    """Prepare the text, and write out all that a recipe leaves open but its budget.

    Args:
        recipe, watcher, given: as in train_recipe.

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
        recipe = size_recipe(given, prepared, in_use, watcher.tell)
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


def resume_run(
    run: Run,
    overrides: dict[str, Any],
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Go on where a run stopped, or train it longer.

    Args:
        run: the run directory.
        overrides: a table of [training] settings, the budgets among them.
        watcher, should_stop: as in train_recipe.

    Returns:
        How it ended; None where the run is complete and no more was asked for.
    """
    with run.lock():
        before = make_recipe(read_toml(run.recipe_file))
        changes = overrides.get("training", {})
        foreign = [key for key in overrides if key != "training"]
        if foreign:
            raise UserError(
                f"A run goes on with the settings that it began with; only those of training, "
                f"such as --training.max-steps, can change, not {foreign[0]}. Start another run "
                f"with: folio train {run.recipe_file} --{foreign[0]}..."
            )
        device = choose_device(before.device)
        recipe = _extend(run, before, changes) if changes else before
        if recipe != before:
            _write_recipe(run, recipe)
        if not changes and _is_complete(run, recipe):
            return None
        fingerprint = load(run.tokenizer_file).fingerprint
        texts = [open_token_file(run.tokens_file(n), fingerprint) for n in ("train", "validation")]
        training = build(recipe, device, *texts)
        return _train_in(run, recipe, training, watcher, should_stop)


def _train_in(
    run: Run,
    recipe: Recipe,
    training: Training,
    watcher: Watcher,
    should_stop: Callable[[], bool],
) -> Result:
    """The common way of a new run and of one that goes on; the run is locked."""
    check_device(training)
    state = _restore(run, training, watcher)
    if training.device.config.kind == "cpu" and must_compile():
        watcher.tell("compiling the kernels, once, for some seconds ...")
    recorder = RunRecorder(run, training, recipe.model)
    watcher.begin(run, training, state)
    ending = train(training, state, _Both(recorder, watcher), should_stop)
    return _finish(run, recipe, ending, state, training, watcher.sample_tokens)


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


def _finish(
    run: Run,
    recipe: Recipe,
    ending: Ending,
    state: TrainingState,
    training: Training,
    sample_tokens: int,
) -> Result:
    """Draw, sample, diagnose, and write the card."""
    opened = open_run(run)
    sample = ""
    if sample_tokens:
        sample = opened.generate(
            max_tokens=sample_tokens,
            temperature=0.8,
            seed=recipe.seed or 1,
            stop=False,
            compiled=False,
        )
    assert isinstance(sample, str)
    held_out = evaluate_held_out(opened)
    if state.best_step < state.step and (last := evaluate_on(open_run(run, "last"), "test")):
        held_out.append(replace(last, name="test, last step"))
    write_json(run.held_out_file, [text.record() for text in held_out])
    looked = look_back(opened, state.seconds)
    draw_loss(run)
    diagnosis = diagnose_run(run)
    ledger = run.corpus()["ledger"]
    speed = state.tokens / max(state.seconds, 1e-9)
    sources, canaries = recipe.corpus.sources, recipe.corpus.canaries
    facts = [
        ("text", f"{', '.join(sources[:3])}{' ...' if sources[3:] else ''}"),
        (
            "characters for training, validation",
            f"{ledger['training']:,}, {ledger['validation']:,}",
        ),
        ("model", f"{recipe.preset}, {recipe.model.n_parameters:,} parameters"),
        ("steps", f"{state.step:,} of {recipe.training.max_steps:,} ({ending})"),
        ("tokens read", f"{state.tokens:,} ({state.place.epoch} whole epochs)"),
        ("best validation loss", f"{state.best_validation_loss:.4f} at step {state.best_step:,}"),
        *((f"loss, {text.name}", str(text)) for text in held_out),
        *looked,
        ("time", f"{state.seconds:.0f} s, {speed:,.0f} tokens/s"),
        ("device", f"{recipe.device.kind}, {recipe.device.precision}"),
        *([("planted", f"{canaries} canaries: canaries.json")] if canaries else []),
        ("sample again", f"`folio sample {run.path}`"),
    ]
    measured = Figures(
        max_steps=recipe.training.max_steps,
        memory_bytes=max(peak_memory(), training.replicas.peak_bytes),
        seconds=state.seconds if ending == "finished" else None,
        loss=state.best_validation_loss if ending == "finished" else None,
    )
    facts += compare_with_prediction(run, measured)
    write_card(run, facts, [sample] if sample else [])
    return Result(run, ending, state, diagnosis, sample, held_out)


def _extend(run: Run, recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with changed training settings; a budget in minutes is counted from now."""
    table = to_table(recipe)
    changes = dict(changes)
    minutes = changes.pop("minutes", 0.0)
    budget_given = any(key in changes for key in BUDGETS)
    recipe = make_recipe(table, {"training": changes}) if changes else recipe
    training_ids = open_token_file(run.tokens_file("train"))
    length = recipe.model.context_length
    steps = budget_steps(recipe.training, length, len(training_ids) - 1)
    if minutes:
        ends = run.events("step")
        done = ends[-1] if ends else {"step": 0, "seconds": 0.0}
        step_seconds = done["seconds"] / max(done["step"], 1) or 0.1
        more = steps_in(minutes * 60, Speed(step_seconds, 0.0), recipe.training, length, 2)
        checkpoint = run.newest()[0]
        steps = min(steps, checkpoint.step + more) if budget_given else checkpoint.step + more
    frozen = replace(recipe.training, max_steps=steps, max_tokens=0, max_epochs=0.0, minutes=0.0)
    if not frozen.evaluation_interval:
        interval = evaluation_interval(frozen, steps, length, run.corpus()["tokens"]["validation"])
        frozen = replace(frozen, evaluation_interval=interval)
    return replace(recipe, training=frozen)


def _is_complete(run: Run, recipe: Recipe) -> bool:
    ends = run.events("end")
    return bool(ends) and (
        ends[-1]["reason"] == "patience"
        or (ends[-1]["reason"] == "finished" and ends[-1]["step"] >= recipe.training.max_steps)
    )


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


def _new_name(recipe: Recipe) -> str:
    """<corpus>-<preset>-<number>, the number one above those that are there."""
    first = recipe.corpus.sources[0]
    stem = "stdin" if first == "-" else re.sub(r"[^\w.-]+", "-", Path(first).stem).strip("-.")
    base = f"{stem or 'text'}-{recipe.preset}"
    taken = [0]
    for path in runs_folder().glob(f"{base}-*"):
        if (number := path.name.removeprefix(f"{base}-")).isdecimal():
            taken.append(int(number))
    return f"{base}-{max(taken) + 1}"


def _write_recipe(run: Run, recipe: Recipe) -> None:
    with atomic_write(run.recipe_file) as file:
        file.write(f"# folio train {run.recipe_file}\n\n{to_toml(recipe)}")


class _Both:
    """First the recorder, then the watcher, so that what is shown is already on the disk."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        for observer in self.observers:
            observer.stepped(state, loss, learning_rate)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        for observer in self.observers:
            observer.evaluated(state, evaluation)

    def save(self, state: TrainingState) -> None:
        for observer in self.observers:
            observer.save(state)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        for observer in self.observers:
            observer.ended(state, ending)
