"""metrics.jsonl: one object an event, the truth from which every plot and table is drawn.

Events: `step` (training loss, mean since the event before), `evaluation` (validation and
training loss on fixed texts), `end` (why it ended).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from folio.storage import atomic_write, json_text, storage_error

Event = dict[str, Any]


def append_event(path: Path, event: Event) -> None:
    """Add one line."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json_text(event) + "\n")
    except OSError as error:
        raise storage_error(error, path) from error


def read_events(path: Path, kind: str | None = None) -> list[Event]:
    """All events, or those of a kind; a last line that was cut off is left out. A loss that was not
    finite is null there, and infinite here.
    """
    events: list[Event] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                event: Event = json.loads(line)
            except ValueError:
                continue
            for name, value in event.items():
                if value is None and name.endswith("loss"):
                    event[name] = math.inf
            if kind is None or event.get("event") == kind:
                events.append(event)
    return events


def set_aside_events_after(path: Path, step: int) -> None:
    """Move the events after a step, and any end, into a file beside; for a resumed run."""
    kept: list[Event] = []
    moved: list[Event] = []
    for event in read_events(path):
        late = event.get("step", 0) > step or event.get("event") == "end"
        (moved if late else kept).append(event)
    if moved:
        for event in moved:
            append_event(path.with_name("metrics.set-aside.jsonl"), event)
        with atomic_write(path) as file:
            file.writelines(json_text(event) + "\n" for event in kept)
