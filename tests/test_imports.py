"""What is not needed is not loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest


@cache
def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines())


LIGHT = """
import folio
from folio.cli.main import make_app; make_app()
from folio.recipe.recipe import make_recipe; make_recipe({})
import folio.cli.train, folio.cli.resume, folio.cli.sample, folio.cli.evaluate
import folio.cli.tokenizer, folio.cli.ladder, folio.cli.explain, folio.cli.tune
import folio.tuning.study, folio.planning.cluster, folio.cli.plan_cluster
"""


def test_torch_matplotlib_and_optuna_wait_until_they_are_used():
    assert not {"torch", "matplotlib", "numba", "optuna"} & modules_after(LIGHT)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has another OpenMP")
@pytest.mark.parametrize(("asked", "turns"), [(None, "0"), ("ACTIVE", "30000000000")])
def test_threads_of_the_command_sleep_where_they_wait_unless_the_user_says_otherwise(
    asked: str | None, turns: str
):
    """libgomp tells, when torch loads it, how often a thread looks before it sleeps."""
    code = "import folio.cli.main as m; m.main = lambda: __import__('torch'); m.command()"
    left_out = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"OMP_WAIT_POLICY": asked} if asked else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert f"GOMP_SPINCOUNT = '{turns}'" in done.stderr


MAY_LOAD = {
    "import folio": {"folio", "folio.errors"},
    "import folio.cli.main as m; m.main([])": {
        "folio", "folio.errors", "folio.console", "folio.cli", "folio.cli.main",
    },
}  # fmt: skip


@pytest.mark.parametrize("code", MAY_LOAD)
def test_importing_folio_and_its_overview_load_the_standard_library_alone(code: str):
    """A budget of modules, since a budget of milliseconds says more about the machine."""
    before = modules_after("pass")
    loaded = {name for name in modules_after(code) - before if name and " " not in name}
    known = {name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names}
    assert loaded - known == MAY_LOAD[code]
    assert not {"asyncio", "email", "http", "inspect", "socket", "ssl", "unittest"} & known


def test_the_model_and_its_loss_load_no_text():
    loaded = modules_after("import folio.model.gpt, folio.model.loss")
    assert not {"folio.corpus", "folio.tokenizers", "folio.tokens.stream"} & loaded
