"""Data flows one way, imports back along it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "folio"
ORDER = (
    "errors config storage console report device corpus tokenizers tokens model evaluation",
    "generation run training recipe planning tuning explain recall ladder cli testing",
)
ROOMS = " ".join(ORDER).split()
FRONT_DOOR = {"__init__", "__main__"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module or ""]
        rooms |= {name.split(".")[1] for name in names if name.startswith("folio.")}
    return rooms


def test_a_room_imports_only_from_its_left():
    for path in SOURCE.rglob("*.py"):
        room = room_of(path)
        if room in FRONT_DOOR:
            continue
        assert room in ROOMS, f"{path}: a new room needs a place in the order"
        allowed = set(ROOMS[: ROOMS.index(room) + 1])
        assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"


def test_only_tests_import_the_public_doubles():
    for path in SOURCE.rglob("*.py"):
        assert "testing" not in imported_rooms(path) or room_of(path) == "testing"
