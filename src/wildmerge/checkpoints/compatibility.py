"""Would these experts merge with this base? Answered from headers and configs, before any reading.

`compare` returns one row of findings an expert; an expert with a `refusal` must not be merged. What only
the weights show (NaN, a head that differs from its embedding, an unrelated model) is found when they are
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wildmerge.checkpoints.dtypes import FLOATS
from wildmerge.checkpoints.headers import Headers, TensorInfo
from wildmerge.checkpoints.roles import embedding_of, head_of, role_of
from wildmerge.errors import Refusal

_BUFFER = re.compile(
    r"(.+\.)?(inv_freq|original_inv_freq|(attn|attention)\.(bias|masked_bias)|masked_bias|"
    r"position_ids|(cos|sin)_cached|rotary_emb\..+|_extra_state)"
)
"""Names of tensors that are computed from the config and were saved for no need."""
_IN_A_LAYER = re.compile(r"(^|.*\.)\d+\..+")
_PACKED = re.compile(
    r".+(\.(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|weight_scale(_inv)?|weight_packed)"
    r"|\.quant_state\..+)"
)
"""Names of what quantised weights keep beside them."""


@dataclass
class Finding:
    """What stands between an expert and a merge: a refusal, or only remarks."""

    expert: str
    refusal: str | None = None
    remarks: list[str] = field(default_factory=list)


def compare(base: Headers, experts: Mapping[str, Headers]) -> list[Finding]:
    """Compare each expert with the base by architecture, tensor names, shapes and dtypes."""
    return [_compare(base, name, expert) for name, expert in experts.items()]


def require_compatible(base: Headers, experts: Mapping[str, Headers]) -> list[str]:
    """Raise Refusal for the first checkpoint that cannot be merged; return all remarks otherwise."""
    require_base(base)
    findings = compare(base, experts)
    for finding in findings:
        if finding.refusal:
            raise Refusal(finding.refusal)
    return [remark for finding in findings for remark in finding.remarks]


def require_base(base: Headers) -> None:
    """Raise Refusal for a base that nothing can be merged with."""
    if how := _quantisation(base):
        raise Refusal(_quantised(base, how))


def is_buffer(name: str) -> bool:
    """Return whether a tensor is computed from the config: it holds nothing that was learnt."""
    return bool(_BUFFER.fullmatch(name))


def extra_tensors(base: Headers, expert: Headers) -> list[str]:
    """Return the expert's tensors that the base does not have, except an output head."""
    extra = [name for name in expert.tensors if name not in base.tensors]
    return [name for name in extra if name != head_of(extra)]


def _compare(base: Headers, name: str, expert: Headers) -> Finding:
    finding = Finding(name)
    if how := _quantisation(expert):
        finding.refusal = _quantised(expert, how)
    else:
        finding.refusal = _other_kind(base, expert) or _other_tensors(base, expert)
    if finding.refusal is None:
        finding.remarks = [f"{expert.folder}: {remark}" for remark in _remarks(base, expert)]
    return finding


def _quantisation(checkpoint: Headers) -> str | None:
    """Name the quantisation of a checkpoint's weights, if it has one."""
    config = checkpoint.config.get("quantization_config")
    dtypes = {info.dtype for info in checkpoint.tensors.values()}
    if config:
        how = str(config.get("quant_method", "unknown method"))
        bits = 4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else None
        bits = config.get("bits") or config.get("w_bit") or bits
        return f"{how}, {bits} bit" if bits else how
    if eight := sorted(dtype for dtype in dtypes if dtype.startswith(("F8", "float8"))):
        return f"fp8, {eight[0]}"
    packed = [name for name in checkpoint.tensors if _PACKED.fullmatch(name)]
    return f"packed, with {packed[0]}" if packed else None


def _quantised(checkpoint: Headers, how: str) -> str:
    return f"{checkpoint.folder}: quantised weights ({how}); use a full-precision checkpoint"


def _other_kind(base: Headers, expert: Headers) -> str | None:
    ours, theirs = base.config.get("model_type"), expert.config.get("model_type")
    if ours == theirs:
        return None
    return (
        f"{expert.folder}: model_type '{theirs}' is not the base's '{ours}'; "
        "an expert must be a fine-tune of the base"
    )


def _other_tensors(base: Headers, expert: Headers) -> str | None:
    for name, info in base.tensors.items():
        found = expert.tensors.get(_counterpart(base, expert, name) or "")
        if found is None:
            if is_buffer(name):
                continue
            return (
                f"{expert.folder}: tensor {name} of the base is missing; not an expert of this base"
            )
        problem = _other_tensor(base, expert, name, info, found)
        if problem:
            return problem
    for name in extra_tensors(base, expert):
        if _IN_A_LAYER.fullmatch(name) and not is_buffer(name):
            return (
                f"{expert.folder}: tensor {name} does not exist in the base; not an expert of this "
                "base"
            )
    return _odd_head(base, expert)


def _odd_head(base: Headers, expert: Headers) -> str | None:
    """Refuse a head of other rows than the embedding's, unless base and expert have the same two."""
    names = head_of(expert.tensors), embedding_of(expert.tensors)
    if None in names:
        return None
    head, embedding = (expert.tensors[name].shape for name in names if name)
    known = [getattr(base.tensors.get(name or ""), "shape", None) for name in names]
    if head[0] == embedding[0] or known == [head, embedding]:
        return None
    return (
        f"{expert.folder}: its output head has {head[0]} rows and its embedding {embedding[0]}; not an "
        "expert of this base"
    )


def _other_tensor(
    base: Headers, expert: Headers, name: str, info: TensorInfo, found: TensorInfo
) -> str | None:
    if (found.dtype in FLOATS) != (info.dtype in FLOATS):
        return (
            f"{expert.folder}: tensor {name} is stored as {found.dtype}, the base's as "
            f"{info.dtype}; use an unquantised checkpoint"
        )
    if found.shape == info.shape:
        return None
    if role_of(name, info.shape) in ("embedding", "head") and found.shape[1:] == info.shape[1:]:
        return _unmatched_rows(base, expert, name, info.shape[0], found.shape[0])
    return (
        f"{expert.folder}: tensor {name} has shape {list(found.shape)}, the base "
        f"{list(info.shape)}; not an expert of this base"
    )


def _unmatched_rows(  # noqa: PLR0917
    base: Headers, expert: Headers, name: str, ours: int, theirs: int
) -> str | None:
    """Say what is missing to match the rows of two vocabularies, if anything is."""
    for checkpoint in (base, expert):
        if checkpoint.tokenizer is None:
            return (
                f"{expert.folder}: {name} has {theirs} rows, the base {ours}, and there is no "
                f"tokenizer.json in {checkpoint.folder} to match them by; add it"
            )
    return None


def _counterpart(base: Headers, expert: Headers, name: str) -> str | None:
    """Return the expert's tensor for one of the base's: without a head, its embedding is its head."""
    if name in expert.tensors:
        return name
    if role_of(name, ()) == "head":
        return head_of(expert.tensors) or embedding_of(expert.tensors)
    return None


def _remarks(base: Headers, expert: Headers) -> Iterable[str]:
    dtypes = {info.dtype for info in expert.tensors.values()}
    if dtypes != {info.dtype for info in base.tensors.values()}:
        yield f"stored as {', '.join(sorted(dtypes))}"
