"""Files and functions that are read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [p for room in ("src", "tests", "bench", "examples") for p in (ROOT / room).rglob("*.py")]
LONGEST_FILE = 450
LONGEST_FUNCTION = 60
"""Lines, docstring and arguments aside."""


def long_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            n_lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if n_lines > LONGEST_FUNCTION:
                yield node.name, n_lines


def test_no_file_is_longer_than_its_idea():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(p): n for p, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_screen():
    found = {(path.name, name): n for path in FILES for name, n in long_functions(path)}
    assert found == {}


def test_what_everybody_reads_first_is_short():
    source = ROOT / "src" / "folio"
    files = list((source / "model").glob("*.py"))
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 800
    files += [source / "training" / f"{name}.py" for name in ("loop", "step", "optimizers")]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 1500


def test_a_long_function_is_found_by_its_lines(tmp_path: Path):
    path = tmp_path / "long.py"
    head = 'def f():\n    """Says much.\n\n' + "    More.\n" * 90 + '    """\n'
    path.write_text(head + "    x = 1\n" * LONGEST_FUNCTION)
    assert list(long_functions(path)) == []
    path.write_text(head + "    x = 1\n" * (LONGEST_FUNCTION + 1))
    assert list(long_functions(path)) == [("f", LONGEST_FUNCTION + 1)]
