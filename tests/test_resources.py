"""What jobs ask for follows from the sizes in the lock and grows with every attempt."""

import psutil
import pytest

from wildmerge.jobs.resources import checkpoint_bytes, machine, memory_mb, minutes
from wildmerge.planning.lock import Lock
from wildmerge.scoring.memory import available_bytes, total_bytes


def test_a_job_asks_for_a_multiple_of_its_model_and_for_more_after_each_failure():
    files = {"a.safetensors": {"size": 9_000_000_000}, "b.safetensors": {"size": 7_000_000_000}}
    size = checkpoint_bytes(Lock({"org/8b": {"files": files}}, {}), "org/8b")
    assert size == 16_000_000_000
    assert memory_mb(size) > 2 * size / 1e6  # bfloat16, scored in float32
    assert memory_mb(size, attempt=3) == 3 * memory_mb(size)
    assert minutes(size, models=8) > 8 * 60
    assert minutes(size, attempt=2, models=8) == 2 * minutes(size, models=8)


def test_the_machine_has_memory_and_no_gpu_that_is_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine()["mem_mb"] > 500
    assert machine()["gpu"] == 0


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_that_of_the_control_group_a_job_runs_in(tmp_path, version):
    """As SLURM and containers set it: the limit stands at the job, the process in a step below."""
    limit, usage, cache = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    top = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    for group, most in (("job", 64 << 20), ("job/step", 2**63 - 4096 if version == 1 else "max")):
        (top / group).mkdir(parents=True)
        (top / group / limit).write_text(f"{most}\n")
        (top / group / usage).write_text(f"{24 << 20}\n")
        (top / group / "memory.stat").write_text(f"anon 5\n{cache} {8 << 20}\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    controller = "5:cpu,memory:" if version == 1 else "0::"
    (tmp_path / "proc/self/cgroup").write_text(f"9:name=systemd:/\n{controller}/job/step\n")
    assert total_bytes(tmp_path) == 64 << 20
    assert available_bytes(tmp_path) == (64 - 24 + 8) << 20  # cached files make room


def test_memory_without_a_limit_is_what_the_machine_has_available(tmp_path):
    assert total_bytes(tmp_path) == psutil.virtual_memory().total
    assert available_bytes(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
