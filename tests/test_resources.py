"""What jobs ask for follows from the sizes in the lock and grows with every attempt."""

from wildmerge.jobs.resources import checkpoint_bytes, machine, memory_mb, minutes
from wildmerge.planning.lock import Lock


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
