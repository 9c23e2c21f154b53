"""mergekit's configurations: read with mergekit's meaning, written back, refused by the key.

The slow test merges the same configurations with mergekit 0.1.5 in an environment of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.merging.mergekit_config import from_recipe, is_mergekit, to_recipe
from wildmerge.study.recipe import Recipe

ROOT = Path(__file__).parent.parent
WEIGHTS = (0.5, 1.0, 2.0)
CASES = {
    "task_arithmetic": {"normalize": False, "lambda": 0.7},
    "task_arithmetic mean": {"normalize": True},
    "task_arithmetic default": {},
    "ties": {"density": 0.3},
    "ties sum": {"density": 0.3, "normalize": False, "lambda": 0.5},
    "model_stock": {},
    "model_stock rows": {"filter_wise": True},
}


def config(family, method, parameters, **changes):
    """Return a mergekit configuration of a family of tiny models."""
    weighted = method != "model_stock"
    models = [
        {"model": str(expert), **({"parameters": {"weight": weight}} if weighted else {})}
        for expert, weight in zip(family.experts, WEIGHTS, strict=True)
    ]
    content = {
        "merge_method": method,
        "base_model": str(family.base),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
    }
    return content | changes


def test_the_words_mean_what_they_mean_in_mergekit(tiny_qwen3):
    def parameters(method, **given):
        return to_recipe(config(tiny_qwen3, method, given), "c.yml").parameters

    assert parameters("task_arithmetic")["scale"] == "sum"
    assert parameters("task_arithmetic", normalize=True)["scale"] == "mean"
    assert parameters("ties")["divisor"] == "agreeing"
    assert parameters("ties")["density"] == 1.0
    assert parameters("ties", normalize=False)["divisor"] == "sum"
    assert parameters("ties", density=0.2)["weights"] == list(WEIGHTS)
    assert parameters("model_stock")["norm_floor"] == 1e-6
    recipe = to_recipe(config(tiny_qwen3, "ties", {}, out_dtype="bfloat16"), "c.yml")
    assert (recipe.dtype, recipe.base) == ("bfloat16", str(tiny_qwen3.base))


def test_the_base_among_the_models_is_left_out(tiny_qwen3):
    content = config(tiny_qwen3, "ties", {"density": 0.5})
    content["models"].insert(0, {"model": content["base_model"]})
    assert to_recipe(content, "c.yml").experts == tuple(map(str, tiny_qwen3.experts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_method": "dare_ties"}, "merge_method: 'dare_ties' is not supported"),
        ({"slices": []}, "slices: not supported"),
        ({"parameters": {"rescale": True}}, r"parameters\.rescale: not supported"),
        ({"parameters": {"weight": [0, 1]}}, "weight"),
        ({"parameters": {"lambda": [0, 1]}}, r"parameters\.lambda: only one number"),
        ({"tokenizer_source": "union"}, "tokenizer_source: only 'base'"),
        ({"dtype": "int8"}, "dtype: 'int8'"),
        ({"base_model": None}, "base_model: expected a folder or hub id"),
        ({"models": [{"model": "a+lora"}]}, r"models\[0\]\.model: 'a\+lora'"),
        ({"models": [{"model": "a", "parameters": {"weight": -1}}]}, "above 0"),
        ({"models": [{"model": "a"}]}, "weight of expert 1: is missing"),
        ({"models": ["a"]}, r"models\[0\]: expected keys"),
        (
            {"models": [{"model": m, "parameters": {"weight": 1, "density": d}}
             for m, d in (("a", 0.1), ("b", 0.2))]},
            "density: one number for all models",
        ),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_key(tiny_qwen3, change, words):
    given = {"weight": 1.0} | change.get("parameters", {})
    content = config(tiny_qwen3, "ties", {}) | change
    if "parameters" in change:
        content["models"] = [{"model": "a"}]
        content["parameters"] = given
    with pytest.raises(Refusal, match=rf"^c\.yml: .*{words}") as caught:
        to_recipe(content, "c.yml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_a_merge_from_mergekits_yaml_writes_an_equal_one(tiny_qwen3, tmp_path, case):
    content = config(tiny_qwen3, case.split()[0], CASES[case])
    given = tmp_path / "given.yml"
    given.write_text(yaml.safe_dump(content))
    assert main(["merge", str(given), "--out", str(tmp_path / "one"), "--device", "cpu"]) == 0
    written = tmp_path / "one/mergekit_config.yml"
    assert main(["merge", str(written), "--out", str(tmp_path / "two"), "--device", "cpu"]) == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_every_divisor_of_ties_has_its_words_and_other_methods_have_none():
    parameters = {"density": 0.2, "lambda": 1.0, "weights": [1.0, 3.0], "divisor": "n"}
    recipe = Recipe(base="b", experts=("x", "y"), method="ties", parameters=parameters)
    words = yaml.safe_load(from_recipe(recipe, "bfloat16"))
    assert words["parameters"] == {"normalize": False, "lambda": 0.25, "density": 0.2}
    assert (words["dtype"], words["out_dtype"]) == ("float32", "bfloat16")
    assert from_recipe(Recipe(base="b", experts=("x", "y"), method="tsv_m"), "float32") is None
    assert not is_mergekit({"base": "b", "method": "ties"})


# --- mergekit itself --------------------------------------------------------------------------------

THEIRS = """
import json, sys
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for out, content in json.loads(sys.stdin.read()).items():
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(content), out, options=options)
"""


@pytest.fixture(scope="module")
def mergekit():
    """The Python of an environment with mergekit 0.1.5, the one that the benchmark makes."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from merge import make_environment

    try:
        folder = make_environment(ROOT / "results/benchmarks/mergekit")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no environment with mergekit 0.1.5 here: {error}")
    return folder / "bin/python"


@pytest.mark.slow
def test_merged_tensors_are_mergekits(tiny_qwen3, mergekit, tmp_path):
    contents = {
        case: config(tiny_qwen3, case.split()[0], parameters) for case, parameters in CASES.items()
    }
    asked = {str(tmp_path / case / "theirs"): content for case, content in contents.items()}
    subprocess.run([mergekit, "-c", THEIRS], input=json.dumps(asked), text=True, check=True)
    for case, content in contents.items():
        merge(to_recipe(content, case), tmp_path / case / "ours")
        ours, theirs = (tensors(tmp_path / case / who) for who in ("ours", "theirs"))
        assert ours.keys() == theirs.keys()
        base, experts = tensors(tiny_qwen3.base), [tensors(e) for e in tiny_qwen3.experts]
        for name in ours:
            error = (ours[name] - theirs[name]).abs()
            if case.startswith("ties"):
                deltas = [expert[name] - base[name] for expert in experts]
                error = error[~at_the_cut(deltas, content["parameters"]["density"])]
            assert error.max() <= 1e-5 * theirs[name].abs().max(), (case, name)


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return {name: tensor.float() for name, tensor in found.items()}


def at_the_cut(deltas, density):
    """Mark elements whose magnitude in a task vector is, but for rounding, that of the last one kept."""
    marked = torch.zeros(deltas[0].shape, dtype=torch.bool)
    for delta in deltas:
        magnitudes = delta.abs()
        cut = np.sort(magnitudes.flatten().numpy())[-int(density * delta.numel())]
        marked |= (magnitudes - cut).abs() <= 1e-6 * cut
    return marked
