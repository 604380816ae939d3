"""TensorBoard's own reader finds the run, also after it was killed and went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from folio.loggers.tensorboard import TensorBoard
from folio.run.directory import Run
from tests.loggers.keeping import run_of

SETTINGS = {"seed": 3, "optimizer.learning_rate": 0.001, "training.page": True, "preset": "gpt2"}


def read(run: Run) -> Any:
    accumulator = EventAccumulator(str(run.path))
    return accumulator.Reload()


def test_numbers_texts_and_settings_are_read_back(tmp_path: Path):
    run = run_of(tmp_path, 1)
    logger = TensorBoard(run, SETTINGS, 0)
    assert logger.logged == -1 and logger.look == f"tensorboard --logdir {run.path.parent}"
    logger.numbers(1, {"train/loss": 2.5})
    logger.numbers(7, {"train/loss": 1.5, "held_out/test": 1.25})
    logger.text(7, "sample", "<b>Once\nupon</b>")
    logger.close(failed=False)
    found = read(run)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 2.5), (7, 1.5)]
    assert found.Scalars("held_out/test")[0].value == 1.25
    (sample,) = found.Tensors("sample/text_summary")
    assert sample.tensor_proto.string_val == [b"    <b>Once\n    upon</b>"] and sample.step == 7
    settings = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert all(name.encode() in settings for name in SETTINGS)


def test_what_came_after_the_checkpoint_is_replaced_where_a_run_goes_on(tmp_path: Path):
    run = run_of(tmp_path, 1)
    killed = TensorBoard(run, SETTINGS, 0)
    for step in (1, 2, 3, 4):
        killed.numbers(step, {"train/loss": float(step)})
    killed.flush()  # and then it is gone, without an end
    again = TensorBoard(run, SETTINGS, 2)
    assert again.logged == 2
    again.numbers(3, {"train/loss": 30.0})
    again.close(failed=False)
    killed.close(failed=True)
    found = [(e.step, e.value) for e in read(run).Scalars("train/loss")]
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0)]
