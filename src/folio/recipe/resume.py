"""Resumes a run where it stopped, or trains it longer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from folio.config import Table, dotted, read_toml, to_table
from folio.device import Device, DeviceConfig, choose_device, cores
from folio.errors import UserError
from folio.loggers.logger import require_installed
from folio.recipe.budget import READ_AT_END, CommandClock, freeze_budget, read_at_end
from folio.recipe.finish import Result
from folio.recipe.memory import fit_memory, fits, memory_before
from folio.recipe.observing import show_complete
from folio.recipe.recipe import (
    BUDGETS,
    CHANGEABLE,
    Recipe,
    make_recipe,
    read_recipe,
    save_recipe,
    with_pace,
)
from folio.recipe.reopen import reopen
from folio.recipe.restore import whole_checkpoint
from folio.recipe.settle import with_absolute_paths, with_goldfish_before
from folio.recipe.start import contradictions
from folio.recipe.together import follow, leading, require_steps
from folio.recipe.train import train_in, train_recipe
from folio.recipe.watcher import Watcher
from folio.run.card import diagnose_run
from folio.run.directory import Run, runs_folder
from folio.tokenizers import load
from folio.tokenizers.base import TokenIds
from folio.tokens.token_file import open_token_file
from folio.training.deadline import TimeBudget
from folio.training.distributed import Processes, is_launched, join
from folio.training.pace import Pace
from folio.training.pace_file import read_pace, write_pace
from folio.training.schedule import lr_scale_at, window_length

SHOWN = ("page", "log")
"""Settings of [training] that say where a run is shown; one that is complete, too."""
APART = (*SHOWN, "sharding")
"""Settings of [training] that say where a run is shown, and how processes divide it; a budget does
not begin anew with them."""
OF_BUDGET = {
    "training": (
        "evaluation_interval",
        "evaluations",
        "evaluation_sample",
        "validation_sample",
        "log_interval",
    ),
    "device": ("compile",),
}
"""Settings that follow from a budget where they are left open."""
OF_MEMORY = {"training": ("micro_batch_size",)}
"""Settings that follow from memory where they are left open."""


def resume_run(
    run: Run,
    overrides: dict[str, Any],
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
    clock: CommandClock | None = None,
) -> Result | None:
    """Resume a run where it stopped, or train it longer.

    Args:
        run: the run directory.
        overrides: tables of [training] and [device] settings, including budgets.
        watcher, should_stop, clock: as in train_recipe.

    Returns:
        The result; None if the run is complete and no more was asked for.
    """
    clock, group = clock or CommandClock(), join()
    if group is not None and group.rank:
        return follow(group, should_stop)
    with leading(group), run.lock():
        before = read_recipe(run)
        if "imported" in run.corpus():
            raise UserError(
                f"The run {run.path} was imported, and has no training text to go on with. Let it "
                f"write: folio sample {run.word}."
            )
        for key in overrides:
            if key not in CHANGEABLE:
                raise UserError(
                    f"A run goes on with the settings that it began with; only those of "
                    f"{' and '.join(CHANGEABLE)}, such as --training.max-steps, can change, not "
                    f"{key}. Start another run with: {run.again} --{key}..."
                )
        changes = dict(overrides.get("training", {}))
        apart = {name: changes.pop(name) for name in APART if name in changes}
        if not changes and _is_complete(run, before):
            if shown := {name: apart[name] for name in SHOWN if name in apart}:
                shown_in = make_recipe(to_table(before), {"training": shown})
                require_installed(shown_in.training.log)
                save_recipe(run.recipe_file, shown_in)
                show_complete(run, shown_in, watcher.tell)
            return None
        device_changes = overrides.get("device", {})
        left_open = _left_open(run, OF_BUDGET) if any(name in changes for name in BUDGETS) else {}
        fixed = {k: v for k, v in overrides.get("training", {}).items() if k not in BUDGETS}
        given: Table = {"training": fixed, "device": device_changes}
        asked = make_recipe(to_table(before), left_open, given)
        require_installed(asked.training.log)
        tokenizer = load(run.tokenizer_file)
        parts = (run.tokens_file(part) for part in ("train", "validation"))
        train_ids, validation = (open_token_file(path, tokenizer.fingerprint) for path in parts)
        texts = train_ids, validation
        checkpoint, _ = whole_checkpoint(run)
        moved = checkpoint is not None and checkpoint.state.get("cores") != cores()
        wanted = replace(before.device, compile=asked.device.compile)
        recipe, device = _on_this_machine(asked, wanted, moved, device_changes, watcher)
        is_other = device.config != wanted
        recipe = _within_memory(run, recipe, device, fixed, is_other, watcher, group)
        done = checkpoint.step if checkpoint else 0
        _require_same_rows(run, before, asked, done)
        recipe, budget = _with_budget(run, recipe, done, changes, device, texts, watcher, clock)
        recipe = with_goldfish_before(recipe, tokenizer)
        require_steps(group, budget is not None)
        ends = run.events("end")
        if ends and ends[-1]["reason"] == "non-finite":
            watcher.tell(f"warning: this run ended with {diagnose_run(run)}")
        training = reopen(run, recipe, device, group)  # it fails here, or never
        if budget is not None:
            write_pace(run.pace_file, budget, training.pace.plans)
        if recipe != before:
            save_recipe(run.recipe_file, recipe)
        _note_as_asked(run, given)
        if budget is None:  # only now: until then it is what the run goes on by
            run.pace_file.unlink(missing_ok=True)
        anew = bool(changes and ends) and ends[-1]["reason"] == "patience"
        return train_in(run, recipe, training, watcher, should_stop, budget, clock, anew)


def train_or_go_on(
    recipe: Recipe,
    name: str | None,
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
    given: Table | None = None,
    clock: CommandClock | None = None,
) -> Result | None:
    """Train a recipe; where a launcher such as torchrun starts the same command again, go on with
    the run that it has made before.

    Args:
        recipe, name, watcher, should_stop, given, clock: as in train_recipe.

    Returns:
        As resume_run.

    Raises:
        UserError: as both; or that run was begun with other settings.
    """
    group = join()
    if group is not None and group.rank:
        return follow(group, should_stop)
    if group is not None and name is None:
        name = group.earlier_run()
    launched = group is not None or is_launched()
    if not launched or name is None or not (run := Run(runs_folder() / name)).exists():
        return train_recipe(recipe, name, watcher, should_stop, given=given, clock=clock)
    with leading(group):
        own = to_table(read_recipe(run))
        # What was left open has a value there, and a budget is in steps.
        file = run.asked_file
        begun = to_table(make_recipe(read_toml(file))) if file.exists() else own
        wanted = to_table(with_absolute_paths(make_recipe(given or {})))
        others = {setting for setting, *_ in contradictions(wanted, own)}
        others &= set(dict(dotted(given or {})))
        for setting, asked, found in contradictions(wanted, begun):
            if setting in others:
                raise UserError(
                    f"The run {run.path} exists already, and began with {setting} = {found!r} "
                    f"where {asked!r} is asked for. Give another --name, or go on with it: "
                    f"torchrun ... -m folio resume {run.word}"
                )
        return resume_run(run, {}, watcher, should_stop, clock)


def _left_open(run: Run, names: Mapping[str, Sequence[str]]) -> Table:
    """Settings as they were asked for when the run began, with what that left open; nothing of a
    run of 0.1, which does not know.

    Args:
        run: the run.
        names: the settings of each table.
    """
    if not run.asked_file.exists():
        return {}
    asked = to_table(make_recipe(read_toml(run.asked_file)))
    return {table: {name: asked[table][name] for name in names[table]} for table in names}


def _note_as_asked(run: Run, given: Table) -> None:
    """Note the settings of a resume that a later one would take for Folio's choice otherwise."""
    chosen = {**OF_BUDGET, "training": (*OF_BUDGET["training"], *OF_MEMORY["training"])}
    kept = {
        table: {name: value for name, value in given[table].items() if name in names}
        for table, names in chosen.items()
    }
    if run.asked_file.exists() and any(kept.values()):
        save_recipe(run.asked_file, make_recipe(read_toml(run.asked_file), kept))


def _is_complete(run: Run, recipe: Recipe) -> bool:
    """Whether a run has ended, and all that follows training is written; the card comes last."""
    ends = run.events("end")
    return (
        bool(ends)
        and run.card_file.exists()
        and (
            ends[-1]["reason"] == "patience"
            or (ends[-1]["reason"] == "finished" and ends[-1]["step"] >= recipe.training.max_steps)
        )
    )


def _require_same_rows(run: Run, before: Recipe, after: Recipe, done: int) -> None:
    """Refuse another batch size where each row of a batch reads a part of the text of its own.

    Raises:
        UserError: it changes after steps were done; text would be left out.
    """
    rows, wanted = before.training.batch_size, after.training.batch_size
    if done and before.stream.order == "sequential" and rows != wanted:
        raise UserError(
            f"With stream.order = sequential, each of the {rows} rows of a batch is in the middle "
            f"of a part of the text of its own, so training.batch_size must stay {rows}, got "
            f"{wanted}. Leave it out, or train another run: {run.again} "
            f"--training.batch-size {wanted}"
        )


# ---- the machine -------------------------------------------------------------------------


def _on_this_machine(
    recipe: Recipe,
    wanted: DeviceConfig,
    moved: bool,
    changes: dict[str, Any],
    watcher: Watcher,
) -> tuple[Recipe, Device]:
    """Use the run's original device as far as this machine has it.

    A result depends on device, precision and threads in its last bits, so each change is reported.

    Args:
        recipe: the run's recipe, with what the user changed.
        wanted: the device that the run had.
        moved: whether it was trained on a machine with other cores.
        changes: what the user gave for [device].
        watcher: is told of changes.
    """
    config = recipe.device
    if moved and not changes.get("threads") and config.threads > cores():
        config = replace(config, threads=cores())
    try:
        device = choose_device(config)
    except UserError:
        if "kind" in changes or "precision" in changes:
            raise
        # The run comes from a machine that has what this one lacks.
        usual = DeviceConfig()
        config = replace(config, kind=usual.kind, precision=usual.precision)
        device = choose_device(config)
    for name in ("kind", "precision", "threads"):
        was, now = getattr(wanted, name), getattr(device.config, name)
        if was != now:
            watcher.tell(
                f"device.{name} was {was} and is {now} from here on: the losses differ from those "
                f"of an uninterrupted run in their last bits"
            )
    if device.config != wanted:
        watcher.tell(f"device: {device}")
    return replace(recipe, device=device.config), device


def _within_memory(
    run: Run,
    recipe: Recipe,
    device: Device,
    changes: Table,
    is_other: bool,
    watcher: Watcher,
    group: Processes | None,
) -> Recipe:
    """Keep the micro-batch, and with it the bits, where the device is that of before and has room;
    else choose anew what the user left open.

    Args:
        run, recipe, device: what goes on, and where.
        changes: what the user gave for [training].
        is_other: whether the device was another one.
        watcher: is told what does not fit at once.
        group: of the processes that go on together, if there are several.
    """
    in_use = memory_before()
    if not is_other and fits(recipe, device, in_use, group):
        return recipe
    recipe = make_recipe(to_table(recipe), _left_open(run, OF_MEMORY), {"training": changes})
    return fit_memory(recipe, device, in_use, watcher.tell, group)[0]


# ---- the budget --------------------------------------------------------------------------


def _with_budget(
    run: Run,
    recipe: Recipe,
    done: int,
    changes: dict[str, Any],
    device: Device,
    texts: tuple[TokenIds, TokenIds],
    watcher: Watcher,
    clock: CommandClock,
) -> tuple[Recipe, TimeBudget | None]:
    """The recipe with its old steps, or with those of a changed budget; and what to keep by the
    clock. Nothing is written.

    Raises:
        UserError: that budget has fewer steps than were done.
    """
    budget = None
    if (paced := read_pace(run.pace_file)) is not None:
        budget, plans = paced
        recipe = with_pace(recipe, plans)
    if not changes:
        return recipe, budget
    longer = make_recipe(to_table(recipe), {"training": changes})
    files = {part: run.tokens_file(part) for part in READ_AT_END}
    at_end = read_at_end(files, recipe.ngrams.order)
    frozen = freeze_budget(
        longer, device, *texts, clock, read_at_end=at_end, tell=watcher.tell, from_step=done
    )
    longer = frozen.recipe
    if longer.training.max_steps < done:
        n = longer.training.max_steps
        raise UserError(
            f"The run has done {done:,} steps already, and {n:,} are fewer. Give more, or train "
            f"another run of so many: {run.again} --training.max-steps {n}"
        )
    if done:
        _tell_of_a_rise(recipe, longer, done, watcher)
        longer = _with_long_windows(recipe, longer, done)
    return longer, frozen.time if any(name in changes for name in BUDGETS) else budget


def _tell_of_a_rise(before: Recipe, after: Recipe, step: int, watcher: Watcher) -> None:
    """Tell the user if a longer schedule raises the learning rate again."""
    share_before, share_after = (
        lr_scale_at(r.schedule, pace.progress(step) - 1, pace.planned)
        for r in (before, after)
        for pace in [Pace.of(r.schedule.pace, r.training.max_steps)]
    )
    if share_after > share_before + 0.1:
        watcher.tell(
            f"the learning rate goes back up from {share_before:.0%} to {share_after:.0%} of its "
            f"peak, since its schedule now ends at step {after.training.max_steps:,}; the loss may "
            f"rise at first. A run that leaves room from the start: --schedule.horizon-steps "
            f"{after.training.max_steps}"
        )


def _with_long_windows(before: Recipe, after: Recipe, step: int) -> Recipe:
    """A recipe with a longer schedule, which does not go back to short windows."""
    paces = [Pace.of(r.schedule.pace, r.training.max_steps) for r in (before, after)]
    length_before, length_after = (
        window_length(r.schedule, r.model.context_length, pace.progress(step) - 1, pace.planned)
        for r, pace in zip((before, after), paces)
    )
    if length_after >= length_before:
        return after
    wholes = [after.schedule.horizon_steps or pace.planned for pace in paces]
    # As many steps as they were planned to be, or fewer where the clock made them fewer.
    share = min(before.schedule.short_fraction * wholes[0], step) / wholes[1]
    return replace(after, schedule=replace(after.schedule, short_fraction=share))
