"""The page of a training: its curve, what was learned when, samples, speed and memory.

It is made from the run's files alone, and needs no other file and no server: while the run goes on,
the browser reads it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from folio import curves
from folio.config import read_toml
from folio.console import duration
from folio.curves import Series, svg_curves
from folio.evaluation.token_groups import CLASSES, PLACES
from folio.report import html_page
from folio.run.directory import Run
from folio.run.inline import loss_figure
from folio.run.metrics import Event, read_events
from folio.storage import atomic_write

SHOWN_SAMPLES = 12
SPEEDS = 60
"""Points of the curve of speed, each over an equal part of the steps."""
SECONDS = 5
"""After which a browser reads the page again."""


def write_training_page(run: Run, follow: bool) -> None:
    """Write page.html.

    Args:
        run: has been evaluated, or not yet.
        follow: whether the page is going to change, so that a browser should read it again.
    """
    with atomic_write(run.training_page) as file:
        file.write(html_page(f"Training {run.name}", "\n".join(_parts(run, follow))))


def learned(run: Run) -> list[Event]:
    """The entries of learned.jsonl at steps that the run has been evaluated at: after it went on
    from an earlier step, the later of two.
    """
    evaluated = {event["step"] for event in run.events("evaluation")}
    entries = {event["step"]: event for event in read_events(run.learned_file)}
    return [entries[step] for step in sorted(entries) if step in evaluated]


def _parts(run: Run, follow: bool) -> Iterator[str]:
    steps, evaluations, found = run.events("step"), run.events("evaluation"), learned(run)
    yield f"<style>{curves.THEMES}{curves.STYLE}{_STYLE}</style>"
    yield _state(run)
    if follow:
        yield _FOLLOW
    level = "bare token frequencies", run.corpus()["frequency_loss"]
    losses = [event["loss"] for event in steps]
    yield loss_figure([event["step"] for event in steps], losses, evaluations, level)
    yield '<p class="faint">The band is two standard errors over the held-out texts.</p>'
    yield "<h2>What it learned when</h2>"
    yield (
        "<p>The validation loss of kinds of tokens, each by its first character: those that are "
        "frequent and regular are learned first.</p>"
    )
    yield _groups(found, "classes", CLASSES)
    yield (
        "<p>And by where in a word a token begins. What follows the first letters is spelling, "
        "which comes early; which word comes next shows in its first letter, and takes grammar "
        "and sense.</p>"
    )
    yield _groups(found, "places", PLACES)
    yield "<h2>What it wrote</h2>"
    yield '<p class="faint">Always from the same seed, newest first.</p>'
    yield from _samples([event for event in found if "sample" in event])
    yield "<h2>Speed and memory</h2>"
    yield _speed(steps)
    memory = [event["memory_bytes"] / 1e9 for event in found]
    at = [event["step"] for event in found]
    label = "most memory so far (GB)"
    yield svg_curves([Series("all processes", at, memory)], x_label="step", y_label=label)


def _state(run: Run) -> str:
    recipe, events = read_toml(run.recipe_file), run.events()
    last: dict[str, Any] = events[-1] if events else {"event": "none", "step": 0, "seconds": 0.0}
    doing = last["reason"] if last["event"] == "end" else "training"
    of = last.get("max_steps", recipe["training"]["max_steps"])
    bests = [e["best_validation_loss"] for e in events if e["event"] == "evaluation"]
    best = f", best validation loss {bests[-1]:.4f}" if bests else ""
    at = f"step {last['step']:,} of {of:,}, {duration(last['seconds'])}"
    return f"<p>{escape(doing)}: {at}{best}</p>"


def _groups(found: Sequence[Event], kind: str, names: Sequence[str]) -> str:
    series = list[Series]()
    for name in names:
        inside = [(event["step"], *event[kind][name]) for event in found if name in event[kind]]
        at, losses, errors = zip(*inside) if inside else ((), (), ())
        series.append(Series(name, at, losses, [error or 0.0 for error in errors]))
    return svg_curves(series, x_label="step", y_label="validation loss (nats per token)")


def _samples(found: Sequence[Event]) -> Iterator[str]:
    chosen = sorted(
        {round(i * (len(found) - 1) / (SHOWN_SAMPLES - 1)) for i in range(SHOWN_SAMPLES)}
    )
    for index in reversed(chosen if len(found) > SHOWN_SAMPLES else range(len(found))):
        event = found[index]
        yield f"<h3>Step {event['step']:,}</h3>\n<pre>{escape(event['sample'].strip())}</pre>"


def _speed(steps: Sequence[Event]) -> str:
    every = max(1, len(steps) // SPEEDS)
    at, speeds = list[float](), list[float]()
    for before, after in pairwise(steps[::every]):
        if (seconds := after["seconds"] - before["seconds"]) > 0:
            at.append(after["step"])
            speeds.append((after["tokens"] - before["tokens"]) / seconds)
    label = "tokens per second, evaluations included"
    return svg_curves([Series("speed", at, speeds)], x_label="step", y_label=label)


_STYLE = """
h3 { font-size: .95rem; margin: 1rem 0 .25rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: .6rem .75rem;
  max-width: 48rem; box-sizing: border-box; border-radius: .4rem; background: var(--raised) }
"""

_FOLLOW = f"""
<p><label><input type="checkbox" id="follow" checked> read this page again every {SECONDS} seconds
while it trains</label></p>
<script>
const follow = document.getElementById("follow");
setInterval(() => {{
  if (follow.checked && !document.hidden && getSelection().isCollapsed) location.reload();
}}, {SECONDS}000);
</script>
"""
