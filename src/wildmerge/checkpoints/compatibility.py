"""Would these experts merge with this base? Answered from headers and configs, before any reading.

`compare` returns one row of findings an expert; an expert with a `refusal` must not be merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wildmerge.checkpoints.tensors import FLOATS, Checkpoint
from wildmerge.errors import Refusal

_TIED_NAMES = {"lm_head.weight"}


@dataclass
class Finding:
    """What stands between an expert and a merge: a refusal, or only remarks."""

    expert: str
    refusal: str | None = None
    remarks: list[str] = field(default_factory=list)


def compare(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> list[Finding]:
    """Compare each expert with the base by architecture, tensor names, shapes and dtypes."""
    return [_compare(base, name, expert) for name, expert in experts.items()]


def require_compatible(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> list[str]:
    """Raise Refusal for the first expert that cannot be merged; return all remarks otherwise."""
    findings = compare(base, experts)
    for finding in findings:
        if finding.refusal:
            raise Refusal(finding.refusal)
    return [remark for finding in findings for remark in finding.remarks]


def _compare(base: Checkpoint, name: str, expert: Checkpoint) -> Finding:
    finding = Finding(name)
    finding.refusal = _other_kind(base, expert) or _other_tensors(base, expert)
    if finding.refusal is None:
        dtypes = {info.dtype for info in expert.tensors.values()}
        if dtypes != {info.dtype for info in base.tensors.values()}:
            finding.remarks.append(f"{expert.folder}: stored as {', '.join(sorted(dtypes))}")
    return finding


def _other_kind(base: Checkpoint, expert: Checkpoint) -> str | None:
    if expert.config.get("quantization_config"):
        how = expert.config["quantization_config"].get("quant_method", "unknown method")
        return f"{expert.folder}: quantised weights ({how}); use a full-precision checkpoint"
    ours, theirs = base.config.get("model_type"), expert.config.get("model_type")
    if ours != theirs:
        return (
            f"{expert.folder}: model_type '{theirs}' is not the base's '{ours}'; "
            "an expert must be a fine-tune of the base"
        )
    return None


def _other_tensors(base: Checkpoint, expert: Checkpoint) -> str | None:
    for name, info in base.tensors.items():
        if name not in expert.tensors:
            return (
                f"{expert.folder}: tensor {name} of the base is missing; not an expert of this base"
            )
        found = expert.tensors[name]
        if found.shape != info.shape:
            return (
                f"{expert.folder}: tensor {name} has shape {list(found.shape)}, the base "
                f"{list(info.shape)}; not an expert of this base"
            )
        if (found.dtype in FLOATS) != (info.dtype in FLOATS):
            return (
                f"{expert.folder}: tensor {name} is stored as {found.dtype}, the base's as "
                f"{info.dtype}; use an unquantised checkpoint"
            )
    extra = [name for name in expert.tensors if name not in base.tensors]
    if extra:
        return f"{expert.folder}: tensor {extra[0]} does not exist in the base ({len(extra)} such)"
    return None
