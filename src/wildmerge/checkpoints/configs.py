"""What two configs say differently of the function that weights serve, and of how a model is prompted.

A merged model has its base's config. An expert that computes otherwise with its weights (another
rotation of positions, other norms) is merged all the same, since people do so on purpose, and a warning
says so. Where its weights mean something else (other heads, another activation) it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json

_NO_FUNCTION = re.compile(
    r"(.+\.)?(_.*|transformers_version|model_type|(torch_)?dtype|architectures|auto_map|use_cache"
    r"|.*_token_ids?|.*vocab_size|tie_word_embeddings|quantization_config|.*dropout.*|.*_pdrop"
    r"|initializer_.*|.*initializer|.*init_std|id2label|label2id|num_labels|problem_type|output_.*"
    r"|return_.*|summary_.*|task_specific_params|gradient_checkpointing.*|unsloth_.*"
    r"|.*attn_implementation|pretraining_tp|chunk_size_feed_forward|finetuning_task|torchscript"
    r"|use_bfloat16|do_sample|temperature|top_[kp]|max_(new_)?length|(min|max)_new_tokens"
    r"|.*aux_loss_coef|.*z_loss_coef|classifier_.*|score_.*|model_max_length|transformers\.js_config"
    r"|is_decoder)(\..+)?"
)
"""Keys that say nothing of how a language model computes when it is used."""
_MEANING = re.compile(
    r"(.+\.)?(num_attention_heads|n_heads?|num_heads|num_key_value_heads|head_dim|hidden_act(ivation)?"
    r"|activation(_function)?|layer_types\.\d+|position_embedding_type|alibi|partial_rotary_factor"
    r"|rotary_(pct|dim)|parallel_attn|use_parallel_residual|hybrid_override_pattern)"
)
"""Keys under which the same weights are another model's."""
_NAMED = 6


def differences(base: Mapping[str, Any], expert: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (base's value, expert's) of what two configs say differently of the function.

    Keys that one of them leaves out have the value that transformers gives them.
    """
    if _compared(base) == _compared(expert):
        return {}
    ours, theirs = map(_compared, _completed(base, expert))
    return {
        key: (ours.get(key), theirs.get(key))
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    }


def require_one_function(
    base: Mapping[str, Any], expert: Mapping[str, Any], folder: Path | str
) -> list[str]:
    """Return what is to be said of an expert's config; `folder` is the expert's name in messages.

    Raises:
        Refusal: the expert's weights mean something else than the base's.
    """
    found = differences(base, expert)
    for key, (ours, theirs) in found.items():
        if _MEANING.fullmatch(key):
            raise Refusal(
                f"{folder}: its config has {key} {theirs}, the base's {ours}: the same weights mean "
                "another function; not an expert of this base"
            )
    if not found:
        return []
    words = [f"{key} {theirs} (base {ours})" for key, (ours, theirs) in found.items()]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    listed = ", ".join(words[:_NAMED]) + more
    return [f"its config computes otherwise: {listed}; the merged model has the base's"]


def conversation_differences(base: Path, expert: Path) -> list[str]:
    """Return what an expert's folder says differently of how a model is prompted and where it stops."""
    ours, theirs = _conversation(base), _conversation(expert)
    found = []
    if theirs["chat template"] not in (None, ours["chat template"]):
        found.append("another chat template")
    for key in ("eos_token_id", "pad_token_id"):
        if theirs[key] not in (None, ours[key]):
            found.append(f"{key} {theirs[key]} (base {ours[key]})")
    return [f"has {', '.join(found)}; the merged model has the base's"] if found else []


def _conversation(folder: Path) -> dict[str, Any]:
    """Return a folder's chat template and the ids of its end and padding tokens."""
    tokens = {**_content(folder / "config.json"), **_content(folder / "generation_config.json")}
    template = folder / "chat_template.jinja"
    written = template.read_text(encoding="utf-8", errors="replace") if template.exists() else None
    return {
        "chat template": written or _content(folder / "tokenizer_config.json").get("chat_template"),
        "eos_token_id": tokens.get("eos_token_id"),
        "pad_token_id": tokens.get("pad_token_id"),
    }


def _content(path: Path) -> dict[str, Any]:
    return read_json(path, missing="") if path.is_file() else {}


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value of what says how a model computes."""
    return {key: value for key, value in _leaves(config) if not _NO_FUNCTION.fullmatch(key)}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        if value is not None:
            yield key, value
        return
    for name, inner in items:
        yield from _leaves(inner, f"{key}.{name}" if key else name)


def _completed(*configs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return configs with what they leave out, and in today's spelling, if transformers knows all."""
    from transformers import CONFIG_MAPPING  # takes seconds, so only where configs differ

    try:
        return [CONFIG_MAPPING[c["model_type"]].from_dict(dict(c)).to_dict() for c in configs]
    except Exception:  # of an architecture or with values that this version does not know
        return list(configs)
