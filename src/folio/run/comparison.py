"""Several runs beside each other: their curves, which model is better, and a page with both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folio import curves
from folio.curves import Series, svg_curves
from folio.errors import UserError
from folio.pictures import draw_curves
from folio.report import html_page, html_table
from folio.run.directory import Run, labels_of
from folio.run.metrics import Event, of_kind
from folio.storage import atomic_write

if TYPE_CHECKING:
    from folio.run.paired import Paired

NOTE = (
    "A difference is that of these two models on this text. What their settings are worth, only "
    "several seeds of each tell."
)


@dataclass(frozen=True)
class Difference:
    """What can be said about a run and the first one."""

    sentence: str
    paired: Paired | None
    """None where they cannot be compared; the sentence says why."""

    def record(self) -> dict[str, Any] | None:
        """Return the entry of --json: a negative difference means that the later run is better."""
        return None if self.paired is None else asdict(self.paired)


def differences(compared: Sequence[Run], tell: Callable[[str], None]) -> list[Difference]:
    """Compare the best model of each further run with that of the first.

    Args:
        compared: two runs or more.
        tell: hears what is being done, since reading takes a while.
    """
    from folio.run.opening import open_run
    from folio.run.paired import Reading, compare

    (first, *others), (name, *labels) = compared, labels_of(compared)
    found, reading = list[Difference](), None
    for run, label in zip(others, labels):
        names = f"{name} and {label}"
        tell(f"reading the held-out text with {names}")
        try:
            reading = reading or Reading(open_run(first))
            paired = compare(reading, Reading(open_run(run)))
        except UserError as error:
            found.append(Difference(f"{names} cannot be compared. {error}".rstrip("."), None))
            continue
        if paired is None:
            words = f"{names} hold out different texts, so their losses cannot be compared"
            found.append(Difference(words, None))
        else:
            found.append(Difference(paired.in_words(name, label), paired))
    return found


def validation_series(compared: Sequence[Run], events: Sequence[Sequence[Event]]) -> list[Series]:
    """The validation losses of each run that has some.

    Args:
        compared: the runs.
        events: of each, from metrics.jsonl.
    """
    series = list[Series]()
    for label, of in zip(labels_of(compared), events):
        evaluations = of_kind(of, "evaluation")
        series.append(
            Series(
                label,
                [event["step"] for event in evaluations],
                [event["validation_loss"] for event in evaluations],
                [event.get("standard_error") or 0.0 for event in evaluations],
            )
        )
    return [one for one in map(curves.finite, series) if len(one.x)]


def draw_comparison(series: Sequence[Series], path: Path) -> None:
    """Draw the validation losses of several runs as a picture by itself."""
    draw_curves(
        path, series, title="validation loss", x_label="step", y_label="loss (nats per token)"
    )


def write_comparison(
    path: Path,
    series: Sequence[Series],
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    sentences: Sequence[str],
) -> None:
    """Write one offline page.

    Args:
        path: the file.
        series: the validation losses of the runs.
        table: header, and a row for each run.
        sentences: what can be said about their differences.
    """
    drawn = svg_curves(series, x_label="step", y_label="validation loss (nats per token)")
    parts = [
        f"<style>{curves.THEMES}{curves.STYLE}</style>",
        *(f"<p>{escape(sentence)}.</p>" for sentence in sentences),
        f'<p class="faint">{NOTE}</p>',
        "<h2>Curves</h2>",
        drawn or "<p>None of them was evaluated.</p>",
        '<p class="faint">The band is two standard errors over the texts. Losses of models with '
        "different vocabularies are per different tokens.</p>",
        "<h2>Runs</h2>",
        html_table(*table),
    ]
    with atomic_write(path) as file:
        file.write(html_page(f"{len(table[1])} runs compared", "\n".join(parts)))
