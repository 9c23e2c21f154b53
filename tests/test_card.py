"""A merged model's card: what the hub reads of it, and what it must not say of a machine."""

import json
import shutil

import pytest
import torch
from huggingface_hub import metadata_load
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file, save_file

from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def copies(tiny, tmp_path):
    return [shutil.copytree(p, tmp_path / p.name) for p in (tiny.base, *tiny.experts)]


def merged(copies, tmp_path, names=None, **changes):
    names = names or list(map(str, copies))
    recipe = Recipe(base=names[0], experts=tuple(names[1:]), method="task_arithmetic", **changes)
    folders = dict(zip(names, copies, strict=True))
    report = merge(recipe, tmp_path / "out", folders=folders, progress=False)
    return tmp_path / "out", report


def test_a_card_names_no_folder_of_the_machine(copies, tmp_path):
    names = [str(copies[0]), "org/math@main", *map(str, copies[2:])]
    out, _ = merged(copies, tmp_path, names)
    text = (out / "README.md").read_text()
    assert str(tmp_path) not in text
    front = metadata_load(out / "README.md")
    assert front["base_model"][:2] == [copies[0].name, "org/math"]
    for name in front["base_model"]:
        validate_repo_id(name)


@pytest.mark.parametrize(
    ("licence", "read"),
    [("license: mit", "mit"), ("license: 2024-13-45", None), ("license: [a, b]", None)],
)
def test_a_licence_is_a_word_or_left_out(licence, read, copies, tmp_path):
    (copies[0] / "README.md").write_text(f"---\n{licence}\n---\n")
    out, _ = merged(copies, tmp_path)
    assert metadata_load(out / "README.md").get("license") == read


def test_code_of_the_config_is_named_and_templates_are_copied(copies, tmp_path):
    config = json.loads((copies[0] / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_custom.Custom"}
    (copies[0] / "config.json").write_text(json.dumps(config))
    (copies[0] / "modeling_custom.py").write_text("")
    (copies[0] / "additional_chat_templates").mkdir()
    (copies[0] / "additional_chat_templates/tool_use.jinja").write_text("x")
    out, report = merged(copies, tmp_path)
    assert any("modeling_custom.py" in warning for warning in report["warnings"])
    assert not (out / "modeling_custom.py").exists()
    assert (out / "additional_chat_templates/tool_use.jinja").read_text() == "x"


@pytest.mark.parametrize("everywhere", [True, False])
def test_what_all_keep_in_float32_stays_float32(everywhere, copies, tmp_path):
    name = "model.norm.weight"
    precise = 5.0 + 0.001 * torch.arange(len(load_file(copies[0] / "model.safetensors")[name]))

    def widen(tensors):
        tensors[name] = precise.clone()

    for folder in copies if everywhere else copies[:-1]:
        edit(folder, widen)
    out, _ = merged(copies, tmp_path)
    found = load_file(out / "model.safetensors")
    assert found[name].dtype == (torch.float32 if everywhere else torch.bfloat16)
    assert not everywhere or torch.equal(found[name], precise)
    assert found["model.embed_tokens.weight"].dtype == torch.bfloat16
