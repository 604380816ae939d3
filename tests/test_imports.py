"""What is not needed is not loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import folio",
        "from folio.cli.main import make_app; make_app()",
        "from folio.recipe.recipe import make_recipe; make_recipe({})",
        "import folio.cli.train, folio.cli.resume, folio.cli.sample, folio.cli.evaluate",
        "import folio.cli.tokenizer, folio.cli.ladder, folio.cli.explain, folio.cli.tune",
        "import folio.tuning.study",
    ],
)
def test_torch_matplotlib_and_optuna_wait_until_they_are_used(code: str):
    assert not {"torch", "matplotlib", "numba", "optuna"} & modules_after(code)


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


def test_importing_folio_loads_nothing_heavy():
    assert not {"numpy", "rich", "cyclopts"} & modules_after("import folio")
