"""What configs and folders of an expert say differently: a warning, a remark, a refusal or nothing."""

import json
import shutil

import pytest
from transformers import AutoConfig

from wild import changed, mean_of, merged, refusal
from wildmerge.checkpoints.configs import differences
from wildmerge.merging.inspection import inspect

THETA = {"rope_type": "default", "rope_theta": 1e6}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"rope_parameters": THETA}, "rope_parameters.rope_theta 1000000.0 (base 10000.0)"),
        ({"rope_parameters": None, "rope_theta": 1e6}, "rope_parameters.rope_theta 1000000.0"),
        ({"rope_parameters": LINEAR}, "rope_parameters.factor 4.0 (base None)"),
        ({"max_position_embeddings": 512}, "max_position_embeddings 512 (base 64)"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05 (base 1e-06)"),
    ],
)
def test_another_function_is_warned_of(says, words, tiny, tmp_path):
    other = changed(tiny.experts[0], tmp_path / "other", lambda tensors: None, says)
    _, report = merged(mean_of(tiny, other, tiny.experts[1]), tmp_path / "out")
    assert len(report["warnings"]) == 1
    assert str(other) in report["warnings"][0] and words in report["warnings"][0]
    assert words in inspect(tiny.base, {"other": other}).rows[0]["remarks"]


@pytest.mark.parametrize(
    "says", [{"num_attention_heads": 2, "head_dim": 16}, {"hidden_act": "gelu"}]
)
def test_weights_that_mean_another_function_are_refused(says, tiny, tmp_path):
    other = changed(tiny.experts[0], tmp_path / "other", lambda tensors: None, says)
    message = refusal(mean_of(tiny, other), tmp_path / "out")
    assert str(other) in message and any(key in message for key in says)


@pytest.mark.parametrize(
    "says",
    [
        {"attention_dropout": 0.1, "use_cache": False, "initializer_range": 0.1},
        {"architectures": ["Other"], "torch_dtype": "float16", "transformers_version": "4.40"},
        {"_name_or_path": "org/base", "unsloth_version": "2025.1", "pretraining_tp": 2},
    ],
)
def test_what_no_forward_pass_reads_is_of_no_concern(says, tiny):
    config = json.loads((tiny.base / "config.json").read_text())
    assert differences(config, config | says) == {}


def test_another_spelling_and_a_default_left_out_are_the_same(tiny):
    """As transformers 4 wrote it: theta by itself, and no word of what is as ever."""
    config = json.loads((tiny.base / "config.json").read_text())
    theta = config["rope_parameters"]["rope_theta"]
    older = {
        k: v for k, v in config.items() if k not in ("rope_parameters", "mlp_bias", "head_dim")
    }
    assert differences(config, older | {"rope_theta": theta, "rope_scaling": None}) == {}
    assert differences(older | {"rope_theta": theta}, config) == {}


def test_another_chat_template_and_end_of_text_are_remarked(tiny, tmp_path):
    chat = shutil.copytree(tiny.experts[0], tmp_path / "expert")
    (chat / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (chat / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    _, report = merged(mean_of(tiny, chat, tiny.experts[1]), tmp_path / "out")
    (remark,) = report["remarks"]
    assert remark.startswith(f"{chat}: has another chat template, eos_token_id [1, 5] (base ")
    assert not (tmp_path / "out/chat_template.jinja").exists()


def test_numbers_that_json_lacks_reach_the_merged_config(tiny, tmp_path):
    """Mamba-2's limits are infinite; Python's json writes them as JSON does not know them."""
    base = shutil.copytree(tiny.base, tmp_path / "base")
    text = (base / "config.json").read_text()
    (base / "config.json").write_text(text.replace("{", '{"limit": Infinity,', 1))
    merged(mean_of(tiny, tiny.experts[0], base=str(base)), tmp_path / "out")
    config = type(AutoConfig.from_pretrained(tiny.base)).from_pretrained(tmp_path / "out")
    assert config.limit == float("inf")
