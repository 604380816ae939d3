"""The core of Folio where calls of one system are missing: as on macOS, and as on Windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import folio

MACOS = """
import os, sys
del os.sched_getaffinity
"""

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
from folio.cli.main import main
from folio.recipe import finish
from folio.recipe.watcher import Watcher
Watcher.sample_tokens = 10
system, book, *flags = sys.argv[1:]
if system == "windows":
    import sitecustomize
    os.open = sitecustomize.guarded_open
def run(*words):
    try:
        main(list(words))
    except SystemExit as end:
        assert not end.code, (words, end.code)
def end_shortly():  # to draw and to look back takes longer than to train
    finish.draw_loss = finish.look_back = lambda *given: []
if system == "macos":
    end_shortly()
run("train", book, "--name", "a", *flags)
end_shortly()
run("resume", "a", "--training.max-steps", "6", "--json")
run("sample", "a", "--max-tokens", "5")
if system == "windows":  # where the processes that work on a study lack the most
    few = ("--trials", "1", "--epochs", "0.1", "--repeats", "0")
    run("tune", book, "--name", "st", *few, *flags)
"""

FLAGS = """--preset gpt2 --model.n-layers 1 --model.d-model 16 --model.n-heads 2
    --model.context-length 16 --training.batch-size 4 --training.max-steps 4
    --training.evaluation-interval 2 --device.kind cpu --device.precision float32"""


@pytest.mark.skipif(sys.platform != "linux", reason="pretends to be another system")
@pytest.mark.parametrize("system", ["macos", "windows"])
def test_the_core_runs_without_the_calls_that_a_system_does_not_have(
    system: str, book: Path, tmp_path: Path
):
    away = tmp_path / "away"
    away.mkdir()
    (away / "sitecustomize.py").write_text({"macos": MACOS, "windows": WINDOWS}[system])
    source = str(Path(folio.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", CORE, system, str(book), *FLAGS.split()],
        env=os.environ | {"PYTHONPATH": f"{away}{os.pathsep}{source}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    runs = Path(os.environ["FOLIO_RUNS"])
    assert json.loads((runs / "a" / "last.json").read_text())["step"] == 6
    assert (runs / "st" / "best.toml").exists() == (system == "windows")
