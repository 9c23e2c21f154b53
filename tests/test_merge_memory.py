"""A merge needs memory for one tensor, not for a stack of them, and survives a disk that is full."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wildmerge.checkpoints.writer import Writer
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe

ROWS, COLUMNS, EXPERTS = 16_000, 1024, 12
PAGE = 4096
TENSOR_BYTES = ROWS * COLUMNS * 4  # one task vector in float32: 65 MB

MEASURE = """
import json, sys, threading, time
from pathlib import Path
import torch
from wildmerge.merging import card, engine
from wildmerge.vectors import loops
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024

peak = start = anonymous()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
merge(Recipe(**json.loads(sys.argv[1])), Path(sys.argv[2]), threads=2, progress=False)
done.set()
watcher.join()
print(peak - start)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """One embedding with twelve experts."""
    root = tmp_path_factory.mktemp("wide")
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(ROWS, COLUMNS, generator=generator)).bfloat16()
    noise = 5e-4 * torch.randn(ROWS + EXPERTS, COLUMNS, generator=generator)
    folders = [root / "base", *(root / f"expert{i}" for i in range(EXPERTS))]
    for index, folder in enumerate(folders):
        weights = base if index == 0 else (base.float() + noise[index : index + ROWS]).bfloat16()
        folder.mkdir()
        save_file({"model.embed_tokens.weight": weights}, folder / "model.safetensors")
        config = {"model_type": "llama", "tie_word_embeddings": True}
        (folder / "config.json").write_text(json.dumps(config))
    return [str(folder) for folder in folders]


def as_recipe(wide, method, **parameters):
    content = {"base": wide[0], "experts": wide[1:], "method": method, "parameters": parameters}
    return json.dumps(content)


@pytest.mark.parametrize(
    ("method", "tensors"), [("task_arithmetic", 0), ("ties", 0), ("model_stock", 1)]
)
def test_twelve_experts_need_memory_for_a_tensor_or_two(method, tensors, wide, tmp_path):
    command = [sys.executable, "-c", MEASURE, as_recipe(wide, method), str(tmp_path / "merged")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < (tensors + 1.5) * TENSOR_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("size", ["1m", "33m"])
def test_a_full_disk_is_one_clear_line_and_nothing_under_the_final_name(size, wide, tmp_path):
    """Once there is no room for the weights, once none for what follows them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(as_recipe(wide[:3], "task_arithmetic"))
        if size == "33m":  # leave room for the weights and one page more
            weights = -(-(ROWS * COLUMNS * 2 + 1) // PAGE) * PAGE
            (disk / "ballast").write_bytes(b"\0" * (33 * 2**20 - weights - PAGE))
        command = [sys.executable, "-m", "wildmerge.cli", "merge", str(recipe), "--device", "cpu"]
        done = subprocess.run(
            [*command, "--out", disk / "merged"], check=False, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"wildmerge: {disk / 'merged'}: No space left on device; free"
        )
        assert done.stderr.count("\n") == 1
        assert not (disk / "merged").exists()
        assert not list(disk.glob(".merged*")), "what was begun is removed"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_sigkill_at_twenty_random_moments(wide, tmp_path):
    """Never a folder under the final name that is not the whole model; the next run cleans up."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "o" / "merged"
    recipe.write_text(as_recipe(wide, "ties"))
    command = [sys.executable, "-m", "wildmerge.cli", "merge", str(recipe), "--out", str(out)]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - started
    complete = (out / "model.safetensors").read_bytes()
    moments = np.random.default_rng(0)
    killed = 0
    while killed < 20:
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * moments.uniform(0.2, 1.0))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if out.exists():
            assert (out / "model.safetensors").read_bytes() == complete
            assert (out / "config.json").exists() and (out / "merge_report.json").exists()
    subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
    assert [entry.name for entry in out.parent.iterdir()] == ["merged"]


def test_a_written_file_is_a_valid_one(tmp_path):
    """Tensors of several dtypes, written in pieces and out of order."""
    layout = {"a": ("BF16", (3, 50)), "b": ("F32", (7,)), "c": ("I64", (2,))}
    writer = Writer(tmp_path, layout)
    values = torch.arange(150, dtype=torch.float32)
    writer.write("a", 60, values[60:])
    writer.write("b", 0, values[:7])
    writer.write("a", 0, values[:60])
    writer.write("c", 0, torch.tensor([4, 5]))
    writer.close()
    found = load_file(Path(tmp_path) / "model.safetensors")
    assert torch.equal(found["a"], values.bfloat16().reshape(3, 50))
    assert torch.equal(found["b"], values[:7]) and found["c"].tolist() == [4, 5]


def test_a_merge_that_fails_flushes_nothing_that_it_removes(tiny, tmp_path, monkeypatch):
    """SIGTERM comes half a minute before SIGKILL; flushing shards takes longer than that."""
    flushed = []

    def record(file):
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))

    monkeypatch.setattr(os, "fsync", record)
    expert = tmp_path / "expert"
    shutil.copytree(tiny.experts[0], expert)
    values = {"base": str(tiny.base), "method": "task_arithmetic"}
    whole = Recipe(experts=(str(tiny.experts[1]), str(expert)), **values)
    merge(whole, tmp_path / "whole", progress=False)
    assert any(name.endswith(".safetensors") for name in flushed)
    flushed.clear()
    tensors = load_file(expert / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, expert / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refusal, match="model.norm.weight"):
        merge(whole, tmp_path / "out", progress=False)
    assert not flushed
