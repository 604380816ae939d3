"""The core of Folio where calls of one system are missing: as on macOS, and as on Windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import folio
from folio.cli.main import main
from folio.run.directory import runs_folder

WINDOWS = """
import os, signal, stat, sys, types
for module in ("fcntl", "resource"):
    sys.modules[module] = None
for room, names in (
    (os, "sched_getaffinity fork sysconf wait4 nice killpg setsid"),
    (signal, "SIGHUP pthread_sigmask alarm setitimer"),
):
    for name in names.split():
        if hasattr(room, name):
            delattr(room, name)

fsync, plain_open = os.fsync, os.open

def guarded_fsync(file):
    number = file if isinstance(file, int) else file.fileno()
    with open(f"/proc/self/fdinfo/{number}") as info:
        flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    return fsync(file)

def guarded_open(path, flags, *rest, **more):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return plain_open(path, flags, *rest, **more)

os.fsync = guarded_fsync
"""

CORE = """
import os, sys
import sitecustomize
from folio.cli.main import main
from folio.recipe import finish
from folio.recipe.watcher import Watcher
Watcher.sample_tokens = 10
os.open = sitecustomize.guarded_open
book, *flags = sys.argv[1:]
def run(*words):
    try:
        main(list(words))
    except SystemExit as end:
        assert not end.code, (words, end.code)
run("train", book, "--name", "a", "--training.evaluation-interval", "2", *flags)
finish.draw_loss = finish.look_back = lambda *given: []  # takes longer than to train
run("resume", "a", "--training.max-steps", "6", "--json")
run("sample", "a", "--max-tokens", "5")
few = ("--trials", "1", "--epochs", "0.1", "--repeats", "0")
run("tune", book, "--name", "st", *few, *flags)
"""

FLAGS = """--preset gpt2 --model.n-layers 1 --model.d-model 16 --model.n-heads 2
    --model.context-length 16 --training.batch-size 4 --training.max-steps 4
    --device.kind cpu --device.precision float32"""


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pretends to be another system")


@on_linux
def test_the_core_runs_without_the_call_that_macos_does_not_have(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "sched_getaffinity")
    main(["train", str(book), "--name", "a", *FLAGS.split()])
    main(["resume", "a", "--training.max-steps", "6", "--json"])
    main(["sample", "a", "--max-tokens", "5"])
    assert json.loads((runs_folder() / "a" / "last.json").read_text())["step"] == 6


@on_linux
def test_the_core_runs_without_the_calls_that_windows_does_not_have(book: Path, tmp_path: Path):
    away = tmp_path / "away"
    away.mkdir()
    (away / "sitecustomize.py").write_text(WINDOWS)
    source = str(Path(folio.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", CORE, str(book), *FLAGS.split()],
        env=os.environ | {"PYTHONPATH": f"{away}{os.pathsep}{source}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((runs_folder() / "a" / "last.json").read_text())["step"] == 6
    assert (runs_folder() / "st" / "best.toml").exists()
