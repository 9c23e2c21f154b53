"""The same weights in every form that people save them in; forms that cannot be trusted are refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from wild import mean_of, merged, refusal, weights
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.errors import Refusal


def split(tensors, parts):
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[i::parts]} for i in range(parts)]


def as_bin(folder):
    torch.save(weights(folder), folder / "pytorch_model.bin")


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
