"""A model trained by code of somebody's own is opened by the same code, or not at all."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor, nn

import folio
from folio.cli.main import main
from folio.model import attention, block, feed_forward
from folio.run.directory import Run, runs_folder
from folio.run.own_code import OwnCode
from folio.storage import read_json, write_json
from folio.testing import tiny_gpt
from tests.test_examples import SMALL

SCRIPT = """
import sys
import folio
from folio.model import block
from folio.model.attention import Attention
from folio.recipe import finish
from folio.recipe.watcher import Watcher

Watcher.sample_tokens = 10
finish.draw_loss = finish.look_back = lambda *given: []  # which take longer than the training

class Doubled(Attention):
    def forward(self, x, cache=None):
        return 2 * super().forward(x, cache)

def main():
    block.Attention = Doubled
    folio.train(sys.argv[1], name="own", **{settings})

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program that has trained the run `own` with its own attention."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "book.txt").write_text("The cat sat on the mat, and the dog lay by it.\n" * 400)
    path = folder / "doubled.py"
    path.write_text(SCRIPT.replace("{settings}", repr(SMALL)), encoding="utf-8")
    environment = os.environ | {"FOLIO_RUNS": str(folder / "runs")}
    command = [sys.executable, path, folder / "book.txt"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def script(tmp_path: Path, made: Path) -> Path:
    """A copy of that program; its run is among those of the test."""
    shutil.copytree(made / "runs", runs_folder())
    return Path(shutil.copy(made / "doubled.py", tmp_path))


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("doubled", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["doubled"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Attention", "make_norm"):
        monkeypatch.setattr(block, name, getattr(block, name))
    monkeypatch.delitem(sys.modules, "doubled", raising=False)


def own_run() -> Run:
    return Run(runs_folder() / "own")


def test_a_program_without_the_class_gets_one_line_that_names_it(
    script: Path, capsys: pytest.CaptureFixture[str]
):
    for command in (
        ["sample", "own"],
        ["evaluate", "own"],
        ["explain", "own", "--text", "The "],
        ["resume", "own", "--training.max-steps", "22"],
    ):
        with pytest.raises(SystemExit) as ending:
            main(command)
        assert ending.value.code == 2, command
        error = capsys.readouterr().err.strip().splitlines()[-1]
        for part in ("__main__:Doubled as blocks.0.attention", "got Folio's own", "example"):
            assert part in error, command
    assert own_run().newest()[0].step == 20


def test_a_program_that_assigns_the_class_goes_on(script: Path, capsys: pytest.CaptureFixture[str]):
    block.Attention = imported(script).Doubled
    opened = folio.load(own_run().path)
    assert type(opened.model.blocks[0].attention).__name__ == "Doubled"
    assert opened.complaints == []
    main(["resume", "own", "--training.max-steps", "22"])
    assert own_run().newest()[0].step == 22


def test_a_file_that_was_edited_since_is_told(script: Path):
    script.write_text(script.read_text().replace("2 * super", "3 * super"))
    block.Attention = imported(script).Doubled
    (complaint,) = folio.load(own_run().path).complaints
    assert complaint.startswith("the file of Doubled is not as it was when")


def test_a_run_of_folios_own_layers_is_not_opened_with_others(book: Path):
    folio.train(book, name="own", **SMALL)

    class Other(attention.Attention):
        pass

    block.Attention = Other
    with pytest.raises(folio.UserError, match=r"Folio's own as blocks\.0\.attention.*Other"):
        folio.load(own_run().path)
    # Before 2026-11-28 nobody noted it: then it is told.
    for path in own_run().checkpoints_folder.glob("*/manifest.json"):
        manifest = read_json(path)
        del manifest["own_code"]
        write_json(path, manifest)
    (complaint,) = folio.load(own_run().path).complaints
    assert "does not say which code" in complaint and "Other" in complaint


def own_norm(config: object, width: int | None = None) -> nn.Module:
    return nn.Softsign()


class OwnPositions(nn.Module):
    def forward(self, x: Tensor, start: int) -> Tensor:
        return x


def test_whatever_is_not_folios_is_found_where_it_stands(monkeypatch: pytest.MonkeyPatch):
    assert OwnCode.of(tiny_gpt()) == OwnCode()

    monkeypatch.setattr(block, "make_norm", own_norm)
    monkeypatch.setitem(feed_forward.ACTIVATIONS, "gelu", lambda x: x)
    monkeypatch.setattr(attention.Attention, "project", functools.partial(lambda: 0))
    model = tiny_gpt(normalization="layernorm", activation="gelu", positions="learned")
    model.add_module("positions", OwnPositions())
    found = OwnCode.of(model)
    here = OwnPositions.__module__
    assert found.layers["positions"] == f"{here}:OwnPositions"
    assert found.layers["blocks.1.feed_forward_norm"].endswith(":Softsign")
    assert found.functions["folio.model.block.make_norm"] == f"{here}:own_norm"
    assert found.functions["folio.model.attention.Attention.project"] == "functools:partial"
    assert found.functions["blocks.0.feed_forward.activation"].endswith("<lambda>")
    assert {"OwnPositions", "own_norm"} <= found.sources.keys()


def test_an_edited_file_of_the_model_is_noted_by_its_digest(monkeypatch: pytest.MonkeyPatch):
    from folio.run import own_code

    monkeypatch.setattr(own_code, "source_digest", lambda module: f"of {module.__name__}")
    monkeypatch.setattr(own_code, "DIGESTS", {"folio.model.attention": "another"})
    found = OwnCode.of(tiny_gpt())
    assert found.sources == {"folio.model.attention": "of folio.model.attention"}
