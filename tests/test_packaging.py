"""What is installed, and how it is released: every file that the code reads, one version."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import folio
from scripts.packages import (
    declared,
    dependencies,
    files_of_the_package,
    find_python,
    sdist_complaints,
    wheel_complaints,
    why_no_torch,
)

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
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == folio.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = changes.index(f"\n## {folio.__version__}")
    assert newest == changes.index("\n## ") and "\n### Upgrading from " in changes[newest:]


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


def test_a_wheel_that_lacks_a_page_or_has_a_test_is_no_good():
    wanted = files_of_the_package()
    assert {"folio/py.typed", "folio/explain/page.html", "folio/export/page_worker.js"} < wanted
    names = [*wanted, "foliolm-1.dist-info/RECORD"]
    assert wheel_complaints(names, wanted) == []
    names.remove("folio/explain/page.html")
    assert wheel_complaints([*names, "tests/test_api.py"], wanted) == [
        "the wheel lacks folio/explain/page.html",
        "the wheel has tests/test_api.py",
    ]


def test_a_source_distribution_without_its_license_or_with_half_of_the_tests_is_no_good():
    whole = ["LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "pyproject.toml"]
    names = [f"foliolm-1/{name}" for name in (*whole, "docs/run.svg", "src/folio/py.typed")]
    assert sdist_complaints(names, {"folio/py.typed"}) == []
    assert sdist_complaints([*names[1:], "foliolm-1/tests/test_api.py"], {"folio/py.typed"}) == [
        "the sdist lacks LICENSE",
        "the sdist has tests/test_api.py",
    ]


def test_a_python_is_found_by_path_and_one_that_does_not_run_is_not(tmp_path: Path):
    assert find_python(sys.executable, required=True) == sys.executable
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    broken.chmod(0o755)
    assert find_python(str(broken)) == find_python(str(tmp_path / "absent")) == ""
    with pytest.raises(SystemExit, match=r"no Python .*python3\.12 here that runs"):
        find_python(str(broken), required=True)


def test_torch_is_installed_only_where_it_brings_no_gigabytes():
    def answer(*names: str) -> list[str]:
        report = {"install": [{"metadata": {"name": name}} for name in names]}
        return [sys.executable, "-c", f"print({json.dumps(report)!r})"]

    assert why_no_torch(answer("torch", "sympy")) == ""
    assert "2 packages for CUDA" in why_no_torch(answer("torch", "nvidia-nccl", "nvidia-nvtx"))
    refused = [sys.executable, "-c", "import sys; sys.exit('ERROR: No matching distribution')"]
    assert why_no_torch(refused).endswith("(ERROR: No matching distribution)")


def test_what_is_installed_without_torch_is_all_the_rest():
    names = {re.split(r"[<>=]", need)[0] for need in dependencies()}
    assert {"numba", "numpy", "cyclopts"} < names and "torch" not in names
    assert len(names) == len(PROJECT["project"]["dependencies"]) - 1


# ---- how it is checked and released ------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(workflow: Path) -> list[dict[str, str]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_workflows_call_the_targets_that_people_call():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = {
        target
        for workflow in WORKFLOWS
        for step in steps_of(workflow)
        for target in re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE)
    }
    assert called == {"check", "test", "packages", "docs"}
    for target in called:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_python_that_is_tested_is_declared():
    checks = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    tested = checks["jobs"]["test"]["strategy"]["matrix"]["python"]
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert tested == classified == declared()
    assert PROJECT["project"]["requires-python"] == f">={classified[0]}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_may_write_more_than_it_says(workflow: Path):
    table = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert table["permissions"] == {"contents": "read"}
    for name, job in table["jobs"].items():
        assert "timeout-minutes" in job, name
        writes = {what for what, may in job.get("permissions", {}).items() if may == "write"}
        assert "id-token" not in writes or "environment" in job, name
        for step in job["steps"]:
            assert "@" in step["uses"] if "uses" in step else "run" in step


def test_the_images_are_those_of_the_readme_and_have_what_they_copy():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", dockerfile, re.MULTILINE))
    named = re.findall(r"--target (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert named and set(named) <= targets
    let_in = re.findall(
        r"^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {"src", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} == set(let_in)
    for extras in re.findall(r"whl\)\[([a-z,]+)\]", dockerfile):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")),
    ids=lambda path: path.stem,
)
def test_a_form_for_issues_has_fields_with_names_of_their_own(path: Path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])
