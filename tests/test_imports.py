"""What is not needed is not loaded."""

from __future__ import annotations

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


def test_importing_folio_loads_nothing_heavy():
    assert not {"numpy", "rich", "cyclopts"} & modules_after("import folio")
