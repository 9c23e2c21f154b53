"""Processes on one machine take different GPUs; the GPUs are names here, the processes are real."""

import subprocess
import sys

from wildmerge.jobs.devices import lease, visible

TAKE = """
import sys, time
from pathlib import Path
from wildmerge.jobs.devices import lease
print(lease({"0": "GPU-a", "1": "GPU-b"}, Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def take(folder):
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_process_takes_a_gpu_of_its_own_and_a_killed_one_gives_it_back(tmp_path):
    first, second = take(tmp_path), take(tmp_path)
    taken = {process: process.stdout.readline().strip() for process in (first, second)}
    assert set(taken.values()) == {"0", "1"}
    third = take(tmp_path)
    assert "all of 2 GPUs are taken" in third.stderr.readline()
    first.kill()
    assert third.stdout.readline().strip() == taken[first]
    for process in (first, second, third):
        process.kill()
        process.communicate()


def test_the_driver_is_asked_and_cuda_visible_devices_respected(tmp_path, monkeypatch):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)'\n"
        "echo '  MIG 1g.18gb     Device  0: (UUID: MIG-cccc)'\n"
        "echo 'GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)'\n"
    )
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible() == {"0": "GPU-aaaa-1", "1": "GPU-bbbb-2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert visible() == {"1": "GPU-bbbb-2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1")
    assert visible() == {"GPU-aaaa-1": "GPU-aaaa-1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb, MIG-cccc")  # CUDA takes a beginning, too
    assert visible() == {"GPU-bb": "GPU-bbbb-2", "MIG-cccc": "MIG-cccc"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible() == {}


def test_a_lease_is_per_gpu_and_not_per_name(tmp_path):
    assert lease({"0": "GPU-a"}, tmp_path) == "0"
    assert lease({"GPU-a": "GPU-a", "1": "GPU-b"}, tmp_path) == "1"
