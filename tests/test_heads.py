"""Output heads: tied or not as transformers decides; an expert's is merged, left out or refused."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from wild import EMBEDDING, HEAD, UNTIED, changed, give_head, mean_of, merged, refusal, weights
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.checkpoints.heads import is_tied


@pytest.mark.parametrize("model_type", ["gpt2", "gemma", "opt", "llama", "qwen2", "gpt_neox"])
def test_where_a_config_is_silent_the_architecture_decides_whether_the_head_is_tied(
    model_type, tmp_path
):
    """Against the models themselves; the copy of the head that some files hold changes nothing."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**small))
    one = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tensors = {HEAD: TensorInfo("F32", (8, 16))}
    assert is_tied(SimpleNamespace(config={"model_type": model_type}, tensors=tensors)) is one
    says = {"model_type": model_type, "tie_word_embeddings": not one}
    assert is_tied(SimpleNamespace(config=says, tensors=tensors)) is not one


def test_a_head_that_equals_the_embedding_is_ignored(tiny, tmp_path):
    copied = changed(tiny.experts[0], tmp_path / "copied", give_head)
    ours, report = merged(mean_of(tiny, copied, tiny.experts[1]), tmp_path / "out")
    plain, _ = merged(mean_of(tiny, *tiny.experts[:2]), tmp_path / "plain")
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    assert "equal to its embedding" in report["alignment"][str(copied)]["head"]


def test_a_head_of_its_own_is_refused_unless_untied(tiny, tmp_path):
    own = changed(tiny.experts[0], tmp_path / "own", lambda t: give_head(t, noise=0.1), UNTIED)
    message = refusal(mean_of(tiny, own, tiny.experts[1]), tmp_path / "out")
    assert str(own) in message and "untie: true" in message
    ours, report = merged(mean_of(tiny, own, tiny.experts[1], untie=True), tmp_path / "out")
    head = (weights(own)[HEAD].float() + weights(tiny.experts[1])[EMBEDDING].float()) / 2
    # one rounding to bfloat16, of a value that float32 has to within its own
    assert torch.allclose(ours[HEAD].float(), head, rtol=2**-8, atol=1e-6)
    assert report["alignment"][str(tiny.experts[1])]["head"] == "its embedding"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, ours[HEAD])
    assert torch.equal(model.model.embed_tokens.weight, ours[EMBEDDING])


def test_a_base_that_saved_its_tied_head_is_tied(tiny, tmp_path):
    base = changed(tiny.base, tmp_path / "base", give_head)
    ours, _ = merged(mean_of(tiny, *tiny.experts[:2], base=str(base)), tmp_path / "out")
    assert torch.equal(ours[HEAD], ours[EMBEDDING])
    own = changed(tiny.experts[0], tmp_path / "own", lambda t: give_head(t, noise=0.1), UNTIED)
    assert "untie: true" in refusal(mean_of(tiny, own, base=str(base)), tmp_path / "no")


def test_the_embedding_of_a_tied_expert_is_its_head(tiny_qwen3, tmp_path):
    tied = changed(
        tiny_qwen3.experts[0],
        tmp_path / "tied",
        lambda t: t.pop(HEAD),
        {"tie_word_embeddings": True},
    )
    ours, report = merged(mean_of(tiny_qwen3, tied, tiny_qwen3.experts[1]), tmp_path / "out")
    head = (weights(tied)[EMBEDDING] + weights(tiny_qwen3.experts[1])[HEAD]) / 2
    assert torch.allclose(ours[HEAD], head, atol=1e-6)
    assert report["alignment"][str(tied)] == {"head": "its embedding"}
    assert any("its output head is its embedding" in line for line in report["warnings"])


@pytest.mark.parametrize("untie", [False, True])
@pytest.mark.parametrize("which", ["base", "expert"])
def test_a_head_that_contradicts_its_config_is_refused(which, untie, tiny, tmp_path):
    """Its config ties it to the embedding and it differs: loaders disagree on which of them counts."""
    folders = {"base": tiny.base, "expert": tiny.experts[0]}
    stale = changed(folders[which], tmp_path / "stale", lambda t: give_head(t, noise=0.1))
    folders[which] = stale
    recipe = mean_of(tiny, folders["expert"], base=str(folders["base"]), untie=untie)
    message = refusal(recipe, tmp_path / "out")
    assert str(stale) in message and "tie_word_embeddings: false" in message


def test_a_classifier_has_no_head_to_merge(tiny_qwen3, tmp_path):
    """Its config does not tie one: its embedding is no head."""

    def classify(tensors):
        tensors.pop(HEAD)
        tensors["score.weight"] = torch.ones(1, 32)

    says = {"architectures": ["Qwen3ForSequenceClassification"]}
    reward = changed(tiny_qwen3.experts[0], tmp_path / "reward", classify, says)
    message = refusal(mean_of(tiny_qwen3, reward), tmp_path / "out")
    assert "no output head" in message and "Qwen3ForSequenceClassification" in message
