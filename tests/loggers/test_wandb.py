"""wandb is called as its documentation says. It is large, so a stand-in keeps the calls here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from folio.loggers.wandb import WandB
from tests.loggers.keeping import run_of


class StandIn(SimpleNamespace):
    """The part of wandb that is used; it makes the folder that wandb would make."""

    resumed = False

    def __init__(self) -> None:
        super().__init__(Settings=dict, Html=lambda text, inject: f"page {text}")
        self.inits, self.logged, self.ended = list[Any](), list[Any](), list[int]()

    def init(self, **arguments: Any) -> Any:
        self.inits.append(arguments)
        known = arguments["id"] or "id1"
        folder = Path(arguments.get("dir", "."), "wandb", f"offline-run-{len(self.inits)}-{known}")
        (folder / "files").mkdir(parents=True)
        return SimpleNamespace(
            id=known,
            resumed=self.resumed,
            url="https://example.org/run",
            dir=str(folder / "files"),
            define_metric=lambda *names, **options: None,
            log=self.logged.append,
            finish=lambda exit_code: self.ended.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name in ("MODE", "PROJECT", "NAME", "DIR", "RUN_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setitem(sys.modules, "wandb", stand_in := StandIn())
    return stand_in


def test_a_run_is_written_offline_into_its_own_folder(tmp_path: Path, wandb: StandIn):
    run = run_of(tmp_path, 1)
    logger = WandB(run, {"seed": 3}, 0)
    (given,) = wandb.inits
    assert given["mode"] == "offline" and given["resume"] is None and given["config"] == {"seed": 3}
    assert (given["project"], given["name"], given["dir"]) == ("folio", "one", str(run.path))
    assert logger.logged == -1
    assert logger.look == f"wandb sync {run.path}/wandb/offline-run-1-id1"
    logger.numbers(4, {"train/loss": 1.5})
    logger.text(4, "sample", "<b>")
    logger.close(failed=True)
    assert wandb.logged == [
        {"step": 4, "train/loss": 1.5},
        {"step": 4, "sample": "page <pre>&lt;b&gt;</pre>"},
    ]
    assert wandb.ended == [1]


def test_a_run_that_goes_on_offline_is_written_anew_under_its_id(tmp_path: Path, wandb: StandIn):
    run = run_of(tmp_path, 1)
    WandB(run, {}, 0).close(failed=False)
    again = WandB(run, {}, 50)
    assert wandb.inits[1]["id"] == "id1" and again.logged == -1
    assert [path.name for path in (run.path / "wandb").iterdir()] == ["offline-run-2-id1"]
    assert [path.name for path in (run.path / "wandb.set-aside").iterdir()] == ["offline-run-1-id1"]


def test_variables_of_wandb_hold(tmp_path: Path, wandb: StandIn, monkeypatch: pytest.MonkeyPatch):
    run, elsewhere = run_of(tmp_path, 1), tmp_path / "elsewhere"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    monkeypatch.chdir(tmp_path)
    wandb.resumed = True
    logger = WandB(run, {}, 50)
    (given,) = wandb.inits
    assert given["mode"] == "online" and given["resume"] == "allow"
    assert not {"project", "dir"} & given.keys() and given["name"] == "one"
    assert logger.logged == 50 and logger.look == "https://example.org/run"
