"""The ladder as one offline page: curves, what each step changes in the code, and exercises."""

from __future__ import annotations

import ast
import importlib.resources
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from itertools import zip_longest
from pathlib import Path

from folio import curves
from folio.console import amount
from folio.curves import Series, svg_curves
from folio.ladder.check import MAX_STEPS as CHECKED_STEPS
from folio.ladder.exercises import EXERCISES
from folio.ladder.steps import Step
from folio.ladder.training import LadderResult
from folio.report import html_page, html_table
from folio.storage import atomic_write

MAX_STEPS = 1000
"""Optimizer steps of each step of the ladder, where nothing else is asked for."""

EVALUATIONS = 10
"""Points of each curve."""

STYLE = """
.beside { border-collapse: collapse; font: .82rem/1.5 ui-monospace, monospace; width: 100% }
.beside td { border: 0; padding: 0 .6rem; vertical-align: top; white-space: pre-wrap; width: 50%;
  overflow-wrap: anywhere }
.beside .gone { background: color-mix(in srgb, var(--c1) 16%, transparent) }
.beside .new { background: color-mix(in srgb, var(--c0) 16%, transparent) }
.task { border-left: 3px solid var(--accent); padding: .2rem 1rem; margin: 1rem 0;
  max-width: 48rem }
pre { background: var(--raised); padding: .6rem 1rem; overflow-x: auto; border-radius: .4rem }
"""


def write_page(path: Path, results: Sequence[LadderResult], of_text: str) -> None:
    """Write the page.

    Args:
        path: the file.
        results: each step of the ladder, trained on the same text.
        of_text: the name of that text.
    """
    with atomic_write(path) as file:
        file.write(
            html_page("The ladder: from a table to a GPT", "\n".join(_body(results, of_text)))
        )


def _body(results: Sequence[LadderResult], of_text: str) -> Iterator[str]:
    yield f"<style>{curves.STYLE}{curves.THEMES}{STYLE}</style>"
    n_steps = results[0].evaluations[-1].step
    yield (
        f"<p>A GPT in {len(results)} steps, one idea each. Every model here was trained when this "
        f"page was made: {amount(n_steps, 'step')} on {escape(of_text)}, with the same text in the "
        f"same order. A loss is the mean surprisal of the next character of held-out text, in "
        f"nats.</p>"
    )
    rows = [
        [
            str(r.step.number),
            r.step.idea,
            f"{r.n_parameters:,}",
            f"{r.evaluations[-1].training_loss:.4f}",
            f"{r.validation_loss:.4f}",
        ]
        for r in results
    ]
    yield html_table(["step", "idea", "parameters", "training loss", "validation loss"], rows)
    yield "<h2>How they learn</h2>"
    middle = len(results) // 2
    for part in (results[: middle + 1], results[middle:]):
        yield svg_curves(
            [_series(result) for result in part],
            x_label="steps",
            y_label="validation loss (nats per character)",
        )
    for before, result in zip([None, *results], results):
        yield from _step(before, result)


def _series(result: LadderResult) -> Series:
    label = f"{result.step.number}  {result.step.idea}"
    evaluations = result.evaluations
    return Series(label, [e.step for e in evaluations], [e.validation_loss for e in evaluations])


def _step(before: LadderResult | None, result: LadderResult) -> Iterator[str]:
    step = result.step
    words, code = source_of(step)
    title, *paragraphs = words.split("\n\n")
    yield f"<h2>{escape(title.rstrip('.'))}</h2>"
    yield from (f"<p>{escape(' '.join(text.split()))}</p>" for text in paragraphs)
    if before is None:
        yield f"<p>Validation loss <strong>{result.validation_loss:.4f}</strong>.</p>"
        yield f"<pre tabindex='0'>{escape(code)}</pre>"
    else:
        change = result.validation_loss - before.validation_loss
        yield (
            f"<p>Validation loss <strong>{result.validation_loss:.4f}</strong>, {change:+.4f} from "
            f"step {before.step.number}; {result.n_parameters:,} parameters, "
            f"{result.n_parameters - before.n_parameters:+,}. Left, step {before.step.number}; "
            f"right, what is new is marked with +.</p>"
        )
        yield _beside(
            source_of(before.step)[1], code, f"Code of steps {before.step.number} and {step.number}"
        )
    for exercise in EXERCISES:
        if exercise.step == step.number:
            yield (
                f'<div class="task"><p><strong>Exercise.</strong> {escape(exercise.task)} Copy '
                f"the code above (<code>folio/ladder/{step.module}.py</code>) into a file of "
                f"yours, change it, and let it be tested, {CHECKED_STEPS:,} steps of training "
                f"included:</p>"
                f"<pre tabindex='0'>folio ladder check {step.number} my_step.py</pre>"
                f"<details><summary>A hint</summary><p>{escape(exercise.hint)}</p></details></div>"
            )


def source_of(step: Step) -> tuple[str, str]:
    """The words on top of a step's file, and the code below them."""
    file = importlib.resources.files("folio.ladder") / f"{step.module}.py"
    text = file.read_text(encoding="utf-8")
    words = ast.parse(text).body[0]
    assert isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
    code = text.splitlines()[words.end_lineno :]
    kept = [line for line in code if line != "from __future__ import annotations"]
    return str(words.value.value), "\n".join(kept).strip()


def side_by_side(before: str, after: str) -> list[tuple[str | None, str | None]]:
    """Two texts line by line; None where one of them has nothing.

    >>> side_by_side("a\\nb\\nc", "a\\nB\\nx\\nc")
    [('a', 'a'), ('b', 'B'), (None, 'x'), ('c', 'c')]
    """
    left, right = before.splitlines(), after.splitlines()
    rows: list[tuple[str | None, str | None]] = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        rows += zip_longest(left[a:b], right[c:d])
    return rows


def _beside(before: str, after: str, label: str) -> str:
    lines = []
    for left, right in side_by_side(before, after):
        if left == right:
            cells = f"<td>  {escape(left or '')}</td><td>  {escape(right or '')}</td>"
        else:
            cells = _cell("gone", "- ", left) + _cell("new", "+ ", right)
        lines.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="beside">{"".join(lines)}</table></div>'
    )


def _cell(kind: str, sign: str, line: str | None) -> str:
    return "<td></td>" if line is None else f'<td class="{kind}">{sign}{escape(line)}</td>'
