"""folio ladder: the model built up one idea at a time."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from folio.cli.guides import say_next
from folio.cli.outputs import check_output
from folio.cli.overrides import Repeatable
from folio.console import amount, duration, say, show, table
from folio.corpus.own import has_page, has_picture
from folio.errors import UserError
from folio.ladder import ablation, scaled_up
from folio.ladder.steps import COURSE, STEPS, Step
from folio.run.directory import check_name
from folio.storage import json_text
from folio.training.config import check_budget

if TYPE_CHECKING:
    from folio.ladder.training import Evaluation, LadderResult
    from folio.recipe.prepare import Prepared
    from folio.run.directory import Run

LATER = {
    "7": "scaled up, with dropout (hours on a CPU, or --minutes 10)",
    "8": "text without end from the model of step 7",
    "9": "what newer papers changed, one change at a time",
}
WORDS = (*(str(step.number) for step in STEPS), *LATER, "all", "check")

PAGE = "--page"

FLAGS = {
    # flag: the steps that it is for
    "seed": (*(str(step.number) for step in STEPS), "all", "7", "9", "check", PAGE),
    "seeds": ("all", "9"),
    "max_steps": (*(str(step.number) for step in STEPS), "all", "9", "check", PAGE),
    "minutes": ("7", "9"),
    "only": ("9",),
    "name": ("7", "8"),
    "json": (*(str(step.number) for step in STEPS), "all", "9"),
    "out": ("all", "9", PAGE),
}


def ladder(
    step: str | None = None,
    *corpus: str,
    seed: int | None = None,
    seeds: int | None = None,
    max_steps: int | None = None,
    minutes: float | None = None,
    only: Repeatable | None = None,
    name: str | None = None,
    page: bool = False,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Build up a GPT, one idea at a time: folio ladder [STEP] [CORPUS ...]

    Without STEP, prints the list. 0 to 6 train a small model in seconds and let it write; all
    trains the seven and draws them; 7 trains the baby GPT, 8 lets it write until Ctrl-C, 9 compares
    what newer papers changed. CORPUS is as for folio train; by default shakespeare.

    check tests your own version of a step, a file with build(sizes): folio ladder check 2
    my_heads.py looks at what it computes, and trains it beside the step's own for 1000 steps.

    Args:
        step: 0 to 9, all, or check.
        corpus: Text; for check the number of a step, and your file, before it.
        seed: Seed of weights and order; equal seeds give equal numbers. 1 by default, for 7 1337.
        seeds: For all and 9: train each with this many seeds, from --seed on.
        max_steps: Optimizer steps of each training, for a quick look.
        minutes: For 7 and 9: how long to train, for 9 each row, in place of 1,000 steps. What a row
            reaches then depends on the machine and on what else runs on it.
        only: For 9: only this row, and the baseline; repeatable.
        name: For 7 and 8: name of the run.
        page: Train 0 to 6 and write one offline page: curves, what each step changes in the code,
            and exercises.
        json: Print JSON.
        out: For all and 9: the picture; runs/ladder.svg and runs/ladder-9.svg. With --page: the
            page; runs/ladder.html.
    """
    if page:
        corpus, step = tuple(word for word in (step, *corpus) if word), PAGE
    given = {"seed": seed, "seeds": seeds, "max_steps": max_steps, "minutes": minutes, "only": only}
    given |= {"name": name, "json": json or None, "out": out}
    _check(step, given)
    given_seed, seed = seed, 1 if seed is None else seed
    check_output(out, "--out", has_page if step == PAGE else has_picture)
    sources = corpus or ("shakespeare",)
    if step is None:
        show(_list())
    elif step == PAGE:
        _page(sources, seed, max_steps, out)
    elif step == "check":
        _check_own(corpus, seed, max_steps)
    elif step == "all":
        _all(sources, range(seed, seed + (seeds or 1)), max_steps, json, out)
    elif step == "7":
        _scaled_up(corpus, given_seed, minutes, name or scaled_up.RUN_NAME)
    elif step == "8":
        _endless(name or scaled_up.RUN_NAME)
    elif step == "9":
        chosen = range(seed, seed + (seeds or 3))
        budget = ablation.Budget(max_steps or ablation.MAX_STEPS, minutes)
        _ablation(sources, chosen, budget, only, json, out)
    else:
        _one(STEPS[int(step)], sources, seed, max_steps, json)


def _check(step: str | None, given: dict[str, Any]) -> None:
    if step is not None and step not in (*WORDS, PAGE):
        raise UserError(f"There is no step '{step}'. Give one of {', '.join(WORDS)}.")
    for flag, value in given.items():
        if value is not None and step not in FLAGS[flag]:
            raise UserError(
                f"--{flag.replace('_', '-')} is for folio ladder {' or '.join(FLAGS[flag])}."
            )
        if flag in ("seeds", "max_steps") and value is not None and value < 1:
            raise UserError(f"--{flag.replace('_', '-')} must be at least 1, got {value}.")
    if (minutes := given.get("minutes")) is not None:
        check_budget("--minutes", minutes)
        if given.get("max_steps") is not None:
            raise UserError("--minutes and --max-steps are both budgets. Leave one of them out.")
    if name := given.get("name"):
        check_name(name)
    if (seed := given.get("seed")) is not None and seed < 0:
        raise UserError(f"--seed must be 0 or more, got {seed}.")


def _list() -> str:
    rows = [[str(s.number), s.idea, str(s.expected)] for s in STEPS]
    rows += [[number, what, ""] for number, what in LATER.items()]
    rows[7][2] = str(scaled_up.EXPECTED)
    return (
        f"{table(['step', 'idea', COURSE], rows)}\n\n"
        f"The steps are those of {COURSE}. Its losses are of held-out tiny Shakespeare,\n"
        f"in nats per character.\n"
        f"folio ladder 3 trains step 3, folio ladder all trains 0 to 6. Each idea's source\n"
        f"stands in its file, src/folio/ladder/step*.py. python -m folio.ladder.plain is step 1\n"
        f"without torch: plain Python that imports nothing, with its own backward pass."
    )


# ---- steps 0 to 6 ------------------------------------------------------------------------


def _prepare(sources: tuple[str, ...]) -> Prepared:
    from folio.recipe.prepare import prepare
    from folio.recipe.recipe import make_recipe

    corpus = {"sources": list(sources), "conversations": "text"}  # all of it is learned
    return prepare(make_recipe({"corpus": corpus, "tokenizer": {"kind": "character"}}), say)


def _climb(step: Step, text: Prepared, seed: int, max_steps: int | None) -> LadderResult:
    from folio.ladder.training import MAX_STEPS, climb

    say(f"step {step.number}: {step.idea}")
    return climb(step, text, seed=seed, max_steps=max_steps or MAX_STEPS, show=_show)


def _show(evaluation: Evaluation) -> None:
    say(
        f"step {evaluation.step}: train loss {evaluation.training_loss:.4f}, "
        f"validation loss {evaluation.validation_loss:.4f}"
    )


def _one(
    step: Step, sources: tuple[str, ...], seed: int, max_steps: int | None, json: bool
) -> None:
    from folio.ladder.training import write

    text = _prepare(sources)
    result = _climb(step, text, seed, max_steps)
    sample = write(result, text, n_characters=500, seed=seed)
    if json:
        record = _record(step, [result]) | {"sample": sample}
        record["evaluations"] = [vars(evaluation) for evaluation in result.evaluations]
        show(json_text(record, indent=2))
        return
    show(f"\n{sample}\n")
    comparable = sources == ("shakespeare",) and max_steps is None
    expected = f"; in {COURSE} {step.expected}" if comparable else ""
    show(
        f"step {step.number}, {step.idea}: {result.n_parameters:,} parameters, validation loss "
        f"{result.validation_loss:.4f}{expected} ({duration(result.seconds)})"
    )
    show(f"source  {step.source}\nread    src/folio/ladder/{step.module}.py")


def _page(sources: tuple[str, ...], seed: int, max_steps: int | None, out: Path | None) -> None:
    """Train the steps on one text, and write the page about them."""
    from folio.ladder import page
    from folio.ladder.training import climb
    from folio.run.directory import runs_folder

    text, steps = _prepare(sources), max_steps or page.MAX_STEPS
    results = []
    for step in STEPS:
        say(f"step {step.number}: {step.idea}, {amount(steps, 'step')}")
        interval = max(1, steps // page.EVALUATIONS)
        results.append(climb(step, text, seed=seed, max_steps=steps, evaluation_interval=interval))
    path = out or runs_folder() / "ladder.html"
    page.write_page(path, results, ", ".join(sources))
    show(path)
    say_next("ladder")


def _check_own(words: tuple[str, ...], seed: int, max_steps: int | None) -> None:
    """Test a learner's file: what must hold, its size, and its loss beside the step's own."""
    numbers = [str(step.number) for step in STEPS]
    if len(words) < 2 or words[0] not in numbers:
        raise UserError(
            f"folio ladder check takes a step from {numbers[0]} to {numbers[-1]} and your file: "
            f"folio ladder check 2 my_heads.py"
        )
    step, path, sources = STEPS[int(words[0])], Path(words[1]), words[2:] or ("shakespeare",)

    from folio.ladder import check

    learner = check.load(path)
    for what in check.look(step, learner):
        show(f"yes  {what}")
    text = _prepare(sources)
    show(f"yes  {check.check_size(step, learner, text.tokenizer.vocab_size)}")
    say("training both ...")
    steps = max_steps or check.MAX_STEPS
    show(f"yes  {check.compare(step, learner, text, seed=seed, max_steps=steps)}")
    show(f"Your file is step {step.number}, {step.idea}.")
    say_next("ladder")


def _all(
    sources: tuple[str, ...], seeds: range, max_steps: int | None, json: bool, out: Path | None
) -> None:
    from folio.pictures import Dots, draw_dots
    from folio.run.directory import runs_folder

    text = _prepare(sources)
    records = []
    for step in STEPS:
        results = [_climb(step, text, seed, max_steps) for seed in seeds]
        records.append(_record(step, results))
    comparable = sources == ("shakespeare",) and max_steps is None
    header = ["step", "parameters", "validation", "course", "time", "idea"]
    rows = [
        [
            str(r["step"]),
            f"{r['parameters']:,}",
            _mean_and_deviation(r["validation_losses"]),
            f"{r['expected']}" if comparable else "",
            duration(sum(r["seconds"])),
            r["idea"],
        ]
        for r in records
    ]
    show(json_text(records, indent=2) if json else f"{table(header, rows)}\n")
    path = out or runs_folder() / "ladder.svg"
    draw_dots(
        path,
        [
            Dots(
                f"{r['step']}  {r['idea']}",
                r["validation_losses"],
                r["expected"] if comparable else None,
            )
            for r in records
        ],
        title="One idea at a time",
        x_label="validation loss (nats per character)",
        expected_label=COURSE,
    )
    if not json:
        show(path)


def _record(step: Step, results: list[LadderResult]) -> dict[str, Any]:
    return {
        "step": step.number,
        "idea": step.idea,
        "source": step.source,
        "parameters": results[0].n_parameters,
        "seeds": [result.seed for result in results],
        "validation_losses": [result.validation_loss for result in results],
        "expected": step.expected,
        "seconds": [round(result.seconds, 1) for result in results],
    }


def _mean_and_deviation(values: list[float]) -> str:
    middle = f"{mean(values):.4f}"
    return f"{middle} ± {stdev(values):.4f}" if len(values) > 1 else middle


# ---- steps 7 to 9 ------------------------------------------------------------------------


def _scaled_up(corpus: tuple[str, ...], seed: int | None, minutes: float | None, name: str) -> None:
    from folio.recipe.recipe import make_recipe

    layers = [scaled_up.SETTINGS]
    if seed is not None:
        layers.append({"seed": seed})
    if corpus:
        layers.append({"corpus": {"sources": list(corpus)}})
    if minutes is None:
        recipe = make_recipe(*layers)
        say("measuring how long step 7 takes here ...")
        seconds, step_seconds = scaled_up.measure_seconds(recipe, say)
        say(
            f"step 7 takes about {duration(seconds)} here: "
            f"{amount(recipe.training.max_steps, 'step')} of {step_seconds:.2g} s. For less: "
            f"folio ladder 7 --minutes 10. Ctrl-C saves, and folio resume "
            f"{shlex.quote(name)} goes on."
        )
    else:
        recipe = make_recipe(*layers, {"training": {"minutes": minutes}})

    from folio.cli.watching import TerminalWatcher, print_result
    from folio.console import stop_requested
    from folio.recipe.train import train_recipe

    with stop_requested() as should_stop, closing(TerminalWatcher()) as watcher:
        result = train_recipe(recipe, name, watcher, should_stop)
    print_result(result)


def _endless(name: str) -> None:
    from folio.cli.sample import sample
    from folio.run.directory import Run, runs_folder

    if not Run(runs_folder() / name).exists():
        raise UserError(
            f"Step 8 lets the model of step 7 write, but there is no run {name}. Train it with "
            f"folio ladder 7 --minutes 10, or let any run write: folio sample --forever."
        )
    sample(name, forever=True)


def _ablation(
    sources: tuple[str, ...],
    seeds: range,
    budget: ablation.Budget,
    only: list[str] | None,
    json: bool,
    out: Path | None,
) -> None:
    wanted = [ablation.find_change(name) for name in dict.fromkeys(only or ())] or list(
        ablation.CHANGES
    )
    changes = [ablation.BASELINE, *(c for c in wanted if c is not ablation.BASELINE)]

    from folio.cli.watching import TerminalWatcher
    from folio.console import stop_requested
    from folio.ladder.runs import ensure_run, row_of
    from folio.pictures import Dots, draw_dots
    from folio.recipe.settle import absolute_paths
    from folio.run.directory import runs_folder

    paths = list(absolute_paths(sources))
    runs: dict[str, list[Run]] = {change.name: [] for change in changes}
    # Seed by seed, so that after a third of the time there is a whole table.
    with stop_requested() as should_stop:
        for seed in seeds:
            for change in changes:
                run_name = budget.run_name(change, seed)
                settings = ablation.settings_of(change, seed, paths, budget)
                say(f"{change.name}, seed {seed}: {change.what}")
                with closing(TerminalWatcher()) as watcher:
                    first = next(iter(runs[changes[0].name]), None)
                    run, complete = ensure_run(run_name, settings, watcher, should_stop, first)
                if not complete:
                    say("interrupted; the same command goes on from here")
                    return
                runs[change.name].append(run)
    rows = [row_of(change, runs[change.name]) for change in changes]
    records = ablation.records(rows, budget)
    timed = budget.minutes is not None
    show(json_text(records, indent=2) if json else f"{_rows(records, timed)}\n")
    path = out or runs_folder() / "ladder-9.svg"
    draw_dots(
        path,
        [Dots(row.change.what, row.losses) for row in rows],
        title=f"What newer papers changed, {budget} each",
        x_label="validation loss (nats per character)",
        level=(ablation.BASELINE.what, rows[0].mean),
    )
    if not json:
        show(path)


def _rows(records: list[dict[str, Any]], timed: bool) -> str:
    """The table of step 9; with what each row made of its time, where that was equal."""
    header = ["row", "parameters", *(["steps"] * timed), "validation", "difference", "", "change"]
    cells = [
        [
            r["row"],
            f"{r['parameters']:,}",
            *([f"{mean(r['steps']):,.0f}"] * timed),
            _mean_and_deviation(r["validation_losses"]),
            f"{r['difference']:+.4f}" if "difference" in r else "",
            r.get("verdict", ""),
            r["what"],
        ]
        for r in records
    ]
    return table(header, cells)
