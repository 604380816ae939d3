"""What the files of examples/cluster would run; small scripts play the schedulers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from folio.store.making import Part
from tests.test_docs_commands import parse

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the files are for clusters")
FILES = Path(__file__).parents[1] / "examples" / "cluster"
SRUN = """
while [ "$1" != bash ]; do shift; done
code=0
for SLURM_PROCID in 2 3; do
    export SLURM_PROCID SLURM_LOCALID=$((SLURM_PROCID - 2))
    "$@" || code=$?
done
exit $code
"""
SCONTROL = """
if [ "$1" = show ]; then printf 'first\\nsecond\\n'; else echo "scontrol $*" >> "$CALLS"; fi
"""
FOLIO = """
echo "RANK=$RANK LOCAL_RANK=$LOCAL_RANK $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT" >> "$CALLS"
printf '%q ' "$@" >> "$CALLS"
echo >> "$CALLS"
exit $CODE
"""


def calls_of(command: list[str], folder: Path, code: int = 0, **variables: str) -> list[str]:
    """The lines that the players of a command wrote, where `folio` leaves with `code`."""
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL), ("folio", FOLIO)):
        (folder / name).write_text(f"#!/bin/bash{script}")
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    own = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "CODE": str(code)}
    done = subprocess.run(command, env=own | variables, capture_output=True, text=True)
    assert done.returncode == code and not done.stderr, done
    return calls.read_text().splitlines()


SLURM = {
    "FOLIO_RUNS": "/shared/runs",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_JOB_ID": "4321",
    "SLURM_JOB_NAME": "folio",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_CPUS_PER_TASK": "8",
}


@pytest.mark.parametrize("code", [0, 75, 2])
def test_a_training_under_slurm_has_its_ranks_and_goes_back_into_the_queue_if_it_was_interrupted(
    code: int, tmp_path: Path
):
    given = ["my text.txt", "--training.max-tokens", "10000000", "--training.save-minutes", "10"]
    command = ["bash", str(FILES / "train.sbatch"), *given]
    first, words, second, same, *after = calls_of(command, tmp_path, code, **SLURM)
    assert first == "RANK=2 LOCAL_RANK=0 4 at first:24321"
    assert second == "RANK=3 LOCAL_RANK=1 4 at first:24321" and same == words
    assert shlex.split(words) == ["train", *given, "--name", "folio-4321"]
    parse(shlex.split(words))
    assert after == (["scontrol requeue 4321"] if code == 75 else [])


def test_a_part_of_an_array_encodes_its_shards(tmp_path: Path):
    command = ["bash", str(FILES / "tokens.sbatch"), "crawl/", "--into", "store"]
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MAX": "40", "SLURM_CPUS_PER_TASK": "8"}
    for variables, part in ((array, "7/40"), (array | {"PARTS": "50"}, "7/50")):
        *_, words = calls_of(command, tmp_path, **variables)
        assert shlex.split(words)[-2:] == ["--part", part]
        parse(shlex.split(words))
        assert Part.parse(part)


def objects_of(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return [*yaml.safe_load_all((FILES / name).read_text(encoding="utf-8"))]


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_the_pods_of_a_job_encode_all_parts(tmp_path: Path):
    (job,) = objects_of("tokens-job.yaml")
    container, n = container_of(job), job["spec"]["completions"]
    for index in (0, n - 1):
        command = [*container["command"], *container["args"]]
        *_, words = calls_of(command, tmp_path, JOB_COMPLETION_INDEX=str(index))
        assert shlex.split(words)[-2:] == ["--part", f"{index + 1}/{n}"]
        parse(shlex.split(words))


def test_the_pods_of_a_job_train_together(tmp_path: Path):
    service, job = objects_of("train-job.yaml")
    name, container = job["metadata"]["name"], container_of(job)
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    command = [*container["command"], *container["args"]]
    told, words = calls_of(command, tmp_path, JOB_COMPLETION_INDEX="3", **variables)
    n, address = job["spec"]["completions"], f"{name}-0.{service['metadata']['name']}"
    assert told == f"RANK=3 LOCAL_RANK= {n} at {address}:29500"
    assert job["spec"]["parallelism"] == n
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    parse(shlex.split(words))


def test_the_pods_of_the_operator_train_alike():
    (job,) = objects_of("train-pytorchjob.yaml")
    leader, others = job["spec"]["pytorchReplicaSpecs"].values()
    assert leader["template"] == others["template"]
    program, *words = container_of({"spec": leader})["command"]
    assert program == "folio"
    parse(words)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("path", sorted(FILES.glob("*.sbatch")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path):
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
