"""The real vLLM engine (CPU build) through lm-eval's VLLM: one engine, many models, no stale weight.

Run by `make test-vllm` in an environment of its own. The independent source is lm-eval's hf backend.
"""

import json
import os

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import numpy as np
import pytest

pytest.importorskip("vllm", reason="make test-vllm makes an environment with it")

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from mini_study import make_task
from tiny_models import save_with_tokenizer
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.scoring.vllm.engine import Engine

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # large weights: other weights give other scores
}
NOISE = 0.5  # nats, of bfloat16 in a sum over a continuation; other weights differ by several


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models of one shape: two untied ones, and a third whose head is its embedding."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second", "tied")):
        torch.manual_seed(seed)
        config = Qwen3Config(**SHAPE, tie_word_embeddings=name == "tied")
        save_with_tokenizer(Qwen3ForCausalLM(config).bfloat16(), folder / name)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Engine("bfloat16", "cpu", tmp_path_factory.mktemp("links"))
    yield engine
    engine.close()


def scores(lm):
    random = np.random.default_rng(0)

    def text(length):
        return "".join(random.choice(list("abcdefghij"), length))

    pairs = [(text(20), text(length)) for length in (1, 2, 4, 8) for _ in range(4)]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    return np.array([score for score, _ in lm.loglikelihood(requests, disable_tqdm=True)])


@pytest.fixture(scope="module")
def expected(models):
    found = {
        name: scores(HFLM(str(path), dtype="bfloat16", device="cpu"))
        for name, path in models.items()
    }
    for name in ("second", "tied"):
        assert np.abs(found[name] - found["first"]).mean() > 4 * NOISE
    return found


def test_one_engine_scores_model_after_model_as_hf_does(engine, models, expected):
    for name in ("first", "second", "tied", "first", "tied", "second"):
        np.testing.assert_allclose(
            scores(engine.load(models[name])), expected[name], rtol=0, atol=NOISE
        )
    assert engine.starts == 1


@pytest.mark.parametrize("part", ["everything", "model.layers.1.self_attn.k_proj.weight"])
def test_weights_that_a_swap_leaves_behind_are_noticed(engine, models, tmp_path, part, monkeypatch):
    """Weights that it is not given, vLLM only warns about; here it gets old ones, or all but one."""
    engine.load(models["first"])
    incomplete = tmp_path / "incomplete"
    incomplete.mkdir()
    weights = load_file(models["second"] / "model.safetensors")
    kept = load_file(models["first"] / "model.safetensors") if part == "everything" else weights
    save_file({k: v for k, v in kept.items() if k != part}, incomplete / "model.safetensors")
    (incomplete / "config.json").symlink_to(models["second"] / "config.json")
    llm = engine._lm.model
    real = llm.collective_rpc

    def give_incomplete(method, **options):
        if method == "reload_weights":
            options = {"kwargs": {"weights_path": str(incomplete)}}
        return real(method, **options)

    monkeypatch.setattr(llm, "collective_rpc", give_incomplete)
    with pytest.raises(Refusal, match="did not take over all of its weights"):
        engine.load(models["second"])


def test_command_line(models, tmp_path, monkeypatch):
    make_task(tmp_path, "mini_one", items=12)
    monkeypatch.chdir(tmp_path)
    options = ["--tasks", "mini_one", "--tasks-dir", "tasks", "--dtype", "bfloat16"]
    for backend in ("vllm", "hf"):
        out = ["--backend", backend, "--out", backend, "--device", "cpu"]
        assert main(["evaluate", str(models["tied"]), *options, *out]) == 0
    ours, theirs = (
        json.loads((tmp_path / b / "mini_one.json").read_text()) for b in ("vllm", "hf")
    )
    assert ours["items"]["doc_hash"] == theirs["items"]["doc_hash"]
    same = np.equal(ours["items"]["correct"], theirs["items"]["correct"])
    assert same.mean() > 0.8  # ties of random models fall either way in bfloat16
