"""What a run records of the run it began with: start.json, and the losses before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from folio.config import read_toml
from folio.run.directory import Run
from folio.run.formats import require_readable, stamped
from folio.run.held_out import ALONE, BEFORE, OLD_TEXT, HeldOut
from folio.storage import read_json, write_json


def write_start(run: Run, path: str, sha256: str, before: HeldOut | None) -> None:
    """Record where a run begins.

    Args:
        run: the new run.
        path: path of the run it begins with.
        sha256: hash of the weights.
        before: loss of these weights on the old held-out text; None if there is none.
    """
    record = {"run": path, "sha256": sha256, "old_text": before and before.record()}
    write_json(run.start_file, stamped("start", record))


def losses_before(run: Run) -> list[HeldOut]:
    """The losses on new and old held-out text before the first step; empty for a run from
    scratch.
    """
    if not run.start_file.exists():
        return []
    found: list[HeldOut] = []
    first = [event for event in run.events("evaluation") if event["step"] == 0]
    for event in first[:1]:
        error = event.get("standard_error")
        tokens = run.corpus()["tokens"]
        n_targets = tokens.get("counted", {}).get("validation", tokens["validation"] - 1)
        n_read = read_toml(run.recipe_file)["training"].get("validation_sample") or n_targets
        n_targets = min(n_targets, n_read)
        error = float("inf") if error is None else error
        found.append(HeldOut("validation", n_targets, event["validation_loss"], error))
    record = read_json(run.start_file, dict)
    require_readable("start", record, run.start_file)
    if old := record["old_text"]:
        names = ("targets", "nats_per_token", "standard_error")
        found.append(HeldOut(OLD_TEXT, *(old[name] for name in names)))
    return [replace(text, name=text.name + BEFORE) for text in found]


def before_and_after(held_out: Sequence[HeldOut]) -> list[tuple[str, str]]:
    """Rows for the card: new and old text, before and after; of the model alone, whose n-grams are
    counted at the end.

    Args:
        held_out: the losses at the end of a run and those before it began.
    """
    loss = {text.name: text.nats_per_token for text in held_out}
    rows: list[tuple[str, str]] = []
    for name, shown, better, worse in (
        ("validation", "new text", "it learned", "it became worse by"),
        (OLD_TEXT, "old text", "it gained", "it forgot"),
    ):
        if name in loss and (before := loss.get(name + BEFORE)) is not None:
            after = loss.get(name + ALONE, loss[name])
            gained = before - after
            verdict = f"{better if gained >= 0 else worse} {abs(gained):.4f} nats per token"
            which = ALONE if name + ALONE in loss else ""
            rows.append(
                (f"{shown}, before and after{which}", f"{before:.4f}, {after:.4f}: {verdict}")
            )
    return rows
