"""The step is kept as machine code that needs no numba, and made anew where it must be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from folio import jit
from folio.fast import machine_code
from folio.fast.machine_code import KERNELS, can_be_had, step_of

pytest.importorskip("numba")


@pytest.fixture
def file() -> Path:
    """Where the step for float32 is kept; it is there."""
    step_of("float32")
    found = machine_code._file_of("float32")
    assert found is not None and found.exists()
    return found


def test_kernels_read_nothing_that_stands_elsewhere():
    """So that a digest of their folder says all that the machine code was made of."""
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("folio"):
                inside = str(node.module).startswith("folio.fast.kernels")
                assert inside or (node.module == "folio.jit" and node.names[0].name == "kernel")
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("folio") for name in node.names)


def test_it_is_loaded_without_numba(file: Path):
    code = """if True:
        import sys
        from folio.fast.machine_code import can_be_had, step_of
        assert can_be_had("float32")
        step_of("float32")
        sys.exit("numba" in sys.modules or "torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_damaged_is_made_anew(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = file.read_bytes()
    assert machine_code._kept(file) == code[machine_code.DIGITS :]
    copy = tmp_path / "step.o"
    for damaged in (code[:-1], b"", code[:-1] + bytes([code[-1] ^ 1])):
        copy.write_bytes(damaged)
        assert machine_code._kept(copy) is None
    assert machine_code._kept(tmp_path / "missing") is None
    monkeypatch.setattr(machine_code, "_file_of", lambda precision: copy)
    monkeypatch.setattr(machine_code, "_compiled", lambda p: code[machine_code.DIGITS :])
    step_of.__wrapped__("float32")
    assert copy.read_bytes() == code


def test_it_is_kept_for_this_processor_and_these_settings(file: Path):
    code = "from folio.fast.machine_code import _file_of; print(_file_of('float32'))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CPU_NAME": "another"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = Path(other.stdout.strip())
    assert found.parent.name == file.parent.name and found.name != file.name


def test_without_kernels_there_is_none(monkeypatch: pytest.MonkeyPatch):
    assert can_be_had("float32")
    monkeypatch.setenv("FOLIO_JIT", "off")
    assert not can_be_had("float32") and not jit.available()
