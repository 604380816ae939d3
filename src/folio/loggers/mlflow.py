"""MLflow: one database for all runs of a folder, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from folio.loggers.ids import known_id, remember_id
from folio.loggers.logger import Settings
from folio.run.directory import Run

SECONDS = 10.0
"""For which numbers may wait: writing one takes as long as writing hundreds."""
MOST_NUMBERS, MOST_SETTINGS = 1000, 100
"""That MLflow takes at once."""


class MLflow:
    """Writes into a database beside the run, unless MLFLOW_TRACKING_URI names another place."""

    def __init__(self, run: Run, settings: Settings, step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        self.entities: Any = import_module("mlflow.entities")
        for name in ("alembic", "mlflow"):  # they tell of each table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        folder = run.path.resolve().parent
        local = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", local)
        self.look = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri == local else uri
        self.client: Any = import_module("mlflow").MlflowClient(tracking_uri=uri)
        there = self._find(known_id(run, "mlflow"))
        self.logged = -1 if there is None else step
        if there is None:
            files = (folder / "mlflow").as_uri() if uri == local else None
            there = self.client.create_run(self._experiment(files), run_name=run.name)
        self.id, self.waiting, self.flushed = there.info.run_id, list[Any](), time.monotonic()
        remember_id(run, "mlflow", self.id)
        self.client.update_run(self.id, status="RUNNING")
        self._set(settings, there.data.params)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.waiting += [self.entities.Metric(name, x, now, step) for name, x in values.items()]
        if time.monotonic() - self.flushed > SECONDS:
            self.flush()

    def text(self, step: int, name: str, text: str) -> None:
        self.client.log_text(self.id, text, f"{name}/step-{step:08}.txt")

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for i in range(0, len(waiting), MOST_NUMBERS):
            self.client.log_batch(self.id, metrics=waiting[i : i + MOST_NUMBERS])
        self.flushed = time.monotonic()

    def close(self, failed: bool) -> None:
        self.flush()
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")

    def _find(self, id_there: str | None) -> Any:
        """The run of that id; None if this store has none, as after a move to another one."""
        try:
            return self.client.get_run(id_there) if id_there else None
        except import_module("mlflow.exceptions").MlflowException:
            return None

    def _experiment(self, files: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "folio")
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name, files)

    def _set(self, settings: Settings, before: Mapping[str, str]) -> None:
        """Write the settings; one that a resumed run changed becomes a tag, since MLflow allows no
        change.
        """
        texts = {name: str(value) for name, value in settings.items()}
        new = [self.entities.Param(name, x) for name, x in texts.items() if name not in before]
        for i in range(0, len(new), MOST_SETTINGS):
            self.client.log_batch(self.id, params=new[i : i + MOST_SETTINGS])
        for name, text in texts.items():
            if before.get(name, text) != text:
                self.client.set_tag(self.id, name, text)


open_logger = MLflow
