"""A merge is a complete Hugging Face model, the same bytes each time, or nothing at all."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import oracles
from wildmerge.checkpoints import writer
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.methods import catalogue as methods
from wildmerge.storage.files import sha256_of
from wildmerge.study.recipe import Recipe

METHODS = sorted(methods.discover())


def recipe(family, method="task_arithmetic", **changes):
    pair = method in methods.discover() and methods.get(method).about.pair
    values = {
        "base": str(family.base),
        "experts": tuple(map(str, family.experts[:2] if pair else family.experts)),
        "method": method,
    }
    return Recipe(**(values | changes))


def weights_digest(folder):
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["tiny", "tiny_qwen3"])
def test_a_merge_loads_and_generates(method, which, request, tmp_path):
    family = request.getfixturevalue(which)
    merge(recipe(family, method), tmp_path / "merged", progress=False)
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True, dtype="auto"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert str(model.dtype).endswith(
        json.loads((tmp_path / "merged/config.json").read_text())["dtype"]
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    tokens = tokenizer("abc", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**tokens, max_new_tokens=3, do_sample=False).shape[1] > 3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bytes_with_one_and_two_threads_and_any_chunk(method, tiny, tmp_path):
    runs = {"first": (1, None), "again": (1, None), "threads": (2, None), "chunks": (2, 1 << 9)}
    digests = []
    for name, (threads, chunk) in runs.items():
        merge(recipe(tiny, method), tmp_path / name, threads=threads, chunk=chunk, progress=False)
        digests.append(weights_digest(tmp_path / name))
    assert digests[0] == digests[1] == digests[2] == digests[3]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("task_arithmetic", {}),
        ("model_stock", {}),
        ("ties", {}),
        ("breadcrumbs", {"rescale": "l1"}),
        ("breadcrumbs_ties", {}),
        ("sce", {}),
        ("slerp", {"space": "task_vectors"}),
        ("multislerp", {}),
        ("karcher", {}),
    ],
)
def test_the_same_bytes_of_tensors_of_many_chunks(method, parameters, tmp_path):
    """Large enough for inner products in blocks and pieces of a file; its last chunk is a short one."""
    generator = torch.Generator().manual_seed(0)
    folders = [tmp_path / name for name in ("base", "one", "two", "three")]
    base = 0.02 * torch.randn(701, 509, generator=generator)
    for index, folder in enumerate(folders):
        step = 5e-4 * torch.randn(base.shape, generator=generator) * (index > 0)
        folder.mkdir()
        save_file(
            {"model.embed_tokens.weight": (base + step).bfloat16()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    names = list(map(str, folders))
    experts = tuple(names[1:3] if method == "slerp" else names[1:])
    made = Recipe(base=names[0], experts=experts, method=method, parameters=parameters)
    digests = []
    for name, (threads, chunk) in {"a": (1, None), "b": (2, 512), "c": (2, 100_000)}.items():
        merge(made, tmp_path / name, threads=threads, chunk=chunk, progress=False)
        digests.append(weights_digest(tmp_path / name))
    assert digests[0] == digests[1] == digests[2]


def test_weights_are_base_plus_update_rounded_once(tiny, tmp_path):
    report = merge(recipe(tiny, "ties"), tmp_path / "merged", progress=False)
    base = load_file(tiny.base / "model.safetensors")
    experts = [load_file(folder / "model.safetensors") for folder in tiny.experts]
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    squares = 0.0
    for name, start in base.items():
        deltas = np.stack([(e[name].float() - start.float()).double().numpy() for e in experts])
        update = oracles.ties(deltas)
        exact = torch.from_numpy(start.double().numpy() + update)
        # within one unit in the last place of bfloat16 of the exact value, and almost always equal
        assert torch.allclose(merged[name].double(), exact, rtol=2**-8, atol=1e-9)
        assert (merged[name] == exact.bfloat16()).float().mean() > 0.99
        squares += (update**2).sum()
        assert report["tensors"][name]["norm"] == pytest.approx(np.linalg.norm(update), rel=1e-5)
    assert report["update_norm"] == pytest.approx(squares**0.5, rel=1e-5)


def rounding_share(family, merged):
    """What was written minus the exact sum of base and mean task vector, in float64."""
    base, *experts = (load_file(f / "model.safetensors") for f in (family.base, *family.experts))
    lost = update = 0.0
    for name, start in base.items():
        delta = torch.stack([e[name].double() - start.double() for e in experts]).mean(0)
        lost += float((merged[name].double() - start.double() - delta).square().sum())
        update += float(delta.square().sum())
    return (lost / update) ** 0.5


@pytest.mark.parametrize(("dtype", "low", "high"), [("bfloat16", 1e-3, 1), ("float32", 0, 1e-5)])
def test_the_report_says_which_share_of_the_update_is_lost_in_rounding(
    dtype, low, high, tiny, tmp_path
):
    report = merge(recipe(tiny, dtype=dtype), tmp_path / "merged", progress=False)
    expected = rounding_share(tiny, load_file(tmp_path / "merged/model.safetensors"))
    assert report["rounding_share"] == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert low < report["rounding_share"] < high


def test_output_dtype_is_what_the_recipe_says(tiny, tmp_path):
    merge(recipe(tiny, dtype="float32"), tmp_path / "merged", progress=False)
    with safe_open(tmp_path / "merged/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == "float32"


def test_a_single_expert_comes_out_as_it_is(tiny, tmp_path):
    merge(recipe(tiny, "iso_c", experts=(str(tiny.experts[1]),)), tmp_path / "m", progress=False)
    ours, theirs = (
        load_file(tmp_path / "m/model.safetensors"),
        load_file(tiny.experts[1] / "model.safetensors"),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_shards_are_read_and_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_BYTES", 6000)
    monkeypatch.setattr(writer.Writer.__init__, "__defaults__", (6000,))
    merge(recipe(tiny), tmp_path / "sharded", progress=False)
    monkeypatch.undo()
    merge(recipe(tiny), tmp_path / "single", progress=False)
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2
    together = {k: v for shard in shards for k, v in load_file(shard).items()}
    single = load_file(tmp_path / "single/model.safetensors")
    assert together.keys() == single.keys()
    assert all(torch.equal(together[name], single[name]) for name in single)
    AutoModelForCausalLM.from_pretrained(tmp_path / "sharded")
    again = recipe(tiny, base=str(tmp_path / "sharded"))
    merge(again, tmp_path / "from_shards", progress=False)


def test_report_and_card_tell_what_was_done(tiny, tmp_path):
    merge(recipe(tiny, "model_stock"), tmp_path / "merged", progress=False)
    report = json.loads((tmp_path / "merged/merge_report.json").read_text())
    assert report["recipe"]["parameters"] == {"filter_wise": False, "norm_floor": 0.0}
    assert all("t" in facts and "norm" in facts for facts in report["tensors"].values())
    card = (tmp_path / "merged/README.md").read_text()
    assert card.startswith("---\n") and tiny.experts[0].name in card and "model_stock" in card


# --- refusals -------------------------------------------------------------------------------------


def copy_of(folder, to):
    shutil.copytree(folder, to)
    return to


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refused(recipe, tmp_path):
    with pytest.raises(Refusal) as caught:
        merge(recipe, tmp_path / "out" / "merged", progress=False)
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert not left, "a refused merge leaves nothing behind"
    assert "\n" not in str(caught.value)
    return str(caught.value)


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_by_file_and_tensor(method, value, tiny, tmp_path):
    def poison(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value

    bad = edit(copy_of(tiny.experts[0], tmp_path / "bad"), poison)
    message = refused(recipe(tiny, method, experts=(str(tiny.experts[1]), str(bad))), tmp_path)
    assert str(bad) in message and "model.layers.1.mlp.up_proj.weight" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({NORM: torch.ones(7)}), [NORM, "[7]", "[32]"]),
        (lambda t: t.pop(NORM), [NORM, "missing"]),
        (
            lambda t: t.update({NORM.replace(".0.", ".2."): torch.ones(32)}),
            ["layers.2", "not exist"],
        ),
        (lambda t: t.update({NORM: torch.ones(32, dtype=torch.int8)}), [NORM, "I8"]),
    ],
)
def test_experts_of_other_shapes_are_refused(change, words, tiny, tmp_path):
    bad = edit(copy_of(tiny.experts[0], tmp_path / "bad"), change)
    message = refused(recipe(tiny, experts=(str(bad), str(tiny.experts[1]))), tmp_path)
    assert str(bad) in message
    assert all(word in message for word in words)


def test_other_architectures_are_refused(tiny, tiny_qwen3, tmp_path):
    message = refused(recipe(tiny, experts=(str(tiny_qwen3.experts[0]),)), tmp_path)
    assert "qwen3" in message and "llama" in message


def test_quantised_experts_are_refused(tiny, tmp_path):
    bad = copy_of(tiny.experts[0], tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (bad / "config.json").write_text(json.dumps(config))
    assert "gptq" in refused(recipe(tiny, experts=(str(bad),)), tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 40), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "config.json").unlink(), "missing"),
        (lambda f: (f / "model.safetensors").unlink(), "no .safetensors or .bin weights"),
    ],
)
def test_broken_checkpoints_are_refused(damage, words, tiny, tmp_path):
    bad = copy_of(tiny.experts[0], tmp_path / "bad")
    damage(bad)
    message = refused(recipe(tiny, experts=(str(bad),)), tmp_path)
    assert str(bad) in message and words in message


def test_weights_must_be_one_an_expert(tiny, tmp_path):
    assert "2 weights for 3 experts" in refused(
        recipe(tiny, parameters={"weights": [1.0, 2.0]}), tmp_path
    )


# --- command line ---------------------------------------------------------------------------------


def write_recipe(path, family, **changes):
    content = {
        "base": str(family.base),
        "experts": [str(e) for e in family.experts],
        "method": "ties",
    }
    path.write_text(json.dumps(content | changes))  # JSON is YAML
    return str(path)


def test_cli_merges_and_refuses_an_existing_folder(tiny, tmp_path, capsys):
    arguments = ["merge", write_recipe(tmp_path / "r.yaml", tiny), "--out", str(tmp_path / "m")]
    assert main(arguments) == 0
    assert "update norm" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "tie"}, "did you mean 'ties'"),
        ({"parameters": {"densty": 0.1}}, "did you mean 'density'"),
        ({"base": "nowhere"}, "nowhere: no such checkpoint folder"),
        ({"methode": "ties"}, "did you mean 'method'"),
    ],
)
def test_cli_refuses_in_one_line(changes, words, tiny, tmp_path, capsys):
    path = write_recipe(tmp_path / "r.yaml", tiny, **changes)
    assert main(["merge", path, "--out", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_wrong_usage_exits_with_two():
    with pytest.raises(SystemExit) as caught:
        main(["merge"])
    assert caught.value.code == 2


def test_a_kill_leaves_no_folder_and_the_next_run_cleans_up(tiny, tmp_path):
    """SIGKILL at several moments; its lock protects a living merge, a dead one's folder goes."""
    path = write_recipe(tmp_path / "r.yaml", tiny)
    out = tmp_path / "o" / "merged"
    command = [sys.executable, "-m", "wildmerge.cli", "merge", path, "--out", str(out)]
    kills = 0
    while kills < 3:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(out.parent.glob(".merged.partial-*/model*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:  # finished before the signal came
            shutil.rmtree(out)
            continue
        kills += 1
        assert not out.exists()
        assert list(out.parent.glob(".merged.partial-*"))
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert [entry.name for entry in out.parent.iterdir()] == ["merged"]


def test_a_merge_refused_by_its_headers_never_imports_torch(tiny, tmp_path):
    """What takes seconds to load is loaded when there is something to compute."""
    code = (
        "import sys\n"
        "from wildmerge.errors import Refusal\n"
        "from wildmerge.merging.merge import require_mergeable\n"
        "from wildmerge.study.recipe import Recipe\n"
        "try:\n"
        f"    require_mergeable(Recipe(base={str(tiny.base)!r}, experts=('nowhere',), method='ties'))\n"
        "except Refusal as refusal:\n"
        "    print(refusal, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("nowhere: no such checkpoint folder")
    assert done.stdout.endswith(" False\n")
