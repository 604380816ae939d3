"""metrics.jsonl: one object per event, the source of every plot and table.

Events: `step` (training loss, mean since the previous event), `evaluation` (validation and training
loss on fixed texts, and `short_length` where they were read in windows shorter than the context),
`end` (why it ended).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from folio.storage import atomic_write, json_text, storage_error

Event = dict[str, Any]


def append_event(path: Path, event: Event) -> None:
    """Append one event as a line of its own, whatever a killed process left of the last one."""
    try:
        with path.open("ab+") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(n_bytes - 1, 0))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json_text(event).encode("ascii") + b"\n")
    except OSError as error:
        raise storage_error(error, path) from error


def read_events(path: Path, kind: str | None = None) -> list[Event]:
    """All events, or those of one kind; a line that is not an event, as one that a kill cut off, is
    skipped. Losses that were not finite are null in the file, and infinite here.
    """
    if not path.exists():
        return []
    events = parse_events(path.read_text(encoding="utf-8", errors="replace"))
    return events if kind is None else of_kind(events, kind)


def of_kind(events: Iterable[Event], kind: str) -> list[Event]:
    """Those of some events that are of one kind, such as `evaluation`."""
    return [event for event in events if event["event"] == kind]


def order_of(evaluation: Event) -> tuple[bool, float]:
    """What the best evaluation has least of: windows of the context length come first."""
    return evaluation.get("short_length", 0) > 0, evaluation["validation_loss"]


def best_evaluation(evaluations: Iterable[Event]) -> Event | None:
    """The one whose checkpoint a run is used for; None where there is none."""
    return min(evaluations, key=order_of, default=None)


def best_loss(evaluations: Iterable[Event]) -> float:
    """Validation loss of the best evaluation; infinite where there is none."""
    best = best_evaluation(evaluations)
    return best["validation_loss"] if best else math.inf


def parse_events(lines: str) -> list[Event]:
    """The events of some lines; see `read_events`."""
    events: list[Event] = []
    for line in lines.splitlines():
        try:
            found: Any = json.loads(line)
        except ValueError:
            continue
        if not (isinstance(found, dict) and "event" in found):
            continue
        event = cast(Event, found)
        for name, value in event.items():
            if value is None and name.endswith("loss"):
                event[name] = math.inf
        events.append(event)
    return events


def set_aside_events_after(path: Path, step: int, evaluated_step: int) -> None:
    """Move the events after a step, the evaluations after that of another one, and any end, to a
    file beside; used when a run is resumed.
    """
    kept: list[Event] = []
    moved: list[Event] = []
    for event in read_events(path):
        last = evaluated_step if event["event"] == "evaluation" else step
        late = event.get("step", 0) > last or event["event"] == "end"
        (moved if late else kept).append(event)
    if moved:
        for event in moved:
            append_event(path.with_name("metrics.set-aside.jsonl"), event)
        with atomic_write(path) as file:
            file.writelines(json_text(event) + "\n" for event in kept)
