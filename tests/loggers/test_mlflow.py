"""MLflow is called as its documentation says. It is large, so a stand-in keeps the calls here."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from folio.loggers import mlflow as ours
from folio.loggers.mlflow import MLflow
from tests.loggers.keeping import run_of


class UnknownRunError(Exception):
    """As MLflow raises."""


class Store:
    """A client of MLflow, and what it has stored; it refuses what MLflow refuses."""

    def __init__(self) -> None:
        self.uris, self.experiments = list[str](), dict[str, str | None]()
        self.params: dict[str, dict[str, str]] = {}
        self.metrics: defaultdict[str, list[Any]] = defaultdict(list)
        self.texts, self.tags, self.status = list[Any](), dict[str, str](), dict[str, str]()
        self.calls = 0

    def MlflowClient(self, tracking_uri: str) -> Store:  # noqa: N802
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        self.experiments[name] = artifact_location
        return name

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        assert experiment_id in self.experiments
        self.params[f"{run_name}{len(self.params)}"] = {}
        return self.get_run(f"{run_name}{len(self.params) - 1}")

    def get_run(self, run_id: str) -> Any:
        if run_id not in self.params:
            raise UnknownRunError
        data = SimpleNamespace(params=dict(self.params[run_id]))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id), data=data)

    def update_run(self, run_id: str, status: str) -> None:
        self.status[run_id] = status

    set_terminated = update_run

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000 and len(params) <= 100
        self.calls += 1
        self.metrics[run_id] += metrics
        for name, value in params:
            assert self.params[run_id].setdefault(name, value) == value

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts.append((artifact_file, text))

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.tags[name] = value


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("TRACKING_URI", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    store = Store()
    entities = SimpleNamespace(Metric=lambda *of: of, Param=lambda *of: of)
    exceptions = SimpleNamespace(MlflowException=UnknownRunError)
    monkeypatch.setitem(sys.modules, "mlflow", store)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    return store


def test_a_run_is_written_into_a_database_beside_it(tmp_path: Path, store: Store):
    run = run_of(tmp_path, 1)
    logger = MLflow(run, {f"setting.{i}": i for i in range(150)}, 0)
    runs = run.path.parent
    assert store.uris == [f"sqlite:///{runs}/mlflow.db"] and logger.logged == -1
    assert store.experiments == {"folio": (runs / "mlflow").as_uri()}
    assert logger.look == f"mlflow ui --backend-store-uri sqlite:///{runs}/mlflow.db"
    assert len(store.params["one0"]) == 150 and store.params["one0"]["setting.7"] == "7"
    assert store.status == {"one0": "RUNNING"}
    logger.text(4, "sample", "Once")
    assert store.texts == [("sample/step-00000004.txt", "Once")]
    logger.close(failed=False)
    assert store.status == {"one0": "FINISHED"}


def test_numbers_wait_and_are_written_together(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    logger = MLflow(run_of(tmp_path, 1), {}, 0)
    for step in range(1200):
        logger.numbers(step, {"train/loss": 1.0})
    assert store.calls == 0
    logger.flush()
    assert store.calls == 2 and [of[3] for of in store.metrics["one0"]] == list(range(1200))
    monkeypatch.setattr(ours, "SECONDS", -1.0)
    logger.numbers(1200, {"train/loss": 1.0})
    assert store.calls == 3


def test_a_run_that_goes_on_is_the_same_one_and_a_changed_setting_is_a_tag(
    tmp_path: Path, store: Store
):
    run = run_of(tmp_path, 1)
    MLflow(run, {"training.max_steps": 10, "seed": 1}, 0).close(failed=True)
    assert store.status == {"one0": "FAILED"}
    again = MLflow(run, {"training.max_steps": 20, "seed": 1, "training.log": "mlflow"}, 10)
    assert again.logged == 10 and list(store.params) == ["one0"]
    assert store.tags == {"training.max_steps": "20"}
    assert store.params["one0"]["training.log"] == "mlflow" and store.status == {"one0": "RUNNING"}


def test_another_store_gets_the_whole_run(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    run = run_of(tmp_path, 1)
    MLflow(run, {}, 0)
    store.params.clear()
    store.experiments.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    again = MLflow(run, {}, 10)
    assert again.logged == -1 and store.uris[1] == again.look == "http://127.0.0.1:5000"
    assert store.experiments == {"mine": None}
