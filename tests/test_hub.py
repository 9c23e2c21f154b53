"""The hub's bad days: a fault is outlasted or ends in one line, and no file is half there.

The real huggingface_hub client talks to a hub on a loopback port (tests/hub_server.py).
"""

import contextlib
import json
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.utils import WeakFileLock

from hub_server import STRANGER, TOKEN, XET_TOKEN, HubServer
from wildmerge.errors import Refusal
from wildmerge.hub import retries
from wildmerge.hub.downloading import fetch, has_digest
from wildmerge.hub.references import describe, folder_of, is_hub, no_folder
from wildmerge.hub.resolving import resolve, resolve_all, resolve_dataset
from wildmerge.storage.files import sha256_of

WEIGHTS = "/model.safetensors"
SLEEP = time.sleep


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, and the client in this process set to it with an empty cache and without a token."""
    with HubServer() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(retries, "PAUSES", (0.01,) * 3)
        monkeypatch.setattr(time, "sleep", lambda seconds: SLEEP(min(seconds, 0.01)))
        yield server


@pytest.fixture
def model(tiny):
    """The files of a small checkpoint, weights of 35 kB among them."""
    return {path.name: path.read_bytes() for path in tiny.base.iterdir()}


def arrived(folder: Path, files: dict[str, bytes]) -> bool:
    """Return whether a folder holds exactly these files, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} == files


def nothing_partial_counts(tmp_path: Path) -> bool:
    """Return whether every file that has its final name in the cache has the digest of that name."""
    blobs = [b for b in tmp_path.glob("cache/*/blobs/*") if b.suffix != ".incomplete"]
    return all(has_digest(blob, blob.name) for blob in blobs)


# --- what is locked and fetched -------------------------------------------------------------------


def test_a_locked_repository_is_described_without_its_weights(hub, model):
    commit = hub.add("org/base", model)
    entry = resolve("org/base")
    assert entry["identity"] == f"org/base@{commit}"
    assert entry["config"]["model_type"] == "llama"
    assert entry["tensors"]["model.norm.weight"] == ["BF16", [32]]
    assert {n: f["size"] for n, f in entry["files"].items()} == {
        n: len(d) for n, d in model.items()
    }
    asked = [request for request in hub.requests if WEIGHTS in request]
    assert asked and all(request.endswith("bytes=0-100000") for request in asked)
    with pytest.raises(Refusal, match=f"not fetched; run `wildmerge fetch org/base@{commit}`"):
        folder_of("org/base", entry)


def test_a_fetched_checkpoint_is_the_hub_s_own_cache(hub, model):
    hub.add("org/base", model)
    entry = resolve("org/base")
    fetch(entry)
    folder = folder_of("org/base", entry)
    assert arrived(folder, model)
    assert {n: sha256_of(folder / n) for n in model} == {
        name: file["sha256"] for name, file in entry["files"].items()
    }
    assert describe(folder).items() <= entry.items()
    cache = scan_cache_dir(constants.HF_HUB_CACHE)  # huggingface_hub's own view of it
    assert not cache.warnings
    assert cache.size_on_disk == sum(map(len, model.values()))
    before = len(hub.requests)
    fetch(entry)
    assert len(hub.requests) == before


def test_the_locked_commit_is_fetched_after_the_repository_moved(hub, model):
    hub.add("org/base", model)
    entry = resolve("org/base")
    hub.add("org/base", model | {"config.json": b'{"model_type": "other"}'})
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)
    assert resolve("org/base")["config"] == {"model_type": "other"}
    assert resolve(entry["identity"]) == entry


def test_a_data_set_is_known_by_its_commit(hub):
    first = hub.add("org/questions", {"test.jsonl": b"{}"}, kind="datasets")
    hub.fault("/api/datasets/", status=503)
    assert resolve_dataset("org/questions") == first
    second = hub.add("org/questions", {"test.jsonl": b"[]"}, kind="datasets", gated=True)
    assert resolve_dataset("org/questions") == second != first
    assert resolve_dataset("org/questions", first) == first
    hub.add("org/old", {}, kind="datasets", moved_to="org/questions")
    assert resolve_dataset("org/old") == second
    with pytest.raises(
        Refusal, match="^datasets/org/no: neither .*huggingface.co/datasets/org/no "
    ):
        resolve_dataset("org/no")


def test_a_renamed_repository_is_found_under_its_old_name(hub, model):
    commit = hub.add("org/new", model)
    hub.add("org/old", {}, moved_to="org/new")
    entry = resolve("org/old")
    fetch(entry)
    assert entry["identity"] == f"org/old@{commit}"
    assert arrived(folder_of("org/old", entry), model)


def test_only_what_is_needed_is_fetched(hub, model):
    clutter = ["consolidated.00.pth", "model.gguf", "modeling.py", "tokenizer_fast.py", "x.png"]
    clutter += ["original/model.safetensors", "pytorch_model.bin", ".gitattributes", "onnx/m.bin"]
    hub.add("org/base", model | dict.fromkeys(clutter, b"clutter"))
    assert set(resolve("org/base")["files"]) == set(model)


def test_shards_are_those_of_the_index_or_of_their_names(hub, model):
    config = model["config.json"]
    shards = {f"model-0000{i}-of-00002.safetensors": one_tensor(f"w{i}") for i in (1, 2)}
    weight_map = dict(zip(["w1", "w2"], shards, strict=True))
    index = {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}
    hub.add("org/index", {"config.json": config, **shards, **index, "adapter.safetensors": b"no"})
    hub.add("org/names", {"config.json": config, **shards})
    assert set(resolve("org/index")["files"]) == {"config.json", *shards, *index}
    assert set(resolve("org/names")["files"]) == {"config.json", *shards}
    assert set(resolve("org/index")["tensors"]) == {"w1", "w2"}
    hub.add("org/half", {"config.json": config, **dict(list(shards.items())[:1]), **index})
    with pytest.raises(Refusal, match="org/half: holds no whole checkpoint"):
        resolve("org/half")


def test_an_adapter_is_locked_by_its_own_config(hub):
    adapter = {"adapter_config.json": b'{"peft_type": "LORA"}'}
    adapter["adapter_model.safetensors"] = one_tensor("a.lora_A.weight")
    hub.add("org/lora", adapter)
    entry = resolve("org/lora")
    assert entry["config"] == {"peft_type": "LORA"}
    assert entry["tensors"] == {"a.lora_A.weight": ["F32", [2]]}


def test_weights_without_a_header_are_downloaded_to_be_described(hub, tmp_path):
    torch.save({"w": torch.ones(2, 3, dtype=torch.float16)}, tmp_path / "pytorch_model.bin")
    weights = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.add("org/bin", {"config.json": b'{"model_type": "x"}', "pytorch_model.bin": weights})
    entry = resolve("org/bin")
    assert entry["tensors"] == {"w": ["F16", [2, 3]]}
    assert set(entry["files"]) == {"config.json", "pytorch_model.bin"}
    assert folder_of("org/bin", entry).is_dir()


def one_tensor(name: str) -> bytes:
    from safetensors.torch import save

    return save({name: torch.ones(2)}, metadata={"format": "pt"})


def test_names_that_exist_as_folders_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org/mine").mkdir(parents=True)
    assert is_hub("one/name") and is_hub("org/name@v1.0") and is_hub("Org/n-a.m_e@refs/pr/1")
    for name in (
        "org/mine",
        "results/base",
        "./a/b",
        "/a/b",
        "~/a",
        "name",
        "a/b/c",
        "a/..",
        "../a",
    ):
        assert not is_hub(name), name
    assert folder_of("org/mine") == Path("org/mine")


def test_a_folder_that_is_missing_among_others_is_no_hub_id(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("experts/math").mkdir(parents=True)
    Path("study/others").mkdir(parents=True)
    assert not is_hub("experts/science")
    assert is_hub("others/science") and not is_hub("others/science", Path("study"))
    with pytest.raises(Refusal) as refused:
        resolve("experts/science")
    assert str(refused.value) == (
        f"experts/science: no such folder in {tmp_path}; check the path, or write "
        "experts/science@main for a repository of the hub"
    )
    assert no_folder("others/x", Path("study")).startswith(
        f"others/x: no such folder in {tmp_path} or in {tmp_path / 'study'}; check"
    )
    assert not hub.requests


# --- faults that are outlasted --------------------------------------------------------------------


@pytest.mark.parametrize("part", ["/api/models/", "/config.json", WEIGHTS])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(hub, model, part, status):
    hub.add("org/base", model)
    hub.fault(part, status=status, times=3, retry_after=0)
    entry = resolve("org/base")
    hub.fault(part, status=status, times=2)
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)


def test_the_pause_that_the_hub_asks_for_is_kept(hub, model, monkeypatch):
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    hub.add("org/base", model)
    hub.fault("/api/models/", status=429, retry_after=7)
    resolve("org/base")
    assert pauses == [7]
    hub.fault("/api/models/", status=429, retry_after=7200)
    with pytest.raises(Refusal, match="the hub answered 429"):
        resolve("org/base")


def test_a_cut_download_goes_on_where_it_was(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add("org/base", model)
    entry = resolve("org/base")
    hub.fault(WEIGHTS, cut_after=5000, times=4)  # more often than there are tries
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)
    starts = [int(m[1]) for r in hub.requests if (m := re.search(r"Signature.*=(\d+)-$", r))]
    assert {5000, 10000, 15000, 20000} <= set(starts)


def test_an_aborted_connection_is_made_anew(hub, model):
    hub.add("org/base", model)
    hub.fault(WEIGHTS, cut_after=500, times=2, reset=True)
    entry = resolve("org/base")
    hub.fault(WEIGHTS, cut_after=500, times=2, reset=True)
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)


def test_a_download_that_failed_leaves_nothing_partial_and_whole_files_stay(hub, model, tmp_path):
    hub.add("org/base", model)
    entry = resolve("org/base")
    hub.fault(WEIGHTS, cut_after=9000)
    hub.fault(WEIGHTS, cut_after=0, times=100)
    with pytest.raises(
        Refusal, match=r"^org/base: no connection \(.*\) at .*; run the same command"
    ):
        fetch(entry)
    assert nothing_partial_counts(tmp_path)
    assert not list(tmp_path.glob("cache/**/*.incomplete"))
    with pytest.raises(Refusal, match="not fetched"):
        folder_of("org/base", entry)
    hub.faults.clear()
    before = len(hub.requests)
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)
    assert all(WEIGHTS in request for request in hub.requests[before:])


def test_two_fetches_at_once_download_every_file_once(hub, model):
    hub.add("org/base", model)
    entry = resolve("org/base")
    before = len(hub.requests)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(fetch, entry) for _ in range(2)]:
            done.result()
    assert arrived(folder_of("org/base", entry), model)
    whole = [request for request in hub.requests[before:] if request.startswith("GET")]
    assert len(whole) == len(set(whole)) > 0


# --- faults that end in one line ------------------------------------------------------------------


def test_wrong_bytes_are_removed(hub, model, tmp_path):
    hub.add("org/base", model)
    entry = resolve("org/base")
    hub.fault(WEIGHTS, corrupt=True)
    with pytest.raises(Refusal, match="model.safetensors.*other bytes than locked and was removed"):
        fetch(entry)
    assert nothing_partial_counts(tmp_path)
    assert not list(tmp_path.glob("cache/**/*.incomplete"))
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)


def test_wrong_bytes_that_another_program_left_are_replaced(hub, model):
    hub.add("org/base", model)
    entry = resolve("org/base")
    fetch(entry)
    weights = folder_of("org/base", entry) / "model.safetensors"
    weights.write_bytes(bytes(len(model["model.safetensors"])))
    fetch(entry)
    assert arrived(folder_of("org/base", entry), model)
    shutil.rmtree(folder_of("org/base", entry).parent)
    fetch(entry)  # from the blobs that are still there
    assert arrived(folder_of("org/base", entry), model)


def test_a_hub_that_stays_down_is_one_line(hub, model):
    hub.add("org/base", model)
    hub.fault("/api/models/", status=503, times=100)
    with pytest.raises(
        Refusal, match=f"^org/base: the hub answered 503 at {hub.url}; run the same"
    ):
        resolve("org/base")
    assert hub.asked("/api/models/") == 4


def test_a_store_of_large_files_that_fails_is_one_line(hub, model):
    """Real hubs keep large files in Xet, which hf_xet reads; that one fails in words of its own."""
    hub.add("org/base", model, xet=True)
    entry = resolve("org/base")
    with pytest.raises(Refusal, match="^org/base: no connection .*; run the same") as refused:
        fetch(entry)
    assert hub.asked("/reconstructions/") >= 1
    assert XET_TOKEN not in str(refused.value)


def test_no_hub_at_all_is_one_line(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        Refusal,
        match=r"^org/base: no connection \(ConnectError\).*if a folder is meant, there is none",
    ):
        resolve("org/base")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Refusal, match="^org/base: HF_HUB_OFFLINE is set"):
        resolve("org/base")


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        (
            "org/gated",
            "",
            "accept its licence on https://huggingface.co/org/gated and set HF_TOKEN",
        ),
        ("org/gated", STRANGER, "accept its licence on https://huggingface.co/org/gated with the"),
        ("org/private", "", "neither a folder here nor a repository .* set HF_TOKEN"),
        ("org/private", STRANGER, "neither a folder here nor a repository"),
        ("org/nothing", TOKEN, "neither a folder here nor a repository"),
        ("org/gated@v9", TOKEN, "no such revision; see https://huggingface.co/org/gated/commits"),
        ("org/gated", "hf_expired", "the hub does not accept your token"),
        ("org/gated", "hf_ünsendable", "HF_TOKEN: holds characters"),
        ("org/empty", TOKEN, "holds no whole checkpoint"),
        ("org/broken", TOKEN, "model.safetensors has no safetensors header"),
        ("org/index", TOKEN, "model.safetensors.index.json: not a weight index"),
    ],
)
def test_what_may_not_be_had_is_one_line(hub, monkeypatch, repo, token, message):
    model = {"config.json": b"{}", "model.safetensors": one_tensor("w")}
    hub.add("org/gated", model, gated=True)
    hub.add("org/private", model, private=True)
    hub.add("org/empty", {"config.json": b"{}", "README.md": b"soon"})
    hub.add("org/broken", {"config.json": b"{}", "model.safetensors": b"not one of these"})
    hub.add("org/index", {"config.json": b"{}", "model.safetensors.index.json": b"[]"})
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Refusal, match=message) as refused:
        resolve(repo)
    assert "\n" not in str(refused.value)
    assert not token or token not in str(refused.value)


def test_every_repository_that_fails_is_named_and_the_others_are_fetched(hub, model):
    hub.add("org/base", model)
    hub.add("org/gated", model, gated=True)
    with pytest.raises(Refusal, match="org/nothing: .*; org/gated: gated"):
        resolve_all(["org/nothing", "org/base", "org/gated"])
    hub.add("org/expert", model | {"README.md": b"mine"})
    entries = resolve_all(["org/base", "org/expert"])
    hub.fault(f"org/base/{entries['org/base']['commit']}{WEIGHTS}", status=403)
    with pytest.raises(Refusal, match="^org/base: your token may not read it") as refused:
        fetch(*entries.values())
    assert "org/expert" not in str(refused.value)
    assert arrived(folder_of("org/expert", entries["org/expert"]), model | {"README.md": b"mine"})


@pytest.mark.parametrize("source", ["environment", "login"])
def test_an_access_token_reaches_the_hub_and_nothing_else(
    hub, model, tmp_path, monkeypatch, source
):
    if source == "environment":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (tmp_path / "login").write_text(TOKEN)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "login"))
    hub.add("org/gated", model, gated=True)
    hub.fault(WEIGHTS, cut_after=100, times=2)
    entry = resolve("org/gated")
    fetch(entry)
    assert arrived(folder_of("org/gated", entry), model)
    assert hub.asked("Signature=") > 2 and not hub.secrets_at_cdn
    assert TOKEN not in json.dumps(entry)
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    assert {p.name for p in files if TOKEN in p.read_text("latin-1")} <= {"login"}


def test_a_full_disk_is_said_before_anything_is_fetched(hub, model, monkeypatch):
    hub.add("org/base", model)
    entry = resolve("org/base")
    before = len(hub.requests)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 9))
    with pytest.raises(
        Refusal, match="are to be fetched and .* free; free some or set HF_HUB_CACHE"
    ):
        fetch(entry)
    assert len(hub.requests) == before


# --- many processes, and killed ones --------------------------------------------------------------


def test_fetches_at_once_do_not_count_the_same_free_disk_twice(hub, model, tmp_path, monkeypatch):
    """Two checkpoints of which the disk holds one: one is whole, the other is refused beforehand."""
    hub.add("org/one", model)
    hub.add("org/two", model | {"README.md": b"another"})
    entries = [resolve("org/one"), resolve("org/two")]
    both_look = threading.Barrier(2)

    def used():
        return sum(path.stat().st_size for path in tmp_path.glob("cache/*/blobs/*"))

    large = len(model["model.safetensors"]) + len(model["tokenizer.json"])
    capacity = used() + large * 3 // 2

    def disk(path):
        free = capacity - used()
        with contextlib.suppress(threading.BrokenBarrierError):
            both_look.wait(0.5)
        return shutil._ntuple_diskusage(capacity, used(), free)

    monkeypatch.setattr(shutil, "disk_usage", disk)
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(fetch, entry) for entry in entries]
    refusals = [str(task.exception()) for task in tasks if task.exception()]
    assert len(refusals) == 1 and "are to be fetched" in refusals[0]
    assert len([*tmp_path.glob("cache/*/snapshots/*/model.safetensors")]) == 1


def test_what_killed_downloads_left_is_removed_and_what_lives_stays(hub, model, tmp_path):
    hub.add("org/base", model)
    entry = resolve("org/base")
    blobs = tmp_path / "cache/models--org--base/blobs"
    names = {"dead": 0, "locked": 0, "just-written": time.time()}
    for digest, written in names.items():
        partial = blobs / f"{digest}.0123abcd.incomplete"
        partial.touch()
        os.utime(partial, (written, written))
    with WeakFileLock(tmp_path / "cache/.locks/models--org--base/locked.lock"):
        fetch(entry)
    left = {path.name.split(".")[0] for path in blobs.glob("*.incomplete")}
    assert left == {"locked", "just-written"}


def test_a_file_is_on_the_disk_before_a_mark_says_so(hub, model, monkeypatch):
    hub.add("org/base", model)
    entry = resolve("org/base")
    flushed = set()

    def record(file):
        flushed.add(Path(os.readlink(f"/proc/self/fd/{file}")).name)

    monkeypatch.setattr(os, "fsync", record)
    fetch(entry)
    assert entry["files"]["model.safetensors"]["sha256"] in flushed
