"""Reports what a study found: the best recipe, a few lines, and a page with pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from html import escape
from itertools import accumulate
from typing import Any

from optuna.trial import FixedTrial

from folio.config import merge, to_toml
from folio.console import amount, columns, duration, table
from folio.pictures import Axis, svg_history, svg_parallel, svg_slices
from folio.recipe.recipe import make_recipe
from folio.report import html_bars, html_page, html_table
from folio.storage import atomic_write
from folio.tuning.outcome import Outcome, Row
from folio.tuning.study import Study
from folio.tuning.watching import short, show_value

SHOWN = 8
"""Trials in the printed table."""
WIDTH = 80
"""Columns of a terminal, at least."""
LONG_NAME = 14
"""Characters of a setting's name above which it takes two lines of a header."""
WORDS = ("no", "first", "first two", "first three", "first four")


def write_best(study: Study, outcome: Outcome) -> None:
    """Write best.toml, a recipe for `folio train`."""
    best = outcome.best[0]
    drawn = study.space.draw(FixedTrial(best.values), study.recipe_table)
    # All cores again: the trials had to share them.
    table = merge(study.recipe_table, drawn, {"device": {"threads": 0}})
    with atomic_write(study.best_file) as file:
        file.write(
            f"# folio train {shlex.quote(str(study.best_file))}\n"
            f"# The best of {amount(len(outcome.rows), 'trial')} of {study.path} (trial "
            f"{best.number}): validation loss {best.mean:.4f} {outcome.unit}.\n\n"
            f"{to_toml(make_recipe(table))}"
        )


def summary(study: Study, outcome: Outcome) -> str:
    """A few lines about the study for the terminal."""
    lines = [f"{of}\n" for of in _tables(outcome)]
    facts = [("trials", _counts(outcome)), ("cost", cost(outcome))]
    if outcome.best:
        facts += [
            ("noise", noise(outcome)),
            ("best", f"folio train {shlex.quote(str(study.best_file))}"),
        ]
        facts += [("page", str(study.page_file))]
    else:
        goes_on = f"folio tune {shlex.quote(str(study.path))} --trials N"
        facts += [("best", f"no trial came to its end; {goes_on} goes on")]
    if not study.config.storage:
        facts += [
            ("look", f"optuna-dashboard {study.journal_file}  (pip install optuna-dashboard)")
        ]
    return "\n".join([*lines, *(f"{name:<8}{words}" for name, words in facts)])


def _tables(outcome: Outcome) -> list[str]:
    """The first trials; their settings below, where both are too wide for a terminal, as many in a
    table as fit.
    """
    header, rows = _trial_table(outcome, SHOWN)
    n = len(header) - len(_names(outcome))
    whole = table(header, rows)
    if max(map(columns, whole.splitlines())) <= WIDTH:
        return [whole]
    names = [name.replace("_", "_\n", 1) if len(name) > LONG_NAME else name for name in header]
    tables, begin, end = [table(header[:n], [row[:n] for row in rows])], n, len(names)
    while begin < len(names):
        fitting = table([names[0], *names[begin:end]], [row[:1] + row[begin:end] for row in rows])
        if end > begin + 1 and max(map(columns, fitting.splitlines())) > WIDTH:
            end -= 1
        else:
            tables.append(fitting)
            begin, end = end, len(names)
    return tables


def write_page(study: Study, outcome: Outcome) -> None:
    """Write study.html with pictures of the trials."""
    with atomic_write(study.page_file) as file:
        file.write(html_page(f"Study {study.path.name}", "\n".join(_parts(study, outcome))))


def noise(outcome: Outcome) -> str:
    """How much the seed decides and which trials cannot be told apart, in words.

    The best of many was also lucky; among tied trials, the cheapest is the one to take.
    """
    if outcome.noise is None:
        return "unknown: nothing was repeated with another seed"
    seeds = f"another seed moves the loss by ±{outcome.noise:.4f}"
    if outcome.n_tied < 2:
        return f"{seeds}; the first stands out"
    return f"{seeds}; the {WORDS[outcome.n_tied]} are tied"


def cost(outcome: Outcome) -> str:
    """What the study cost, in words."""
    return (
        f"{duration(outcome.seconds)} of training; the trials read {outcome.share:.0%} of what "
        f"they would have read in full"
    )


def _counts(outcome: Outcome) -> str:
    states = [row.state for row in outcome.rows]
    kinds = ("complete", "pruned", "diverged", "failed", "running")
    return ", ".join(f"{states.count(kind)} {kind}" for kind in kinds if kind in states)


def _ranked(outcome: Outcome) -> list[Row]:
    """The best trials, then the stopped ones, those that got furthest first."""
    others = [row for row in outcome.rows if row not in outcome.best]
    return outcome.best + sorted(others, key=lambda row: (-row.evaluations, row.loss))


def _names(outcome: Outcome) -> list[str]:
    return list({name: None for row in outcome.rows for name in row.values})


def _trial_table(outcome: Outcome, most: int | None = None) -> tuple[list[str], list[list[str]]]:
    names = _names(outcome)
    header = ["trial", "state", "loss", "seeds", "parameters", "time"]
    header += [short(name) for name in names]
    rows = [
        [
            str(row.number),
            row.state,
            f"{row.mean:.4f}" if row.curve else "-",
            str(max(1, len(row.losses))),
            f"{row.parameters:,}" if row.parameters else "-",
            duration(row.seconds),
            *(show_value(row.values.get(name)) or "-" for name in names),
        ]
        for row in _ranked(outcome)[:most]
    ]
    return header, rows


# ---- the page ----------------------------------------------------------------------------


def _parts(study: Study, outcome: Outcome) -> Iterator[str]:
    best = outcome.best[0]
    yield (
        f"<p>The best of {amount(len(outcome.rows), 'trial')} is trial {best.number}: a validation "
        f"loss of <b>{best.mean:.4f}</b> {escape(outcome.unit)}. "
        f"{escape(noise(outcome)).capitalize()}.</p>"
    )
    yield f'<p class="faint">{escape(_counts(outcome))}. {escape(cost(outcome))}.</p>'
    yield f"<p><code>folio train {escape(shlex.quote(str(study.best_file)))}</code></p>"
    yield "<h2>Trials</h2>"
    yield html_table(*_trial_table(outcome), marked=0)
    yield "<h2>History</h2>" + _figure(_history(outcome))
    if outcome.importances:
        yield "<h2>What matters</h2>"
        yield html_bars(
            [(short(name), share, f"{share:.0%}") for name, share in outcome.importances.items()]
        )
        yield (
            '<p class="faint">Share of what sets the better half of the complete trials apart '
            "(PED-ANOVA). Of few trials, a hint.</p>"
        )
    shown = [row for row in outcome.rows if row.curve and row.evaluations == _last(outcome)]
    axes = [_axis(study, name, shown) for name in _names(outcome)]
    axes = [axis for axis in axes if axis is not None]
    losses = [row.loss for row in shown]
    if len(shown) > 1 and axes:
        yield "<h2>Setting by setting</h2>" + _figure(
            svg_slices(axes, losses, y_label=outcome.unit)
        )
        yield "<h2>All settings at once</h2>" + _figure(
            svg_parallel(axes, losses, value_label=outcome.unit)
        )
        yield '<p class="faint">Complete trials; the best one in orange.</p>'


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _last(outcome: Outcome) -> int:
    return max(row.evaluations for row in outcome.best)


def _history(outcome: Outcome) -> str:
    kinds = ("complete", "pruned", "diverged")
    points = [
        (row.number, row.loss, kinds.index(row.state))
        for row in outcome.rows
        if row.curve and row.state in kinds
    ]
    complete = [(row.number, row.loss) for row in outcome.rows if row.state == "complete"]
    lowest = list(accumulate((loss for _, loss in complete), min))
    best = [(number, loss) for (number, _), loss in zip(complete, lowest)]
    best.append((outcome.rows[-1].number, lowest[-1]))
    return svg_history(
        points, best, kinds, x_label="trial", y_label=f"validation loss ({outcome.unit})"
    )


def _axis(study: Study, name: str, rows: list[Row]) -> Axis | None:
    """A setting over the trials; None if some lack it or all have the same value."""
    values: list[Any] = [row.values[name] for row in rows if name in row.values]
    if len(values) < len(rows) or len(set(values)) < 2:
        return None
    label = short(name)
    if any(isinstance(value, (str, bool)) for value in values):
        kinds = sorted(set(map(str, values)))
        places = [kinds.index(str(value)) for value in values]
        return Axis(label, places, ticks=list(enumerate(kinds)))
    distinct = sorted(set(values))
    for parameter in study.space.parameters:
        if parameter.name == name and parameter.log:
            low, high = parameter.low, parameter.high
            ends = [(place, f"{place:.2g}") for place in (low, (low * high) ** 0.5, high)]
            return Axis(label, values, log=True, ticks=ends)
    ticks = [(value, f"{value:g}") for value in distinct] if len(distinct) <= 6 else []
    return Axis(label, values, ticks=ticks)
