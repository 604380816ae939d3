from __future__ import annotations

import ctypes
import multiprocessing
import os
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from folio import device
from folio.device import Device, DeviceConfig, choose_device
from folio.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}
"""Each with the type of the weights that compute."""


def test_a_choice_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch):
    chosen = choose_device(DeviceConfig())
    assert "auto" not in (chosen.config.kind, chosen.config.precision)
    assert chosen.config.threads == torch.get_num_threads() >= 1
    assert choose_device(chosen.config).config == chosen.config


@pytest.mark.parametrize(
    ("bfloat16", "expected"), [(400.0, "bfloat16"), (110.0, "float32"), (0.5, "float32")]
)
def test_bfloat16_is_taken_where_it_is_measured_to_be_worthwhile(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, expected: str
):
    rates = {"float32": 100.0, "bfloat16": bfloat16}
    monkeypatch.setattr(device, "matrix_rate", lambda kind, precision, *shape: rates[precision])
    chosen = choose_device(DeviceConfig(kind="cpu"))
    assert chosen.config.precision == expected
    assert f"{bfloat16:.3g} GFLOP/s" in str(chosen)


def test_the_fastest_device_is_taken(monkeypatch: pytest.MonkeyPatch):
    rates = {"cpu": 100.0, "cuda": 5000.0, "mps": 50.0}
    monkeypatch.setattr(device.accelerator, "available", lambda kind: True)
    monkeypatch.setattr(device, "matrix_rate", lambda kind, *shape: rates[kind])
    assert choose_device(DeviceConfig(precision="float32")).config.kind == "cuda"


def test_float32_is_not_measured_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "matrix_rate", None)
    asked = DeviceConfig(kind="cpu", precision="float32", threads=1, fast="on")
    assert choose_device(asked).config == asked


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (400.0, "as asked"),
        (80.0, "as asked"),
        (2.0, "as asked, but float32 is 50 times as fast here"),
    ],
)
def test_what_is_asked_for_is_taken_and_said_to_be_slow_where_it_is(
    monkeypatch: pytest.MonkeyPatch, precision: Any, rate: float, reason: str
):
    rates = {"float32": 100.0, precision: rate}
    monkeypatch.setattr(device, "matrix_rate", lambda kind, precision, *shape: rates[precision])
    asked = DeviceConfig(kind="cpu", precision=precision, threads=1, fast="on")
    chosen = choose_device(asked)
    assert chosen.config == asked and chosen.reason == reason


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_is_measured(precision: str):
    assert device.matrix_rate("cpu", precision, 256, 64) > 0.01


@pytest.mark.parametrize(("pause", "largest"), [(0.0, (512, 96)), (0.005, (64, 64))])
def test_a_large_product_is_not_tried_where_a_small_one_is_slow(
    monkeypatch: pytest.MonkeyPatch, pause: float, largest: tuple[int, int]
):
    tried = []

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        tried.append(tuple(a.shape))
        time.sleep(pause)
        return a[:1, :1]

    monkeypatch.setattr(torch, "matmul", multiply)
    device.matrix_rate("cpu", "float32", 512, 96)
    assert max(tried) == largest


def test_a_processor_is_fast_with_kernels_and_a_gpu_without(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.accelerator, "available", lambda kind: True)

    def fast(kind: Any, fast: Any) -> str:
        config = DeviceConfig(kind=kind, precision="float32", fast=fast)
        return choose_device(config).config.fast

    assert [fast("cpu", given) for given in ("auto", "on", "off")] == ["on", "on", "off"]
    monkeypatch.setenv("FOLIO_JIT", "off")
    assert [fast("cuda", given) for given in ("auto", "on", "off")] == ["on", "on", "off"]
    assert fast("cpu", "auto") == "off"
    with pytest.raises(UserError, match=r"device\.fast is 'on', but .* --device\.fast off"):
        fast("cpu", "on")


def test_int8_takes_the_fast_layers():
    with pytest.raises(UserError, match=r"--device\.fast on"):
        choose_device(DeviceConfig(kind="cpu", precision="int8", fast="off"))


def test_bytes_are_for_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.accelerator, "available", lambda kind: True)
    assert choose_device(DeviceConfig(precision="int8")).config.kind == "cpu"
    with pytest.raises(UserError, match=r"'int8', which takes a processor, and .* 'cuda'"):
        choose_device(DeviceConfig(kind="cuda", precision="int8"))


def test_negative_threads_are_refused():
    with pytest.raises(UserError, match=r"device\.threads must be 0"):
        DeviceConfig(threads=-1)


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread"), (2, "2 threads")])
def test_a_single_thread_is_spoken_of_in_the_singular(threads: int, said: str):
    config = DeviceConfig(kind="cpu", precision="float32", threads=threads)
    assert str(Device(config, "as asked")) == f"cpu, float32, {said} (as asked)"


def test_the_precision_is_a_type_of_torch():
    for precision, dtype in PRECISIONS.items():
        config = DeviceConfig(kind="cpu", precision=precision, threads=1)  # type: ignore[arg-type]
        assert choose_device(config).dtype == dtype


def test_the_first_measurement_is_remembered_for_this_machine_and_torch(
    monkeypatch: pytest.MonkeyPatch,
):
    rates = {"float32": 100.0, "bfloat16": 131.0}
    monkeypatch.setattr(device, "matrix_rate", lambda kind, precision, *shape: rates[precision])
    assert choose_device(DeviceConfig(kind="cpu")).config.precision == "bfloat16"
    rates["bfloat16"] = 129.0
    assert choose_device(DeviceConfig(kind="cpu")).config.precision == "bfloat16"
    monkeypatch.setattr(torch, "__version__", "another")
    assert choose_device(DeviceConfig(kind="cpu")).config.precision == "float32"


def test_damaged_memory_of_a_measurement_is_no_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "matrix_rate", lambda *shape: 1.0)
    for damage in ("{", "[]", "3", '{"a": 1}'):
        (device.cache_folder() / "precision.json").write_text(damage)
        assert choose_device(DeviceConfig(kind="cpu")).config.precision == "float32"


GROUPS = {
    "none": ({}, 8, 64),
    "own": ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "300000 100000"}, 3, 64),
    "above": ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "150000 100000"}, 2, 64),
    "no limit": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8, 64),
    "less than one": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "5000 100000"}, 1, 64),
    "version 1": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n9:memory:/docker/x\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "7",
        },
        4,
        7,
    ),
    "version 1 without a limit": (
        {
            "proc/self/cgroup": "4:cpu:/\n9:memory:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
        8,
        64,
    ),
    "memory above": ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.high": "9"}, 8, 9),
}


@pytest.mark.parametrize("name", GROUPS)
def test_cores_and_memory_are_what_the_container_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    files, n_cores, n_bytes = GROUPS[name]
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 16, "SC_PAGE_SIZE": 4}.__getitem__)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert device.cores(tmp_path) == n_cores and device.machine_memory(tmp_path) == n_bytes
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    assert device.cores(tmp_path) == 1


def test_windows_is_asked_for_its_memory_which_is_else_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Windows:
        """MEMORYSTATUSEX, by its documentation."""

        tells = 1

        def GlobalMemoryStatusEx(self, pointer: Any) -> int:  # noqa: N802
            size, _, total = struct.unpack_from("<IIQ", pointer._obj)
            assert size == 64 and not total
            struct.pack_into("<IIQ", pointer._obj, 0, size, 40, 8 << 30)
            return self.tells

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    kernel32 = Windows()
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    assert device.machine_memory(tmp_path) == 8 << 30
    kernel32.tells = 0
    assert device.machine_memory(tmp_path) == device.UNKNOWN_MEMORY


def test_cores_are_counted_where_nothing_but_their_number_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert device.cores(tmp_path) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="others do not fork")
def test_a_fork_of_a_process_that_computed_computes_on_one_thread():
    def compute() -> None:
        assert choose_device(DeviceConfig(kind="cpu", threads=2)).config.threads == 1
        torch.rand(1_000_000).exp().sum()

    threads = torch.get_num_threads()
    assert choose_device(DeviceConfig(kind="cpu", threads=2)).config.threads == 2
    torch.rand(1_000_000).exp().sum()  # from here on OpenMP has threads
    fork = multiprocessing.get_context("fork").Process(target=compute)
    fork.start()
    try:
        fork.join(30)
        assert fork.exitcode == 0
    finally:
        fork.kill()
        torch.set_num_threads(threads)
