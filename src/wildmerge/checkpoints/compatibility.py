"""Would these experts merge with this base? Answered from headers and configs, before any reading.

`compare` returns one row of findings an expert; an expert with a `refusal` must not be merged. What only
the weights show (NaN, a head that differs from its embedding, an unrelated model) is found when they are
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wildmerge.checkpoints.configs import conversation_differences, require_one_function
from wildmerge.checkpoints.dtypes import FLOATS
from wildmerge.checkpoints.headers import Headers, TensorInfo
from wildmerge.checkpoints.matching import match
from wildmerge.checkpoints.roles import Role, embedding_of, head_of, merged_tensors, roles_of
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal

_PACKED = re.compile(
    r".+(\.(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|weight_scale(_inv)?|weight_packed)"
    r"|\.quant_state\..+)"
)
"""Names of what quantised weights keep beside them."""


@dataclass
class Finding:
    """What stands between an expert and a merge: a refusal, or only what is to be said of it.

    Warnings are of what the merged model lacks or does otherwise; remarks are of nothing that is lost.
    """

    expert: str
    refusal: str | None = None
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def compare(base: Headers, experts: Mapping[str, Headers]) -> list[Finding]:
    """Compare each expert with the base by architecture, config, tensor names, shapes and dtypes."""
    return [_compare(base, name, expert) for name, expert in experts.items()]


def require_compatible(base: Headers, experts: Mapping[str, Headers]) -> list[Finding]:
    """Raise Refusal for the first checkpoint that cannot be merged; return all findings otherwise."""
    require_base(base)
    findings = compare(base, experts)
    for finding in findings:
        if finding.refusal:
            raise Refusal(finding.refusal)
    return findings


def require_base(base: Headers) -> None:
    """Raise Refusal for a base that nothing can be merged with."""
    _require_full_precision(base)


def _compare(base: Headers, name: str, expert: Headers) -> Finding:
    where = expert.folder
    finding = Finding(name)
    try:
        _require_full_precision(expert)
        _require_same_kind(base, expert)
        _require_same_tensors(base, expert)
        warnings = require_one_function(base.config, expert.config, where)
    except Refusal as refusal:
        finding.refusal = str(refusal)
        return finding
    finding.warnings = [f"{where}: {text}" for text in warnings]
    finding.remarks = [f"{where}: {text}" for text in _remarks(base, expert)]
    return finding


def _require_full_precision(checkpoint: Headers) -> None:
    if how := _quantisation(checkpoint):
        raise Refusal(
            f"{checkpoint.folder}: quantised weights ({how}); use a full-precision checkpoint"
        )


def _quantisation(checkpoint: Headers) -> str | None:
    """Name the quantisation of a checkpoint's weights, if it has one."""
    config = checkpoint.config.get("quantization_config")
    dtypes = {info.dtype for info in checkpoint.tensors.values()}
    if config and not isinstance(config, Mapping):
        return "unknown method"
    if config:
        how = str(config.get("quant_method", "unknown method"))
        bits = 4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else None
        bits = config.get("bits") or config.get("w_bit") or bits
        return f"{how}, {bits} bit" if bits else how
    if eight := sorted(dtype for dtype in dtypes if dtype.startswith(("F8", "float8"))):
        return f"fp8, {eight[0]}"
    packed = [name for name in checkpoint.tensors if _PACKED.fullmatch(name)]
    return f"packed, with {packed[0]}" if packed else None


def _require_same_kind(base: Headers, expert: Headers) -> None:
    ours, theirs = base.config.get("model_type"), expert.config.get("model_type")
    if ours != theirs:
        raise Refusal(
            f"{expert.folder}: model_type '{theirs}' is not the base's '{ours}'; "
            "an expert must be a fine-tune of the base"
        )


def _require_same_tensors(base: Headers, expert: Headers) -> None:
    roles = roles_of(base)
    for name, source in match(base, expert).names.items():
        _require_same_tensor(base, expert, name, expert.tensors[source], roles[name])
    _require_rows_of_one_vocabulary(base, expert)


def _require_rows_of_one_vocabulary(base: Headers, expert: Headers) -> None:
    """Refuse a head of other rows than the embedding's, unless base and expert have the same two."""
    shapes = [_shapes_by_token(checkpoint) for checkpoint in (base, expert)]
    head, embedding = shapes[1]
    if not head or not embedding or head[0] == embedding[0] or shapes[0] == shapes[1]:
        return
    raise Refusal(
        f"{expert.folder}: its output head has {head[0]} rows and its embedding {embedding[0]}; not an "
        "expert of this base"
    )


def _shapes_by_token(checkpoint: Headers) -> list[tuple[int, ...]]:
    """Return the shapes of head and embedding, () for one that is not there."""
    names = head_of(checkpoint), embedding_of(checkpoint)
    return [checkpoint.tensors[name].shape if name else () for name in names]


def _require_same_tensor(
    base: Headers, expert: Headers, name: str, found: TensorInfo, role: Role
) -> None:
    info = base.tensors[name]
    if (found.dtype in FLOATS) != (info.dtype in FLOATS):
        raise Refusal(
            f"{expert.folder}: tensor {name} is stored as {found.dtype}, the base's as "
            f"{info.dtype}; use an unquantised checkpoint"
        )
    if found.shape == info.shape:
        return
    if role not in ("embedding", "head") or found.shape[1:] != info.shape[1:]:
        raise Refusal(
            f"{expert.folder}: tensor {name} has shape {list(found.shape)}, the base "
            f"{list(info.shape)}; not an expert of this base"
        )
    for checkpoint in (base, expert):
        if checkpoint.tokenizer is None:
            raise Refusal(
                f"{expert.folder}: {name} has {found.shape[0]} rows, the base {info.shape[0]}, and "
                f"there is no tokenizer.json in {checkpoint.folder} to match them by; add it"
            )


def _remarks(base: Headers, expert: Headers) -> Iterable[str]:
    dtypes, ours = (
        {info.dtype for info in merged_tensors(checkpoint).values()}
        for checkpoint in (expert, base)
    )
    if dtypes != ours:
        yield f"stored as {', '.join(sorted(dtypes))}"
    if isinstance(base, Checkpoint) and isinstance(expert, Checkpoint):  # not only locked headers
        yield from expert.remarks
        yield from conversation_differences(base.folder, expert.folder)
