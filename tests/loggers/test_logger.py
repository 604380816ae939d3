"""What is asked for is there, or a line says how to get it before anything is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import folio
from folio.loggers import logger
from folio.loggers.logger import require_installed
from folio.run.directory import runs_folder
from folio.training.config import TrainingConfig


def test_a_missing_package_is_one_line_with_the_command_before_anything_is_written(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logger, "find_spec", lambda name: None)
    with pytest.raises(folio.UserError) as caught:
        folio.train(book, log="mlflow")
    assert str(caught.value).endswith("pip install 'foliolm[mlflow]'")
    assert "\n" not in str(caught.value) and not list(runs_folder().glob("*"))


def test_a_folder_named_like_a_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """wandb writes into a folder wandb/, which Python may take for a package without code."""
    (tmp_path / "no_such_logger").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(folio.UserError, match=r"foliolm\[no_such_logger\]"):
        require_installed(["no_such_logger"])
    require_installed(["torch"])


def test_an_unknown_logger_gets_the_nearest_name():
    with pytest.raises(folio.UserError, match="Did you mean 'tensorboard'"):
        TrainingConfig(log=("tensorbord",))
