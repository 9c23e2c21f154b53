"""The prefix backend asks what lm-eval's hf backend asks and returns what it returns.

Small random models stand for the architectures; the independent source is lm-eval's own HFLM and,
beside it, one plain forward pass a request.
"""

import functools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from wildmerge.errors import Refusal
from wildmerge.scoring.prefix.backend import PrefixLM, TokenCounts
from wildmerge.scoring.prefix.memory import pass_costs
from wildmerge.scoring.prefix.passes import ScoringPlan
from wildmerge.scoring.prefix.request_tree import PassCosts, plan_passes
from wildmerge.scoring.prefix.requests import TokenRequests, tokenise
from wildmerge.scoring.prefix.store import ArrayStore
from wildmerge.scoring.prefix.tree_attention import run_plan

VOCABULARY = 97
CONTEXT = 64
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SPREAD = {"initializer_range": 0.5, **ENDS}  # large weights: a wrong mask or position shows
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    **SPREAD,
}
OTHER_NAMES = {"vocab_size": VOCABULARY, **SPREAD}
FEW = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
CONFIGS = {
    "qwen3": Qwen3Config(**SMALL, tie_word_embeddings=False),
    "tied llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=8),
    "mistral": MistralConfig(**SMALL, sliding_window=8),
    "gpt2": GPT2Config(**OTHER_NAMES, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT),
    "opt": OPTConfig(**OTHER_NAMES, **FEW, ffn_dim=48, word_embed_proj_dim=32, init_std=0.5),
    "bloom": BloomConfig(**OTHER_NAMES, hidden_size=32, n_layer=2, n_head=4),
    "falcon": FalconConfig(**OTHER_NAMES, **FEW, ffn_hidden_size=48),
    "mamba": MambaConfig(**OTHER_NAMES, hidden_size=32, num_hidden_layers=2, state_size=8),
}
PACKABLE = ["qwen3", "tied llama", "gpt2", "opt", "falcon"]
PASS_SIZES = [2, 7, 40, 4096]


@functools.cache
def model(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    """Words w0 to w90, one token each, and a start token put before every text."""
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def words(tokens):
    return "".join(f" w{token}" for token in tokens)


@pytest.fixture(scope="module")
def texts():
    """Requests of every shape that benchmarks have, as texts."""
    rng = np.random.default_rng(7)

    def some(count):
        return words(rng.integers(0, 6, count))  # few words, so that prefixes meet by chance too

    pairs = []
    for _ in range(2):  # two subjects, each with its examples
        examples = "Q" + some(20)
        for _ in range(6):
            question = examples + some(int(rng.integers(3, 9)))
            pairs += [(question, f" w{choice}") for choice in range(4)]
            pairs += [(question, some(int(rng.integers(1, 7)))) for _ in range(4)]
    stem = some(10)
    pairs += [(stem, " w1 w2"), (stem, " w1 w2 w3"), (stem, " w1"), (stem + " w1", " w2")]
    pairs += [pairs[3], pairs[3], ("", some(4)), ("", some(1)), ("", "<s> w4 w5")]
    pairs += [("<s>" + stem, some(3)), (stem + "  ", "w3 w4"), (stem, " w3 w4")]
    pairs += [(some(CONTEXT + extra), some(5)) for extra in (-6, -5, -4, 30)]
    pairs += [(stem + some(CONTEXT), some(CONTEXT)), (some(5), some(40))]
    pairs += [(stem, f" w{token}") for token in range(VOCABULARY - 3)]  # one of them is greedy
    order = rng.permutation(len(pairs))
    return [pairs[index] for index in order]


def instances(texts):
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(texts)]


def hf_scores(network, tokenizer, texts, *, logits_cache=False):
    # With its cache of logits, lm-eval 0.4.13 reads wrong positions when two requests have the same
    # tokens but begin their continuations at different ones, as (stem, " w1 w2"), (stem + " w1", "
    # w2").
    lm = HFLM(network, tokenizer=tokenizer, batch_size=3, logits_cache=logits_cache)
    return lm.loglikelihood(instances(texts), disable_tqdm=True)


def assert_same_scores(scores, expected):
    ours, theirs = np.array(scores, float), np.array(expected, float)
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(ours[:, 1], theirs[:, 1])


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_the_hf_backend(name, tokenizer, texts):
    network = model(name)
    lm = PrefixLM(network, tokenizer=tokenizer)
    assert (lm.fallback_reason is None) == (name in PACKABLE)
    scores = lm.loglikelihood(instances(texts), disable_tqdm=True)
    plain = name not in PACKABLE  # those are scored by lm-eval's own code, cache and all
    assert_same_scores(scores, hf_scores(network, tokenizer, texts, logits_cache=plain))
    assert {greedy for _, greedy in scores} == {False, True}


@pytest.mark.parametrize("name", ["qwen3", "tied llama", "opt"])
@pytest.mark.parametrize("max_tokens", PASS_SIZES)
def test_scores_do_not_depend_on_the_size_of_passes(name, max_tokens, tokenizer, texts):
    network = model(name)
    requests = tokenise(PrefixLM(network, tokenizer=tokenizer), texts)
    expected = plain_scores(network, requests)
    for per_pass, per_pair in ((1.0, 0.5), (30.0, 0.01)):
        plan = plan_passes(requests, CONTEXT, PassCosts(per_pass, per_pair, max_tokens))
        assert np.diff(plan.node_bounds).max() <= max_tokens
        assert_same_scores(run_plan(network, plan), expected)


def plain_scores(network, requests):
    """Score each request by a forward pass of its own, written out."""
    scores = []
    for context, continuation in requests.pairs():
        tokens = torch.tensor([(context + continuation)[-(CONTEXT + 1) :]])
        with torch.no_grad():
            logits = network(tokens[:, :-1]).logits[0, -len(continuation) :]
        target = tokens[0, -len(continuation) :]
        chosen = logits.log_softmax(-1).gather(1, target[:, None])
        scores.append((chosen.sum().item(), bool((logits.argmax(-1) == target).all())))
    return scores


def test_tokens_are_those_of_the_hf_backend(tokenizer, texts, monkeypatch):
    network = model("tied llama")
    asked = []
    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", lambda self, reqs, **_: asked.extend(reqs))
    for add_bos in (None, False, True):
        asked.clear()
        lm = HFLM(network, tokenizer=tokenizer, add_bos_token=add_bos)
        if add_bos is False:  # lm-eval itself cannot score a context of no tokens
            assert tokenizer.encode("", add_special_tokens=False) == []
        lm.loglikelihood(instances(texts), disable_tqdm=True)
        expected = [(context, continuation) for _, context, continuation in asked]
        assert list(tokenise(lm, texts).pairs()) == expected


def test_every_distinct_prefix_is_computed_once_when_memory_allows(tokenizer, texts):
    requests = tokenise(PrefixLM(model("qwen3"), tokenizer=tokenizer), texts)
    plan = plan_passes(requests, CONTEXT, PassCosts(1.0, 1e-9, 2**20))
    prefixes = set()
    for context, continuation in requests.pairs():
        fed = tuple((context + continuation)[-(CONTEXT + 1) :][:-1])
        prefixes.update(fed[: end + 1] for end in range(len(fed)))
    assert len(plan.tokens) == len(prefixes)


def test_tokens_and_truncated_requests_are_counted(tokenizer, texts):
    lm = PrefixLM(model("qwen3"), tokenizer=tokenizer)
    done = []
    lm.on_scored = done.append
    lm.loglikelihood(instances(texts))
    fed = [
        tuple((context + continuation)[-(CONTEXT + 1) :][:-1])
        for context, continuation in tokenise(lm, texts).pairs()
    ]
    assert sum(done) == lm.counts.requests == len(texts)
    assert lm.counts.truncated == 3
    assert lm.counts.naive == sum(map(len, fed))
    assert lm.counts.grouped == sum(map(len, set(fed)))
    assert lm.counts.computed < lm.counts.grouped / 2
    lm.counts = TokenCounts()
    assert lm.counts.naive == 0


def test_rolling_loglikelihood_is_that_of_the_hf_backend(tokenizer):
    network = model("qwen3")
    texts = [(words(range(90)),), (words(range(10)),)]
    asked = [Instance("loglikelihood_rolling", {}, text, i) for i, text in enumerate(texts)]
    ours = PrefixLM(network, tokenizer=tokenizer, batch_size=4).loglikelihood_rolling(asked)
    theirs = HFLM(network, tokenizer=tokenizer, batch_size=4).loglikelihood_rolling(asked)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_second_model_reads_requests_and_plan_from_the_store(
    tokenizer, texts, tmp_path, monkeypatch
):
    first = PrefixLM(model("qwen3"), tokenizer=tokenizer, store=tmp_path)
    scores = first.loglikelihood(instances(texts), disable_tqdm=True)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 2
    monkeypatch.setattr("wildmerge.scoring.prefix.backend.tokenise", None)
    monkeypatch.setattr("wildmerge.scoring.prefix.backend.plan_passes", None)
    second = PrefixLM(model("qwen3"), tokenizer=tokenizer, store=tmp_path)
    assert second.loglikelihood(instances(texts), disable_tqdm=True) == scores
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    with pytest.raises(TypeError):  # other requests are not found, so they would be tokenised
        second.loglikelihood(instances(texts[1:]), disable_tqdm=True)


def test_damaged_store_is_made_again(tokenizer, texts, tmp_path):
    def scores():
        lm = PrefixLM(model("qwen3"), tokenizer=tokenizer, store=tmp_path)
        return lm.loglikelihood(instances(texts), disable_tqdm=True)

    expected = scores()
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert scores() == expected
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0xFF
        path.write_bytes(data)
    assert scores() == expected


def test_stored_arrays_come_back_equal(tmp_path):
    requests = TokenRequests.from_pairs([([1, 2], [3]), ([1], [2, 4])])
    plan = plan_passes(requests, 8, PassCosts(1, 1, 4))
    ArrayStore(tmp_path).get(ScoringPlan, "key", lambda: plan)
    back = ArrayStore(Path(tmp_path)).get(ScoringPlan, "key", lambda: pytest.fail("not stored"))
    for name, array in vars(plan).items():
        np.testing.assert_array_equal(getattr(back, name), array)
        assert getattr(back, name).dtype == array.dtype


@pytest.mark.parametrize(
    ("name", "reason"), [("gemma3", "sliding attention"), ("mistral", "window of 8 tokens")]
)
def test_reason_for_plain_scoring_is_said_in_one_line(name, reason, tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "wildmerge"):
        lm = PrefixLM(model(name), tokenizer=tokenizer)
    assert reason in lm.fallback_reason
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("wildmerge")]
    assert reason in said and "\n" not in said


def test_model_that_ignores_positions_is_found_by_trial(tokenizer):
    network = model.__wrapped__("tied llama")
    rotary = network.model.rotary_emb
    rotary.forward = lambda x, position_ids: type(rotary).forward(
        rotary, x, torch.arange(position_ids.shape[1])[None]
    )
    assert "trial" in PrefixLM(network, tokenizer=tokenizer).fallback_reason


def test_smallest_budget_runs_token_by_token(tokenizer, texts):
    network, asked = model("qwen3"), texts[::8]
    assert pass_costs(network, CONTEXT, budget=0).max_tokens == 1
    lm = PrefixLM(network, tokenizer=tokenizer, memory_budget=0)
    assert_same_scores(
        lm.loglikelihood(instances(asked), disable_tqdm=True),
        hf_scores(network, tokenizer, asked),
    )


def test_passes_do_not_follow_the_memory_that_is_free(monkeypatch):
    """How requests are packed decides how sums are rounded, so results must not depend on it."""
    free = "wildmerge.scoring.prefix.memory.available_bytes"
    found = []
    for amount in (2**26, 2**30, 2**40):
        monkeypatch.setattr(free, lambda amount=amount: amount)
        found.append(pass_costs(model("qwen3"), CONTEXT))
    assert found == [found[0]] * 3


def test_request_that_no_memory_holds_is_refused():
    with pytest.raises(Refusal, match="use a device with more memory"):
        pass_costs(model("qwen3"), 10**12)


@pytest.mark.parametrize("pair", [("w1", ""), ("w1", words(range(CONTEXT + 1)))])
def test_request_that_cannot_be_scored_is_refused(pair, tokenizer):
    lm = PrefixLM(model("qwen3"), tokenizer=tokenizer)
    with pytest.raises(Refusal):
        lm.loglikelihood(instances([pair]), disable_tqdm=True)
