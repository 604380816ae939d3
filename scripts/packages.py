"""Build both packages, look into them, and use the wheel where there is no repository.

    python -m scripts.packages                  # as `make packages`: leaves them in dist/
    python -m scripts.packages --python 3.13    # the same, used with another Python

The wheel is installed into a fresh environment with the versions of constraints.txt; there, a model
is trained on a text of a few lines, and writes, is explained, and is asked what it copies.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
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
COMMANDS = (
    ("train", "text.txt", "--name", "first", *" ".join(SMALL).split()),
    ("sample", "first", "--prompt", "The ", "--max-tokens", "40"),
    ("evaluate", "first"),
    ("explain", "first", "--text", "The 3th line"),
    ("recall", "first", "--samples", "2", "--passages", "32", "--seconds", "5"),
    ("export", "first", "--to", "html"),
    ("doctor",),
)
MADE = ("README.md", "explain.html", "recall.html", "export/first.html")
"""Files of the run that these commands leave."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="a Python, by version or path")
    python = parser.parse_args().python
    python = f"python{python}" if python[0].isdecimal() else python
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
    use(wheel, python)


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


def use(wheel: Path, python: str) -> None:
    """Install a wheel into a fresh environment, and run COMMANDS there.

    Raises:
        CalledProcessError: a command failed.
    """
    with tempfile.TemporaryDirectory(prefix="folio-packages-") as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
        binaries = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        install = [
            binaries / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            ROOT / "constraints.txt",
        ]
        subprocess.run([*map(str, install), str(wheel)], check=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FOLIO"))}
        environment |= {"FOLIO_CACHE": str(folder / "cache")}
        lines = (f"The {i * i}th line of verse sings of the {i}th wind.\n" for i in range(400))
        (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
        for command in COMMANDS:
            print("folio", *command, flush=True)
            words = [str(binaries / "folio"), *command]
            subprocess.run(words, cwd=folder, env=environment, check=True)
        absent = [path for path in MADE if not (folder / "runs" / "first" / path).stat().st_size]
        if absent:
            sys.exit(f"The commands left nothing in {', '.join(absent)}.")


if __name__ == "__main__":
    main()
