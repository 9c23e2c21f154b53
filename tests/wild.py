"""Merging checkpoints that were changed in one way, for tests of what people publish."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNTIED = {"tie_word_embeddings": False}
LAYER = "model.layers.0.mlp.up_proj.weight"


def mean_of(family, *experts, **changes):
    given = {"base": str(family.base), "experts": tuple(map(str, experts))}
    return Recipe(**(given | {"method": "task_arithmetic"} | changes))


def merged(recipe, folder):
    report = merge(recipe, folder, progress=False)
    return load_file(folder / "model.safetensors"), report


def refusal(recipe, folder, **options):
    with pytest.raises(Refusal) as caught:
        merge(recipe, folder, progress=False, **options)
    assert "\n" not in str(caught.value) and not folder.exists()
    return str(caught.value)


def weights(folder):
    return load_file(folder / "model.safetensors")


def changed(source, folder, change, config=None):
    """Copy a checkpoint and change its tensors, and perhaps its config."""
    shutil.copytree(source, folder)
    tensors = weights(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    return folder


def give_head(tensors, noise=0.0):
    generator = torch.Generator().manual_seed(3)
    head = tensors[EMBEDDING].float()
    head = head + noise * torch.randn(head.shape, generator=generator)
    tensors[HEAD] = head.to(tensors[EMBEDDING].dtype)


def with_tokens(source, folder, tokens, extra_rows=1):
    """Copy an expert, its rows put into the order of `tokens`; tokens new to it get random rows."""
    old = tokens_of(source)
    generator = torch.Generator().manual_seed(7)

    def reorder(tensors):
        for name in {EMBEDDING, HEAD, "lm_head.bias"} & tensors.keys():
            before = tensors[name]
            shape = len(tokens) + extra_rows, *before.shape[1:]
            rows = torch.randn(shape, generator=generator)
            rows = rows.to(before.dtype)
            for row, token in enumerate(tokens):
                if token in old:
                    rows[row] = before[old[token]]
            tensors[name] = rows

    changed(source, folder, reorder, {"vocab_size": len(tokens) + extra_rows})
    name_tokens(folder, {token: row for row, token in enumerate(tokens)})
    return folder


def name_tokens(folder, rows):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = []
    content["model"]["vocab"] = rows
    path.write_text(json.dumps(content))


def tokens_of(folder):
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
