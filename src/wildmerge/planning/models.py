"""Every model of a study, what it is scored on, and the jobs that make and score them.

A study and its lock determine this list completely: which recipes there are, under which ids their
files stand, and how they are grouped into jobs that share one process's start-up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from pathlib import Path

from wildmerge.merging.spectra import file_name
from wildmerge.methods.catalogue import Method
from wildmerge.planning.lock import Lock
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Base, Benchmark, EvaluationSettings, Study
from wildmerge.study.grid import Variant
from wildmerge.study.recipe import Recipe, draw_subsets, recipe_id, short_hash
from wildmerge.tasks.digests import LockedTask
from wildmerge.tasks.loading import SEEDS


@dataclass(frozen=True)
class Model:
    """One model of a study: the base (n = 0), an expert (n = 1) or a merge (n >= 2)."""

    recipe_id: str
    kind: str
    base: str
    variant: str
    subset: int
    experts: tuple[str, ...]
    recipe: Recipe
    reads_spectra: bool = False

    @property
    def n(self) -> int:
        """The number of experts in it."""
        return len(self.experts)

    @property
    def label(self) -> str:
        """What messages call it."""
        parts = [self.base, self.variant, "+".join(self.experts)]
        return " ".join(part for part in parts if part)

    def row(self) -> dict[str, str | int]:
        """Return its row of recipes.csv."""
        return {
            "recipe_id": self.recipe_id,
            "kind": self.kind,
            "base": self.base,
            "variant": self.variant,
            "method": self.recipe.method or "",
            "parameters": json.dumps(self.recipe.parameters, sort_keys=True),
            "n": self.n,
            "subset": self.subset,
            "experts": "+".join(self.experts),
        }


@dataclass(frozen=True)
class Job:
    """Models that one process makes and scores, one after the other."""

    id: str
    label: str
    models: tuple[Model, ...]


def list_models(study: Study, lock: Lock) -> list[Model]:
    """Return the base, the experts and all merges of every base, in the study's order.

    Args:
        study: as opened: without the experts that it skips.
        lock: its lock.
    """
    variants = study.variants
    return [model for name in study.bases for model in _of_base(study, lock, name, variants)]


def list_evaluations(study: Study, lock: Lock) -> list[Evaluation]:
    """Return the benchmarks of a study with their evaluation ids."""
    return [
        Evaluation(b, evaluation_id(b, lock.tasks[b.task], study.evaluation))
        for b in study.benchmarks
    ]


def evaluation_id(benchmark: Benchmark, locked: LockedTask, settings: EvaluationSettings) -> str:
    """Return the id of everything that decides a model's answers, except the model.

    All metrics of a task are read off the same answers, so the metric is no part of it.

    Args:
        benchmark: what is asked.
        locked: the task's definition and data.
        settings: how it is asked.
    """
    return short_hash(
        {
            "schema": 2,
            "task": benchmark.task,
            "definition": locked["definition"],
            "data": sorted(locked["data"].values()),
            "seeds": SEEDS,
            "num_fewshot": benchmark.num_fewshot,
            "limit": benchmark.limit,
            "settings": settings.model_dump(),
            "versions": deciding_versions(settings.backend),
        }
    )


def deciding_versions(backend: str) -> dict[str, str]:
    """Return the versions of the libraries that can change a score beyond rounding.

    lm-eval's prompts and rules, transformers' models and tokenizers, vLLM's models. torch's kernels
    round in other ways from version to version as from processor to processor, and no more.
    """
    names = ["lm_eval", "transformers", *(["vllm"] if backend == "vllm" else [])]
    return {name: metadata.version(name) for name in names}


def missing(results: Path, model: Model, evaluations: list[Evaluation]) -> list[Evaluation]:
    """Return the evaluations that a model lacks; all of them when a merge's report is gone.

    A result without the file of its answers counts as missing.
    """
    report = results / "merges" / f"{model.recipe_id}.json"
    if model.kind == "merge" and not report.exists():
        return evaluations
    # listed once: looking up each file is slow over a network
    folder = results / "evals" / model.recipe_id
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    where = results, model.recipe_id
    return [e for e in evaluations if not {e.path(*where).name, e.answers(*where).name} <= there]


def distinct(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Return one evaluation an id: those of several metrics are answered at once."""
    return list({each.id: each for each in evaluations}.values())


def list_jobs(study: Study, lock: Lock) -> list[Job]:
    """Group the models by base and variant into jobs of at most `models_per_job` models."""
    evaluations = [evaluation.id for evaluation in list_evaluations(study, lock)]
    jobs = []
    for (base, variant), group in groupby(list_models(study, lock), lambda m: (m.base, m.variant)):
        models = list(group)
        for start in range(0, len(models), study.models_per_job):
            part = tuple(models[start : start + study.models_per_job])
            label = f"{base}, {variant or 'base and experts'} ({len(part)} models)"
            content = [[m.recipe_id for m in part], evaluations]
            jobs.append(Job(short_hash(content), label, part))
    return jobs


def spectra_of(model: Model, lock: Lock, folder: Path) -> dict[str, Path]:
    """Return the file below a study's folder of each expert's spectra, if the method reads them."""
    if not model.reads_spectra:
        return {}
    base = lock.identities[model.recipe.base]
    return {
        expert: folder / "spectra" / file_name(base, lock.identities[expert])
        for expert in model.recipe.experts
    }


def _of_base(study: Study, lock: Lock, name: str, variants: list[Variant]) -> Iterator[Model]:
    """Give the base, its experts and their merges, each with its id."""
    base, identities = study.bases[name], lock.identities
    yield _model(Recipe(base=base.checkpoint), identities, "base", name)
    for index, (expert, reference) in enumerate(base.experts.items()):
        single = Recipe(base=base.checkpoint, experts=(reference,))
        yield _model(single, identities, "expert", name, subset=index, experts=(expert,))
    subsets = {
        n: draw_subsets(list(base.experts), n, study.subsets, f"{study.seed}/{name}")
        for n in sorted({*study.sizes, *(n for v in variants for n in v.sizes)})
    }
    for variant in variants:
        for n in sorted(variant.sizes or study.sizes):
            for index, experts in enumerate(subsets[n]):
                recipe = _merge_of(study, base, variant, experts, identities)
                yield _model(
                    recipe,
                    identities,
                    "merge",
                    name,
                    variant=variant.label,
                    subset=index,
                    experts=experts,
                    by=variant.method,
                )


def _merge_of(
    study: Study,
    base: Base,
    variant: Variant,
    experts: Sequence[str],
    identities: Mapping[str, str],
) -> Recipe:
    """Return the recipe of one subset's merge: one order for one set, so that the sums round alike.

    For a method that goes by the order it is the study's.
    """
    ordered = list(experts)
    if not variant.method.about.pair:
        ordered.sort(key=lambda expert: identities[base.experts[expert]])
    weights = [variant.weights.get(expert, 1.0) for expert in ordered]
    own = {"weights": weights} if set(weights) != {1.0} else {}
    return Recipe(
        base=base.checkpoint,
        experts=tuple(base.experts[expert] for expert in ordered),
        method=variant.method.name,
        parameters=variant.parameters | own,
        null_space=study.null_space,
        dtype=study.dtype,
        untie=study.untie,
    )


def _model(
    recipe: Recipe,
    identities: Mapping[str, str],
    kind: str,
    base: str,
    *,
    variant: str = "",
    subset: int = 0,
    experts: tuple[str, ...] = (),
    by: Method | None = None,
) -> Model:
    digest, ordered, reads = None, False, False
    if by is not None:
        digest, ordered, reads = by.digest, by.about.pair, by.about.reads_spectra
    id_ = recipe_id(recipe, identities, digest, ordered=ordered)
    return Model(id_, kind, base, variant, subset, experts, recipe, reads)
