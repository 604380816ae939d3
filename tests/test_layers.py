"""Data flows one way, imports point back along it: room by room, and file by file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "folio"
ORDER = (
    "errors records config console storage report curves blocks notebook pictures jit accelerator",
    "process device workers corpus tokenizers tokens model ngrams fast evaluation store generation",
    "run training loggers recipe planning tuning explain recall ladder write export serving",
    "lightning doctor cli testing",
)
ROOMS = " ".join(ORDER).split()
FRONT_DOOR = {"__init__", "__main__"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Modules and names that a file imports from Folio, inside of functions too."""
    return imports_in(path.read_text(encoding="utf-8"), path)


@cache
def imports_in(text: str, path: Path) -> set[str]:
    return set(_imports(text, path))


def _imports(text: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("folio."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "folio" or str(node.module).startswith("folio."):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path)} - {"__version__"}


def test_a_room_imports_only_from_its_left():
    for path in SOURCE.rglob("*.py"):
        room = room_of(path)
        if room in FRONT_DOOR:
            continue
        assert room in ROOMS, f"{path}: a new room needs a place in the order"
        allowed = set(ROOMS[: ROOMS.index(room) + 1])
        assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"


def circle(files: dict[str, Path]) -> list[str]:
    """Modules that import each other in a circle; none where there is no circle.

    `from folio.a import b` is the module a.b if there is one, else a.
    """
    graph = {
        module: {name if name in files else name.rpartition(".")[0] for name in imports_of(path)}
        - {module, "folio"}
        for module, path in files.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_file_imports_itself_by_way_of_others():
    files = {}
    for path in SOURCE.rglob("*.py"):
        names = path.relative_to(SOURCE.parent).with_suffix("").parts
        files[".".join(names).removesuffix(".__init__")] = path
    del files["folio"], files["folio.__main__"]
    assert circle(files) == []


def test_a_circle_by_way_of_a_function_is_found(tmp_path: Path):
    files = {f"folio.{name}": tmp_path / f"{name}.py" for name in "abc"}
    files["folio.a"].write_text("from folio.b import x\n")
    files["folio.b"].write_text("import folio.c\n")
    files["folio.c"].write_text("def f():\n    from folio import a\n")
    assert set(circle(files)) == set(files)
    files["folio.c"].write_text("def f():\n    from folio import d\n")
    assert circle(files) == []


def test_the_model_imports_torch_and_nothing_that_is_faster():
    for path in (SOURCE / "model").glob("*.py"):
        assert not imported_rooms(path) & {"jit", "fast"}, path
        assert "numba" not in path.read_text(encoding="utf-8"), path


def test_only_tests_import_the_public_doubles():
    for path in SOURCE.rglob("*.py"):
        assert "testing" not in imported_rooms(path) or room_of(path) == "testing"
