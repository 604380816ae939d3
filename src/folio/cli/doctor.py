"""folio doctor: what this machine and this installation are like."""

from __future__ import annotations

from typing import Any

from folio.console import show
from folio.storage import json_text


def doctor(*, measure: bool = False, json: bool = False) -> None:
    """Look at this machine and this installation, for a bug report: folio doctor [--json]

    Shows versions, the processor and how fast it multiplies in each precision, compiled kernels,
    cache, locks, disk, environment variables and extras; and what is slow here, and why. It changes
    nothing and sends nothing. The values of variables that may be secret are left out.

    Args:
        measure: Measure the precisions now, where the figures of an earlier run are remembered.
        json: Print JSON.
    """
    from folio.doctor.checks import examine
    from folio.doctor.slowness import reasons

    report = examine(measure)
    slow = reasons(report)
    if json:
        show(json_text(report | {"slow": slow}, indent=2))
        return
    for section, facts in report.items():
        show(section)
        width = max(map(len, facts), default=0) + 2
        for name, value in facts.items():
            several = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
            lines = [f"{k}: {_words(v)}" for k, v in value.items()] if several else [_words(value)]
            for number, line in enumerate(lines):
                show(f"  {'' if number else name:{width}}{line}")
    show("slow here")
    for reason in slow or ["nothing that is known"]:
        show(f"  {reason}")


def _words(value: Any) -> str:
    """A fact for a reader.

    >>> _words({"cpu float32": 59.0, "held": {}}), _words(True), _words([])
    ('cpu float32 59, held none', 'yes', 'none')
    """
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
