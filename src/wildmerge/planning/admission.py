"""Which experts of a study take part: decided by its lock alone, before any weight is there.

A study says what to do with an expert that does not merge with its base: `refuse` stops, `skip` leaves
it out of everything, as if the study did not name it. What only the weights can show stops both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.adapter import is_adapter
from wildmerge.checkpoints.compatibility import compare, require_base
from wildmerge.checkpoints.composition import compose
from wildmerge.checkpoints.headers import Headers, TensorInfo
from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.hub.resolving import resolve_all
from wildmerge.planning.lock import Lock
from wildmerge.study.file import Base, Study


@dataclass(frozen=True)
class OpenStudy:
    """A study without the experts that it skips, its lock, and by base and expert why it skips them."""

    study: Study
    lock: Lock
    skipped: dict[str, dict[str, str]]
    renewed: list[str] = field(default_factory=list)
    """What was new or otherwise in a lock made just now, a line each."""

    def lines(self) -> list[str]:
        """Say in a line each what an edited study has renewed, and what is left out."""
        found = [f"lock renewed: {line}" for line in self.renewed]
        for name, reasons in self.skipped.items():
            left = len(self.study.bases[name].experts)
            found += [
                f"{name}: expert '{expert}' skipped: {why}" for expert, why in reasons.items()
            ]
            asked = {*self.study.sizes, *(n for v in self.study.variants for n in v.sizes)}
            if reasons and (over := sorted(n for n in asked if n > left)):
                sizes = ", ".join(map(str, over))
                found.append(f"{name}: no merges of {sizes} experts, {left} are left")
        return found


@dataclass(frozen=True)
class _Locked:
    """A checkpoint's headers, from its entry in a lock."""

    folder: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    tokenizer: str | None


def admit(study: Study, lock: Lock) -> OpenStudy:
    """Decide which experts of every base take part.

    Raises:
        Refusal: a base that nothing merges with; an expert that does not merge, unless the study skips
            such; a base that no expert is left of.
    """
    skipped = {
        name: _refusals(base, lock) | _without_tokenizer(name, base, lock)
        for name, base in study.bases.items()
    }
    bases = {}
    for name, base in study.bases.items():
        left = {e: ref for e, ref in base.experts.items() if e not in skipped[name]}
        if skipped[name] and (study.on_incompatible == "refuse" or not left):
            expert, why = next(iter(skipped[name].items()))
            what = "or set on_incompatible: skip" if left else "none of its experts merges"
            raise Refusal(f"bases.{name}.experts.{expert}: {why}; {what}")
        bases[name] = base.model_copy(update={"experts": left})
    return OpenStudy(study.model_copy(update={"bases": bases}), lock, skipped)


def predict_refusals(base: str, experts: Sequence[str]) -> dict[str, str]:
    """Return why experts would not merge with their base, by what the hub shows of them without weights.

    Args:
        base: folder or hub id.
        experts: likewise.

    Raises:
        Refusal: a base that nothing merges with; the hub does not give a repository.
    """
    names = [base, *experts]
    entries = resolve_all(name for name in names if hub.is_hub(name))
    for folder in (name for name in names if name not in entries):
        files: dict[str, Any] = {path.name: {} for path in Path(folder).iterdir()}
        entries[folder] = {"files": files, **hub.describe(Path(folder))}
    asked = Base.model_construct(checkpoint=base, experts={name: name for name in experts})
    return _refusals(asked, Lock(entries, {}))


def _refusals(base: Base, lock: Lock) -> dict[str, str]:
    """Return why experts do not merge, by name; nothing for those that do.

    A plan made before the lock has entries without headers: it counts on everything.
    """
    if "tensors" not in lock.checkpoints[base.checkpoint]:
        return {}
    foundation = _headers(base.checkpoint, lock)
    require_base(foundation)
    found = {}
    for name, reference in base.experts.items():
        if "tensors" not in lock.checkpoints[reference]:
            continue
        try:
            finding = compare(foundation, {name: _headers(reference, lock, foundation)})[0]
            if finding.refusal:
                raise Refusal(finding.refusal)
        except Refusal as refusal:
            found[name] = str(refusal)
    return found


def _without_tokenizer(name: str, base: Base, lock: Lock) -> dict[str, str]:
    """Return which experts cannot be scored by themselves for want of a tokenizer.

    A merge has the base's, and so has an adapter.
    """

    def lacks(reference: str) -> bool:
        entry = lock.checkpoints[reference]
        known = "files" in entry and not is_adapter(entry.get("config", {}))
        return known and not any(file.startswith("tokenizer") for file in entry["files"])

    if lacks(base.checkpoint):
        raise Refusal(f"bases.{name}.checkpoint: {base.checkpoint}: no tokenizer files; add them")
    why = f"no tokenizer files; copy those of {base.checkpoint} into it"
    return {expert: why for expert, reference in base.experts.items() if lacks(reference)}


def _headers(reference: str, lock: Lock, base: Headers | None = None) -> _Locked:
    entry = lock.checkpoints[reference]
    headers = _Locked(
        reference,
        entry["config"],
        {
            name: TensorInfo(dtype, tuple(shape))
            for name, (dtype, shape) in entry["tensors"].items()
        },
        "tokenizer.json" if "tokenizer.json" in entry["files"] else None,
    )
    if not is_adapter(headers.config):
        return headers
    if base is None:
        raise Refusal(
            f"{reference}: an adapter, not a whole model; give it as an expert of its base"
        )
    made = compose(headers, base)
    return replace(headers, config=made.config, tensors=made.tensors)
