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
from wildmerge.methods import catalogue as methods
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
    "breadcrumbs": {"density": 0.3, "gamma": 0.05, "lambda": 0.7},
    "breadcrumbs mean": {"density": 0.3, "normalize": True, "rescale": True},
    "breadcrumbs_ties": {"density": 0.3, "gamma": 0.05, "normalize": True},
    "breadcrumbs_ties sum": {"density": 0.3, "rescale": True},
    "dare_linear": {"normalize": True},
    "dare_ties": {"rescale": False},
    "della_linear": {"lambda": 0.7},
    "della": {},
    "sce": {"select_topk": 0.3},
    "sce default": {},
    "linear": {},
    "linear alone": {},
    "linear sum": {"normalize": False},
    "slerp": {"t": 0.3},
    "nuslerp": {},
    "nuslerp alone": {},
    "multislerp": {},
    "multislerp sum": {"normalize_weights": False},
    "multislerp alone": {},
    "karcher": {},
    "karcher alone": {"max_iter": 5, "tol": 1e-6},
}
"""Those that draw keep all here. `alone`: without a base_model, so that the first model is the base."""
UNWEIGHTED = {"model_stock", "sce", "slerp", "karcher"}
MODELS = {"slerp": 1, "nuslerp": 2}
"""Models beside the base, where not all."""


def config(family, method, parameters, **changes):
    """Return a mergekit configuration of a family of tiny models."""
    own = [{} if method in UNWEIGHTED else {"parameters": {"weight": w}} for w in WEIGHTS]
    experts = family.experts[: MODELS.get(method, 3)]
    models = [{"model": str(expert), **given} for expert, given in zip(experts, own, strict=False)]
    content = {
        "merge_method": method,
        "base_model": str(family.base),
        "models": models,
        "parameters": parameters,
        "dtype": "float32",
    }
    return content | changes


def of_case(family, case):
    """Return the configuration of one of CASES."""
    method, _, variant = case.partition(" ")
    content = config(family, method, CASES[case])
    if method == "linear":  # its base is one more model, with a weight
        weights = [0.2, 0.3, 0.5, 0.1 if variant else 0.0]
        names = [family.base, *family.experts][: 3 if variant == "sum" else 4]
        content["models"] = [
            {"model": str(name), "parameters": {"weight": weight or 1.5}}
            for name, weight in zip(names, weights, strict=False)
        ]
    if variant == "alone":
        del content["base_model"]
    return content


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
        ({"merge_method": "arcee_fusion"}, "merge_method: 'arcee_fusion' is not supported"),
        ({"models": []}, "models: expected models"),
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


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("slerp", {"models": [{"model": "a"}, {"model": "b"}]}, "models: slerp merges one model beside"),
        ("slerp", {"parameters": {}}, r"parameters\.t: is missing"),
        ("slerp", {"parameters": {"t": [0, 1]}}, r"parameters\.t: only one number"),
        ("slerp", {"base_model": None}, "base_model: expected a folder"),
        ("nuslerp", {"models": [{"model": "a"}]}, "models: nuslerp merges two models, found 1"),
        ("nuslerp", {"parameters": {"nuslerp_flatten": False}}, "nuslerp_flatten: false is not"),
        ("nuslerp", {"parameters": {"nuslerp_row_wise": True}}, "nuslerp_row_wise: not supported"),
        ("multislerp", {"parameters": {"eps": 0.1}}, r"parameters\.eps: not supported"),
        ("karcher", {"parameters": {"weight": 1}}, r"parameters\.weight: not supported"),
        ("linear", {"parameters": {"normalize": False}}, "normalize: false scales the base"),
        ("linear", {}, "weight of expert 1: is missing"),  # of the base, which is not listed
        ("sce", {"parameters": {"select_topk": {"value": 1}}}, "select_topk: only one number"),
        ("breadcrumbs", {"parameters": {"gamma": -0.1}}, "gamma of expert 1: -0.1 is not supported"),
        ("breadcrumbs", {"parameters": {"rescale": 1}}, r"parameters\.rescale: 1; give true or false"),
    ],
)  # fmt: skip
def test_so_is_what_other_methods_do_not_have(tiny_qwen3, method, change, words):
    if method == "linear" and change:
        change = change | {"base_model": str(tiny_qwen3.experts[0])}
    with pytest.raises(Refusal, match=rf"^c\.yml: .*{words}"):
        to_recipe(config(tiny_qwen3, method, {}) | change, "c.yml")


def test_models_without_a_base_are_merged_with_the_first_as_base(tiny_qwen3):
    def recipe(method):
        content = config(tiny_qwen3, method, {})
        del content["base_model"]
        return to_recipe(content, "c.yml")

    first, second, *_ = map(str, tiny_qwen3.experts)
    for method in ("linear", "multislerp", "karcher"):
        assert recipe(method).base == first
        assert recipe(method).experts == tuple(map(str, tiny_qwen3.experts))
    assert recipe("linear").method == "task_arithmetic"
    assert recipe("multislerp").parameters["space"] == "weights"
    assert (recipe("nuslerp").experts, recipe("nuslerp").parameters["t"]) == (
        (first, second),
        2 / 3,
    )


def test_the_base_is_one_of_two_for_slerp_and_one_more_for_karcher(tiny_qwen3):
    base, experts = str(tiny_qwen3.base), tuple(map(str, tiny_qwen3.experts))
    slerp = to_recipe(config(tiny_qwen3, "slerp", {"t": 0.3}), "c.yml")
    assert (slerp.base, slerp.experts) == (base, (base, experts[0]))
    assert to_recipe(config(tiny_qwen3, "karcher", {}), "c.yml").experts == (base, *experts)


@pytest.mark.parametrize(
    ("method", "parameters", "words"),
    [
        ("sce", {"weight_floor": 1e-6}, {"select_topk": 0.1}),
        ("sce", {}, None),
        ("sce", {"weight_floor": 1e-6, "select": "weights"}, None),
        ("slerp", {"t": 0.3}, {"t": 0.3}),
        ("slerp", {"space": "task_vectors"}, None),
        ("karcher", {}, {"max_iter": 10, "tol": 1e-5}),
        ("karcher", {"weights": [1.0, 2.0]}, None),
        ("multislerp", {}, {"normalize_weights": True}),
        ("breadcrumbs_ties", {"divisor": "n", "density": 0.5}, {
            "normalize": False, "lambda": 0.5, "density": 0.5, "gamma": 0.01, "rescale": False
        }),
    ],
)  # fmt: skip
def test_what_mergekit_can_say_is_said_in_its_words(method, parameters, words):
    complete = methods.get(method).complete(parameters)
    recipe = Recipe(base="b", experts=("x", "y"), method=method, parameters=complete)
    said = from_recipe(recipe, "bfloat16")
    assert (yaml.safe_load(said)["parameters"] if said else None) == words


def test_what_is_drawn_is_kept_as_often_but_not_the_same(tiny_qwen3):
    content = config(tiny_qwen3, "della", {"density": 0.4, "epsilon": 0.1})
    recipe = to_recipe(content, "c.yml")
    complete = methods.get("della").complete(recipe.parameters)
    assert {k: complete[k] for k in ("density", "epsilon", "rescale", "divisor", "seed")} == {
        "density": 0.4, "epsilon": 0.1, "rescale": "l1", "divisor": "agreeing", "seed": 0
    }  # fmt: skip
    said = from_recipe(recipe.model_copy(update={"parameters": complete}), "float32")
    assert said.startswith("# the same merge for mergekit 0.1.5, but for what it keeps at random\n")
    assert yaml.safe_load(said)["parameters"] == {
        "normalize": True, "lambda": 1.0, "density": 0.4, "epsilon": 0.1, "rescale": True
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_merge_from_mergekits_yaml_writes_an_equal_one(tiny_qwen3, tmp_path, case):
    content = of_case(tiny_qwen3, case)
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
    contents = {case: of_case(tiny_qwen3, case) for case in CASES}
    asked = {str(tmp_path / case / "theirs"): content for case, content in contents.items()}
    subprocess.run([mergekit, "-c", THEIRS], input=json.dumps(asked), text=True, check=True)
    for case, content in contents.items():
        merge(to_recipe(content, case), tmp_path / case / "ours")
        ours, theirs = (tensors(tmp_path / case / who) for who in ("ours", "theirs"))
        assert ours.keys() == theirs.keys()
        base, experts = tensors(tiny_qwen3.base), [tensors(e) for e in tiny_qwen3.experts]
        for name in ours:
            error = (ours[name] - theirs[name]).abs()
            deltas = [expert[name] - base[name] for expert in experts]
            error = error[~at_a_cut(case.split()[0], deltas, content["parameters"])]
            assert error.max() <= 1e-5 * theirs[name].abs().max(), (case, name)


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return {name: tensor.float() for name, tensor in found.items()}


def at_a_cut(method, deltas, parameters):
    """Mark elements that are, but for rounding, as large as the last that a method keeps or drops."""
    marked, size = torch.zeros(deltas[0].shape, dtype=torch.bool), deltas[0].numel()
    kept, outliers = int(parameters.get("density", 1) * size), 0
    if method.startswith("breadcrumbs"):
        outliers = min(int(parameters.get("gamma", 0.01) * size), size - kept)
    if method == "sce" and "select_topk" in parameters:
        deltas = [torch.stack(deltas).double().var(0, correction=0)]
        kept = int(parameters["select_topk"] * size)
    for magnitudes in (delta.abs() for delta in deltas):
        ordered = np.sort(magnitudes.flatten().numpy())
        for cut in (ordered[-k] for k in (outliers, outliers + kept) if 0 < k < size):
            marked |= (magnitudes - cut).abs() <= 1e-6 * cut
    return marked
