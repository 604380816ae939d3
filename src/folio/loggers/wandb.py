"""Weights & Biases: a folder in the run directory, which `wandb sync` may send to a server later.

wandb cannot resume a run offline: of two folders with one id, the one that is synced last replaces
the other. So a resumed run is written anew from its own files, and the older folder is set aside.
Source: https://github.com/wandb/wandb/issues/3841 and 5865.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from folio.loggers.ids import known_id, remember_id
from folio.loggers.logger import Settings
from folio.run.directory import Run


class WandB:
    """Writes offline unless WANDB_MODE says otherwise; wandb's other variables hold as well."""

    def __init__(self, run: Run, settings: Settings, step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        self.wandb: Any = import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        known = os.environ.get("WANDB_RUN_ID") or known_id(run, "wandb")
        usual = {"project": "folio", "name": run.name, "dir": str(run.path)}
        chosen = {k: v for k, v in usual.items() if f"WANDB_{k.upper()}" not in os.environ}
        if mode != "online":
            _set_aside(Path(os.environ.get("WANDB_DIR", run.path)), known)
        self.run: Any = self.wandb.init(
            mode=mode,
            id=known,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            config=dict(settings),
            settings=self.wandb.Settings(console="off", silent=True),
            **chosen,
        )
        remember_id(run, "wandb", self.run.id)
        self.logged = step if self.run.resumed else -1
        sync = f"wandb sync {shlex.quote(str(Path(self.run.dir).parent))}"
        self.look = self.run.url if mode == "online" else sync
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def text(self, step: int, name: str, text: str) -> None:
        page = self.wandb.Html(f"<pre>{escape(text)}</pre>", inject=False)
        self.run.log({"step": step, name: page})

    def flush(self) -> None:
        """Do nothing: a process of wandb's own writes down what it is told."""

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def _set_aside(folder: Path, id_there: str | None) -> None:
    """Move what is about to be written anew to where `wandb sync` does not look."""
    for older in Path(folder, "wandb").glob(f"offline-run-*-{id_there}"):
        aside = folder / "wandb.set-aside" / older.name
        aside.parent.mkdir(exist_ok=True)
        older.rename(aside)


open_logger = WandB
