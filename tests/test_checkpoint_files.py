"""The same weights in every form that people save them in; forms that cannot be trusted are refused."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from test_adapters import PLAIN, make_adapter
from wild import mean_of, merged, refusal, weights
from wildmerge.checkpoints.files import model_files
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.errors import Refusal


def split(tensors, parts):
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[i::parts]} for i in range(parts)]


def as_bin(folder):
    torch.save(weights(folder), folder / "pytorch_model.bin")


def as_bin_of_parameters(folder):
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in weights(folder).items()}
    torch.save(parameters, folder / "pytorch_model.bin")


def as_bin_shards(folder):
    as_shards(folder, "pytorch_model-{:05d}-of-00003.bin", torch.save)


def as_indexed_bin_shards(folder):
    as_shards(folder, "part{}.bin", torch.save, "pytorch_model.bin.index.json")


def as_safetensors_shards(folder):
    as_shards(folder, "model-{:05d}-of-00003.safetensors", save_file)
    save_file({"x": torch.ones(1)}, folder / "consolidated.safetensors")


def as_indexed_safetensors_shards(folder):
    as_shards(folder, "part{}.safetensors", save_file, "model.safetensors.index.json")


def as_oddly_named_safetensors(folder):
    save_file(weights(folder), folder / "weights.safetensors")


def as_shards(folder, pattern, save, index=None):
    weight_map = {}
    for i, part in enumerate(split(weights(folder), 3)):
        save(part, folder / pattern.format(i + 1))
        weight_map |= dict.fromkeys(part, pattern.format(i + 1))
    if index:
        (folder / index).write_text(json.dumps({"weight_map": weight_map}))


FORMS = (
    as_bin,
    as_bin_of_parameters,
    as_bin_shards,
    as_indexed_bin_shards,
    as_safetensors_shards,
    as_indexed_safetensors_shards,
    as_oddly_named_safetensors,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_weights_merges_alike(form, tiny, tmp_path):
    folders = [shutil.copytree(f, tmp_path / f.name) for f in (tiny.base, *tiny.experts[:2])]
    for folder in folders[:2]:
        form(folder)
        (folder / "model.safetensors").unlink()
    ours, _ = merged(mean_of(tiny, *folders[1:], base=str(folders[0])), tmp_path / "out")
    plain, _ = merged(mean_of(tiny, *tiny.experts[:2]), tmp_path / "plain")
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_a_single_file_goes_before_the_index_of_an_earlier_save(tiny, tmp_path):
    """As transformers, which scores, would load it."""
    folder = shutil.copytree(tiny.experts[0], tmp_path / "twice")
    as_shards(
        folder, "model-{:05d}-of-00003.safetensors", save_file, "model.safetensors.index.json"
    )
    shutil.copy(tiny.experts[1] / "model.safetensors", folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    opened = open_checkpoint(folder)
    assert all(torch.equal(opened[name], loaded[name]) for name in opened.tensors)


def test_a_tensor_in_two_files_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "bad")
    as_indexed_safetensors_shards(folder)
    (folder / "model.safetensors").unlink()
    save_file(weights(tiny.base), folder / "part2.safetensors")
    message = refusal(mean_of(tiny, folder), tmp_path / "out")
    assert "part2.safetensors: tensor" in message and "stands in part1.safetensors too" in message


def test_an_index_that_leaves_its_folder_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "bad")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(weights(tiny.base), "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside of the folder" in refusal(mean_of(tiny, folder), tmp_path / "out")


@pytest.mark.parametrize("kind", ["safetensors", "bin", "adapter"])
def test_a_file_that_changes_while_it_is_read_is_refused(kind, tiny, tmp_path):
    """At the same size and time; a method of one's own does it here, in the middle of the merge."""
    folder = shutil.copytree(tiny.experts[0], tmp_path / "expert")
    file = folder / "model.safetensors"
    if kind == "bin":
        as_bin(folder)
        file.unlink()
        file = folder / "pytorch_model.bin"
    if kind == "adapter":
        make_adapter(tiny.base, tmp_path / "lora", **PLAIN)
        folder, file = tmp_path / "lora", tmp_path / "lora/adapter_model.safetensors"
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/overwriting.py").write_text(OVERWRITING.format(file=str(file)))
    recipe = mean_of(tiny, folder, tiny.experts[1], method="overwriting")
    said = refusal(recipe, tmp_path / "out", method_folders=[tmp_path / "methods"])
    assert f"{file}: was changed while it was read" in said


OVERWRITING = '''"""The mean, and one byte of an input overwritten in place."""

import os

from wildmerge.vectors.task_vectors import Sum, TaskVectors


def overwriting(vectors: TaskVectors) -> Sum:
    """The mean."""
    state = os.stat({file!r})
    with open({file!r}, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    os.utime({file!r}, ns=(state.st_atime_ns, state.st_mtime_ns))
    return Sum(1 / len(vectors))
'''


def test_a_git_pointer_is_no_checkpoint(tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "bad")
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\nsize 1\n"
    )
    assert "git lfs pull" in refusal(mean_of(tiny, folder), tmp_path / "out")


def test_weights_one_level_down_are_pointed_to(tiny, tmp_path):
    shutil.copytree(tiny.experts[0], tmp_path / "run/checkpoint-12")
    shutil.copytree(tiny.experts[0], tmp_path / "run/checkpoint-24")
    (tmp_path / "run/logs").mkdir()
    message = refusal(mean_of(tiny, tmp_path / "run"), tmp_path / "out")
    assert "in its folders checkpoint-12, checkpoint-24; give one of those" in message


def test_a_checkpoint_is_the_files_that_are_read(tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "expert")
    as_indexed_safetensors_shards(folder)
    (folder / "model.safetensors").unlink()
    before = model_files(folder)
    for stray in ("optimizer.pt", "training_args.bin", "README.md", "notes.txt", ".DS_Store"):
        (folder / stray).write_text("a stray file")
    names = {path.name for path in model_files(folder)}
    assert model_files(folder) == before
    assert {"config.json", "tokenizer.json", "part1.safetensors"} <= names
    assert "model.safetensors.index.json" in names


HEADERS = {
    "a range that is not shape times dtype": {"a": (3, 0, 8)},
    "ranges that overlap": {"a": (2, 0, 8), "b": (2, 4, 12)},
    "a gap": {"a": (2, 0, 8), "b": (2, 12, 20)},
    "bytes after the last": {"a": (2, 0, 8), "b": (1, 8, 12)},
    "a range beyond the end": {"a": (4, 0, 16)},
}


@pytest.mark.parametrize("lie", HEADERS)
def test_headers_that_lie_are_refused(lie, tmp_path):
    header = {
        name: {"dtype": "F32", "shape": [size], "data_offsets": [begin, end]}
        for name, (size, begin, end) in HEADERS[lie].items()
    }
    text = json.dumps(header).encode()
    size = {"bytes after the last": 16, "a range beyond the end": 12}.get(lie)
    data = bytes(size or max(end for _, _, end in HEADERS[lie].values()))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(Refusal, match=r"model\.safetensors: cannot be read"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("form", [as_bin_shards, as_safetensors_shards])
def test_a_missing_shard_is_refused(form, tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "bad")
    form(folder)
    (folder / "model.safetensors").unlink()
    next(folder.glob("*00002-of*")).unlink()
    assert "00002-of-00003" in refusal(mean_of(tiny, folder), tmp_path / "out")


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("damage", ["code", "nested", "cut"])
def test_a_bin_that_is_no_dictionary_of_tensors_is_refused(damage, tiny, tmp_path):
    folder = shutil.copytree(tiny.experts[0], tmp_path / "bad")
    tensors = weights(folder)
    file = folder / "pytorch_model.bin"
    if damage == "code":
        torch.save(tensors | {"x": Hostile(tmp_path / "mark")}, file)
    else:
        torch.save({"state_dict": tensors}, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    (folder / "model.safetensors").unlink()
    message = refusal(mean_of(tiny, folder), tmp_path / "out")
    words = {"code": "holds code", "nested": "not a plain dictionary", "cut": "cannot be read"}
    assert str(file) in message and words[damage] in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_stored_tensor_reads_the_pieces_it_is_asked_for(dtype, tmp_path, monkeypatch):
    """Against what was saved; the tensor does not start at the first byte."""
    made = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(40, 25).to(dtype)}
    save_file(made, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text("{}")
    stored = open_checkpoint(tmp_path).stored("b")
    flat = made["b"].reshape(-1)
    assert stored.shape == (40, 25) and stored.dtype == dtype and stored.numel() == 1000
    for at in (slice(0, 7), slice(990, 1000), slice(500, 1200), slice(3, 3), slice(None)):
        assert torch.equal(stored[at], flat[at])
    monkeypatch.setattr("wildmerge.checkpoints.stored._WINDOW", 100)
    for chosen in ([0, 31, 99, 100, 100, 870, 999], [450], [], range(1000)):
        places = torch.tensor(list(chosen), dtype=torch.int64)
        assert torch.equal(stored[places], flat[places])
    piece = stored[:10]
    piece.zero_()
    assert torch.equal(stored[:10], flat[:10]), "a piece is the reader's own"


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    save_file({"a": torch.ones(5000)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    stored = open_checkpoint(tmp_path).stored("a")
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(4000)
    with pytest.raises(Refusal, match="shorter than it was"):
        stored[:]
