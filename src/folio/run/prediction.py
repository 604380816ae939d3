"""What was predicted for a run, and how far off it was: prediction.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from folio.console import byte_size, duration
from folio.errors import UserError
from folio.records import made_of
from folio.run.directory import Run
from folio.storage import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Figures of one run; None means not predicted."""

    max_steps: int
    """The number of steps for which they hold."""
    memory_bytes: int | None = None
    """Peak memory in bytes."""
    seconds: float | None = None
    """Training time in seconds, evaluations included."""
    loss: float | None = None
    """The best exact validation loss in nats per token."""
    loss_band: float | None = None
    """Two standard errors of the prediction, as a share of the loss."""


def predict(run: Run, figures: Estimate) -> None:
    """Record a prediction."""
    write_json(run.prediction_file, {"predicted": asdict(figures)})


def compare_with_prediction(run: Run, measured: Estimate) -> list[tuple[str, str]]:
    """Record measurements beside the prediction, and put both in words.

    Returns:
        Rows for the card; none if nothing was predicted that can be read, or for another budget.
    """
    if not run.prediction_file.exists():
        return []
    try:
        record = read_json(run.prediction_file, dict)["predicted"]
        predicted = made_of(Estimate, record, run.prediction_file)
    except UserError:  # damaged; a training that has ended does not fail for it
        return []
    if predicted.max_steps != measured.max_steps:
        return []
    both = {"predicted": asdict(predicted), "measured": asdict(measured)}
    write_json(run.prediction_file, both)
    rows: list[tuple[str, str]] = []
    if predicted.memory_bytes and measured.memory_bytes:
        text = f"{byte_size(predicted.memory_bytes)} predicted, {byte_size(measured.memory_bytes)}"
        error = measured.memory_bytes / predicted.memory_bytes
        rows.append(("memory against its prediction", f"{text} measured ({error - 1:+.0%})"))
    if predicted.seconds and measured.seconds:
        text = f"{duration(predicted.seconds)} predicted, {duration(measured.seconds)}"
        error = measured.seconds / predicted.seconds
        rows.append(("time against its prediction", f"{text} measured ({error - 1:+.0%})"))
    if predicted.loss and predicted.loss_band and measured.loss:
        band = predicted.loss * predicted.loss_band
        inside = "inside" if abs(measured.loss - predicted.loss) <= band else "outside"
        text = f"{predicted.loss:.2f} ± {band:.2f} predicted, {measured.loss:.4f} measured"
        rows.append(("loss against its prediction", f"{text} ({inside} the band)"))
    return rows
