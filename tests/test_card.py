"""A merged model's card: what the hub reads of it, and what it must not say of a machine."""

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
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


@pytest.mark.parametrize("name", ["{other}/expert", "./expert", "~/expert", "experts/math/final"])
def test_what_is_no_hub_id_is_called_by_its_folder(name, copies, tmp_path):
    names = [name.format(other=tmp_path / "elsewhere"), *map(str, copies[1:])]
    out, _ = merged(copies, tmp_path, names)
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model[0] == copies[0].name
    assert "elsewhere" not in card.content and names[0] not in card.content


def test_warnings_name_folders_as_wholes(copies, tmp_path, monkeypatch):
    """A folder called `c` is not looked for inside of words."""
    monkeypatch.chdir(tmp_path)
    copies[0] = copies[0].rename(tmp_path / "c").relative_to(tmp_path)
    edit_json(copies[0] / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Custom"})
    names = ["org/base", *map(str, copies[1:])]
    out, report = merged(copies, tmp_path, names)
    assert "- org/base: its config names code of its own" in (out / "README.md").read_text()


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_config_names_is_named_and_not_copied(file, copies, tmp_path):
    edit_json(copies[0] / file, auto_map={"AutoTokenizer": ["custom.Tokenizer", None]})
    (copies[0] / "custom.py").write_text("")
    out, report = merged(copies, tmp_path)
    assert any("custom.py" in warning for warning in report["warnings"])
    assert not (out / "custom.py").exists()


DATA = [
    "tekken.json",
    "qwen.tiktoken",
    "sentencepiece.bpe.model",
    "video_preprocessor_config.json",
    "additional_chat_templates/tool_use.jinja",
]


@pytest.mark.parametrize("name", DATA)
def test_data_that_a_model_needs_is_copied(name, copies, tmp_path):
    (copies[0] / name).parent.mkdir(exist_ok=True)
    (copies[0] / name).write_text("x")
    out, report = merged(copies, tmp_path)
    assert (out / name).read_text() == "x"
    assert not report["warnings"]


@pytest.mark.parametrize("name", DATA)
def test_a_link_out_of_the_folder_is_named_and_not_followed(name, copies, tmp_path):
    (tmp_path / "secret").write_text("x")
    (copies[0] / name).parent.mkdir(exist_ok=True)
    (copies[0] / name).symlink_to(tmp_path / "secret")
    out, report = merged(copies, tmp_path)
    assert not (out / name).exists()
    assert any(name in warning and "links" in warning for warning in report["warnings"])


def test_links_of_the_hubs_cache_are_followed(copies, tmp_path):
    blobs = tmp_path / "models--org--base/blobs"
    blobs.mkdir(parents=True)
    (blobs / "1234").write_text("x")
    snapshot = shutil.copytree(copies[0], blobs.parent / "snapshots/5678")
    (snapshot / "tekken.json").symlink_to(blobs / "1234")
    out, report = merged([snapshot, *copies[1:]], tmp_path)
    assert (out / "tekken.json").read_text() == "x"
    assert not report["warnings"]
    assert metadata_load(out / "README.md")["base_model"][0] == "org/base"


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
