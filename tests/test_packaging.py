"""What is installed: every file that the code reads, one version, and a license."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import folio

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCE = ROOT / "src" / "folio"


def test_every_file_beside_the_code_is_packaged():
    packaged = {
        path
        for glob in PROJECT["tool"]["setuptools"]["package-data"]["folio"]
        for path in SOURCE.glob(glob)
    }
    beside = {p for p in SOURCE.rglob("*") if p.is_file() and p.suffix != ".py"}
    beside -= set(SOURCE.rglob("__pycache__/*"))
    assert beside <= packaged
    assert SOURCE / "explain" / "page.html" in beside


def test_every_folder_of_code_is_a_package():
    for path in SOURCE.rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["project"]["dynamic"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "folio.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", folio.__version__)


@pytest.mark.parametrize(
    "name", PROJECT["project"]["license-files"] + [PROJECT["project"]["readme"]]
)
def test_what_the_metadata_names_is_there(name: str):
    assert (ROOT / name).stat().st_size > 500


def test_every_extra_that_a_message_names_exists():
    extras = set(PROJECT["project"]["optional-dependencies"])
    for path in SOURCE.rglob("*.py"):
        for names in re.findall(r"(?:foliolm|'\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, f"{path} names {names}"
