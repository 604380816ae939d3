"""Build both packages, look into them, and use them where there is no repository.

    make packages                                       # with every Python that is here
    make packages PYTHONS="3.13 ~/python3.14/bin/python3"    # with these

Each is installed into a fresh environment with the versions of constraints.txt: the wheel with
every Python, the source distribution with the first. There, a model is trained on a text of a few
lines, and writes, is explained, and is asked what it copies. Where torch has nothing but a build
for CUDA, which takes gigabytes, it is left out: the verbs that need none of it are run, and the
model of an earlier Python writes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"

LINKED = (
    "README.md",
    "LICENSE",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "docs/run.svg",
)
"""What a reader of the source distribution opens first."""

SMALL = (
    "--preset gpt2 --model.n-layers 1 --model.d-model 32 --model.n-heads 2",
    "--model.context-length 16 --training.batch-size 4 --training.max-steps 6",
    "--training.evaluation-interval 3 --device.kind cpu --device.threads 1",
)
TRAINED = (
    ("train", "text.txt", "--name", "first", *" ".join(SMALL).split()),
    ("evaluate", "first"),
    ("explain", "first", "--text", "The 3th line"),
    ("recall", "first", "--samples", "2", "--passages", "32", "--seconds", "5"),
    ("export", "first", "--to", "html"),
)
"""Commands that need torch."""
MADE = ("README.md", "explain.html", "recall.html", "export/first.html")
"""Files of the run that these commands leave."""
WITHOUT_TORCH = (
    ("--help",),
    ("corpus", "text.txt"),
    ("tokenizer", "train", "text.txt", "--vocab-size", "300", "--out", "tokenizer.json"),
    ("tokenizer", "encode", "tokenizer.json", "text.txt"),
    ("doctor",),
)
WRITES = (("runs",), ("sample", "first", "--prompt", "The ", "--max-tokens", "40"))
"""Commands that need a run, of this Python or of another, and no torch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "pythons", nargs="*", help="by version or path; by default all that are here"
    )
    given = [found for word in parser.parse_args().pythons if (found := find_python(word, True))]
    pythons = given or [found for word in declared() if (found := find_python(word))]
    for old in DIST.glob("foliolm-*"):
        old.unlink()
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], check=True)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        complaints = wheel_complaints(archive.namelist(), files_of_the_package())
    with tarfile.open(sdist) as archive:
        complaints += sdist_complaints(archive.getnames(), files_of_the_package())
    if complaints:
        sys.exit("\n".join(complaints))
    with tempfile.TemporaryDirectory(prefix="folio-packages-") as folder:
        tried = [use(wheel, python, Path(folder)) for python in pythons]
        tried.append(use(sdist, pythons[0], Path(folder)))
    for line in (*tried, *(f"{word}: not here" for word in declared() if not find_python(word))):
        print(line)


def declared() -> list[str]:
    """The Pythons that the project says it works with: 3.11, ..."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    words = (
        line.rpartition(" ")[2] for line in table["project"]["classifiers"] if "Python" in line
    )
    return [word for word in words if word.startswith("3.")]


def find_python(word: str, required: bool = False) -> str:
    """The path of a Python by its version or a path of it; empty if there is none that runs.

    Raises:
        SystemExit: none runs, and it is required.
    """
    path = shutil.which(f"python{word}" if word[0].isdecimal() else Path(word).expanduser())
    found = ""
    if path:
        ask = [path, "-c", "import sys; print(sys.executable)"]
        found = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    if required and not found:
        sys.exit(f"There is no Python {word} here that runs.")
    return found


def files_of_the_package() -> set[str]:
    """What must be in both packages, relative to src/."""
    source = ROOT / "src"
    paths = (source / "folio").rglob("*")
    return {
        path.relative_to(source).as_posix()
        for path in paths
        if path.is_file() and path.parent.name != "__pycache__"
    }


def wheel_complaints(names: Iterable[str], wanted: set[str]) -> list[str]:
    """What is missing from a wheel, and what it has beside the package.

    >>> wheel_complaints(["folio/a.py", "tests/b.py", "x.dist-info/RECORD"], {"folio/py.typed"})
    ['the wheel lacks folio/py.typed', 'the wheel has folio/a.py', 'the wheel has tests/b.py']
    """
    inside = {name for name in names if ".dist-info/" not in name}
    return _differences("the wheel", inside, wanted)


def sdist_complaints(names: Iterable[str], wanted: set[str]) -> list[str]:
    """What is missing from a source distribution, and tests that are in it in part."""
    inside = {name.partition("/")[2] for name in names}
    missing = {f"src/{name}" for name in wanted} | set(LINKED)
    complaints = [f"the sdist lacks {name}" for name in sorted(missing - inside)]
    return complaints + [f"the sdist has {n}" for n in sorted(inside) if n.startswith("tests/")]


def _differences(what: str, inside: set[str], wanted: set[str]) -> list[str]:
    missing = [f"{what} lacks {name}" for name in sorted(wanted - inside)]
    return missing + [f"{what} has {name}" for name in sorted(inside - wanted)]


def use(package: Path, python: str, folder: Path) -> str:
    """Install a package into a fresh environment, and run the commands there.

    Args:
        package: a wheel or a source distribution.
        python: the path of an interpreter.
        folder: keeps the text and the run for the next Python, and nothing else.

    Returns:
        What was tried, in a line.

    Raises:
        CalledProcessError: a command failed.
    """
    begin = time.monotonic()
    lines = (f"The {i * i}th line of verse sings of the {i}th wind.\n" for i in range(400))
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    run = folder / "runs" / "first"
    with tempfile.TemporaryDirectory(prefix="folio-environment-") as name:
        environment = Path(name)
        subprocess.run([python, "-m", "venv", name], check=True)
        binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
        pip = [
            str(binaries / "python"),
            "-m",
            "pip",
            "install",
            "-c",
            str(ROOT / "constraints.txt"),
        ]
        no_torch = why_no_torch(pip)
        if not no_torch:
            subprocess.run([*pip, "--quiet", str(package)], check=True)
            shutil.rmtree(run, ignore_errors=True)
            commands = (*WITHOUT_TORCH, *TRAINED, *WRITES)
        else:
            subprocess.run([*pip, "--quiet", *dependencies()], check=True)
            subprocess.run([*pip, "--quiet", "--no-deps", str(package)], check=True)
            commands = (*WITHOUT_TORCH, *(WRITES if run.exists() else ()))
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FOLIO"))}
        variables |= {"FOLIO_CACHE": str(environment / "cache")}
        for command in commands:
            print("folio", *command, flush=True)
            words = [str(binaries / "folio"), *command]
            subprocess.run(words, cwd=folder, env=variables, check=True)
    if not no_torch and (absent := [path for path in MADE if not (run / path).is_file()]):
        sys.exit(f"The commands left no {', '.join(absent)}.")
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    kind = "wheel" if package.suffix == ".whl" else "sdist"
    done = f"{len(commands)} commands in {time.monotonic() - begin:.0f} s"
    without = f", without torch, {no_torch}" if no_torch else ""
    return f"{version.stdout.strip()}, {kind}: {done}{without}"


def dependencies() -> Iterator[str]:
    """What the package needs beside torch."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return (need for need in table["project"]["dependencies"] if not need.startswith("torch"))


def why_no_torch(pip: list[str]) -> str:
    """Why torch is not installed: it brings packages for CUDA, or there is none; empty if it is."""
    trial = [*pip, "--quiet", "--dry-run", "--report", "-", "torch"]
    asked = subprocess.run(trial, capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"which has no wheel for it ({asked.stderr.strip().splitlines()[-1]})"
    names = [item["metadata"]["name"] for item in json.loads(asked.stdout)["install"]]
    cuda = [name for name in names if name.startswith("nvidia-")]
    return f"which brings {len(cuda)} packages for CUDA" if cuda else ""


if __name__ == "__main__":
    main()
