"""What a notebook shows of a run: its verdict, curve, table and sample, made from its files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from folio.console import duration
from folio.curves import svg_curves
from folio.notebook import html_cell
from folio.report import html_table
from folio.run.card import diagnose_run, loss_series
from folio.run.directory import Run
from folio.run.held_out import HeldOut
from folio.run.metrics import Event, of_kind
from folio.run.summary import facts_of


def run_html(run: Run, held_out: Sequence[HeldOut] = (), sample: str = "") -> str:
    """Build the card of a run for the output of a cell.

    Args:
        run: the run.
        held_out: its losses on held-out texts, as `HeldOut`.
        sample: a text that it wrote.
    """
    events = run.events()
    diagnosis, facts = diagnose_run(run), facts_of(run, events)
    steps = of_kind(events, "step")
    level = "bare token frequencies", run.corpus()["frequency_loss"]
    rows = [
        ["text", f"{facts['text']}, {facts['characters']:,} characters"],
        ["model", f"{facts['model']}, {facts['parameters']:,} parameters"],
        ["steps", f"{facts['step']:,} of {facts['max_steps']:,}, {facts['state']}"],
        ["time", duration(facts["seconds"])],
        *([text.name, str(text)] for text in held_out),
    ]
    parts = [
        f"<p><b>{escape(run.name)}</b>: {diagnosis.verdict}. {escape(diagnosis.reason)}</p>",
        f"<p>Next: <code>{escape(diagnosis.command)}</code></p>",
        loss_figure(
            [event["step"] for event in steps],
            [event["loss"] for event in steps],
            of_kind(events, "evaluation"),
            level,
        ),
        html_table(["", ""], rows),
        f"<pre>{escape(sample.strip())}</pre>" if sample else "",
    ]
    return html_cell("\n".join(parts))


def loss_figure(
    steps: Sequence[float],
    losses: Sequence[float],
    evaluations: Sequence[Event],
    level: tuple[str, float] | None = None,
) -> str:
    """Draw the losses of batches and of evaluations as a figure for a page.

    Args:
        steps, losses, evaluations: as in `loss_series`.
        level: as in `svg_curves`.
    """
    return svg_curves(
        loss_series(steps, losses, evaluations),
        x_label="step",
        y_label="loss (nats per token)",
        level=level,
    )
