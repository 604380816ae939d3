"""What a run shows of itself: loss.svg and README.md, both made from its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from folio.config import read_toml
from folio.console import amount
from folio.curves import Series
from folio.pictures import draw_curves
from folio.run.baselines import read_baselines
from folio.run.diagnosis import Diagnosis, diagnose
from folio.run.directory import Run
from folio.run.metrics import Event, order_of
from folio.storage import atomic_write, read_json


def diagnose_run(run: Run) -> Diagnosis:
    """The verdict on the curves of a run."""
    recipe = read_toml(run.recipe_file)
    frequency_loss = run.corpus()["frequency_loss"]
    return diagnose(run.events(), frequency_loss, str(run.path), recipe, last_look(run))


def last_look(run: Run) -> dict[str, Any] | None:
    """The content of by_heart.json if it belongs to the last end of the run; else None."""
    ends = run.events("end")
    if not ends or not run.by_heart_file.exists():
        return None
    found = read_json(run.by_heart_file, dict)
    return found if found["run_step"] == ends[-1]["step"] else None


def loss_series(
    steps: Sequence[float], losses: Sequence[float], evaluations: Sequence[Event]
) -> list[Series]:
    """The losses of a run as every picture of them shows them.

    Args:
        steps, losses: of the batches.
        evaluations: as in metrics.jsonl.
    """
    at = [event["step"] for event in evaluations]
    errors = [event.get("standard_error") or 0.0 for event in evaluations]
    return [
        Series("training, each batch", steps, losses, noisy=True),
        Series("training", at, [event["training_loss"] for event in evaluations]),
        Series("validation", at, [event["validation_loss"] for event in evaluations], errors),
    ]


def draw_loss(run: Run) -> None:
    """Draw both curves of a run; a run without evaluations gets no picture."""
    steps, evaluations = run.events("step"), run.events("evaluation")
    if not evaluations or not steps:
        return
    best = min(evaluations, key=order_of)
    draw_curves(
        run.picture_file,
        loss_series(
            [event["step"] for event in steps], [event["loss"] for event in steps], evaluations
        ),
        title=run.name,
        x_label="step",
        y_label="loss (nats per token)",
        level=("bare token frequencies", run.corpus()["frequency_loss"]),
        levels=[
            (f"{baseline.name}, {baseline.kind}", baseline.nats_per_token)
            for baseline in read_baselines(run)
            if "frequencies" not in baseline.name and "likely" not in baseline.name
        ],
        mark=(
            f"best {best['validation_loss']:.3f} at step {best['step']}",
            best["step"],
            best["validation_loss"],
        ),
    )


def write_card(run: Run, facts: Sequence[tuple[str, str]], samples: Sequence[str]) -> None:
    """Write README.md of a run: what it is, how it went, what it writes.

    Args:
        run: a run with metrics and corpus.
        facts: rows of the table, each a name and a value.
        samples: texts that the model wrote.
    """
    diagnosis = diagnose_run(run)
    lines = [f"# {run.name}", "", f"**{diagnosis.verdict}**: {diagnosis.reason}", ""]
    lines += [f"Next: `{diagnosis.command}`", ""]
    if run.picture_file.exists():
        lines += [f"![loss curves]({run.picture_file.name})", ""]
    lines += ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    corpus = run.corpus()
    ledger = corpus["ledger"]
    if unread := [f"{n:,} {end}" for end, n in corpus.get("skipped", {}).items()]:
        lines += [f"| not read, of unknown kind | {', '.join(unread[:8])} |"]
    if refused := corpus.get("refused"):
        lines += [f"| left out, see corpus.json | {amount(len(refused), 'file')} |"]
    lines += [
        "",
        f"Characters: {ledger['characters_in']:,} in = {ledger['training']:,} training + "
        f"{ledger['validation']:,} validation"
        + "".join(f" + {n:,} dropped ({reason})" for reason, n in ledger["dropped"].items())
        + ". `corpus.json` lists the sources, `recipe.toml` every setting.",
    ]
    for sample in samples:
        fence = "````" if "```" in sample else "```"
        lines += ["", "## A sample", "", fence + "text", sample.strip("\n"), fence]
    with atomic_write(run.card_file) as file:
        file.write("\n".join(lines) + "\n")
