"""TensorBoard: event files in the run directory, written by torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from textwrap import indent

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from folio.loggers.logger import Settings
from folio.run.directory import Run

JUDGED_BY = ("evaluation/validation_loss", "held_out/validation", "held_out/test")
"""The numbers beside the settings in the table of runs."""


class TensorBoard:
    """Writes event files. On a resumed run it has TensorBoard drop what came after the checkpoint,
    which happens again.
    """

    def __init__(self, run: Run, settings: Settings, step: int) -> None:
        self.look = f"tensorboard --logdir {shlex.quote(str(run.path.parent))}"
        begun = any(run.path.glob("events.out.tfevents.*"))
        self.logged = step if begun else -1
        self.writer = SummaryWriter(run.path, purge_step=step + 1 if begun else None)
        for summary in hparams(dict(settings), dict.fromkeys(JUDGED_BY, 0.0)):
            self.writer._get_file_writer().add_summary(summary)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        self.writer.add_text(name, indent(text, "    "), step)  # Markdown's literal text

    def flush(self) -> None:
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


open_logger = TensorBoard
