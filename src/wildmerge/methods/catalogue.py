"""The merge methods: one file each, found by name, no registration.

A method is a function whose first parameter is annotated `TaskVectors`; its keyword-only parameters are
the hyperparameters and their defaults are the preset `paper`. It sees one tensor of the model at a time
and returns the update to add to the base, as a tensor or as an elementwise rule, optionally with a
dictionary of facts for the merge report (see `wildmerge.vectors.task_vectors`).

Signatures are read from the source text, so that naming, checking and hashing a recipe never imports
torch. Files outside this folder join in through the environment variable WILDMERGE_METHODS (folders,
separated like PATH).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field, create_model

from wildmerge.errors import Refusal, unknown
from wildmerge.validation import parse

Share = Annotated[float, Field(gt=0, le=1)]
"""A hyperparameter in (0, 1]: a density."""
Threshold = Annotated[float, Field(ge=0, le=1)]
"""A hyperparameter in [0, 1]: a fraction of a cumulative sum."""
Weights = list[Annotated[float, Field(gt=0)]]
"""One positive weight an expert, in the order of the recipe's experts."""
NullSpace = Literal["keep", "drop"]
"""What happens to directions in which no expert moved; given by the recipe, not by the method."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {},
    "text": {
        "task_arithmetic": {"scale": "sum"},
        "task_arithmetic_sb": {"scale": "sum"},
        "ties": {"divisor": "n"},
        "ties_sb": {"divisor": "n"},
    },
}
"""Changes to the methods' defaults: `paper` is what the published numbers imply, `text` what Eq. 2 and 3
of the paper literally say."""

_ANNOTATIONS = {
    "Share": Share,
    "Threshold": Threshold,
    "Weights": Weights,
    "Literal": Literal,
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
}
_GIVEN_BY_RECIPE = {"null_space"}


@dataclass(frozen=True)
class Method:
    """A merge method as its source states it: name, file, first docstring line, hyperparameters."""

    name: str
    path: Path
    summary: str
    hyperparameters: type[PydanticModel]
    takes_null_space: bool
    digest: str | None
    """SHA-256 of the code without comments and docstrings; None for the methods of this package, whose
    numerics are versioned by hand (`recipe.NUMERICS`), so that rewording them recomputes nothing."""

    def complete(self, given: dict[str, Any], preset: str = "paper") -> dict[str, Any]:
        """Return `given` with every hyperparameter written out; raises Refusal for a bad one."""
        chosen = {**PRESETS[preset].get(self.name, {}), **given}
        model = parse(self.hyperparameters, chosen, self.name)
        return model.model_dump(by_alias=True)

    def load(self) -> Callable[..., Any]:
        """Import the method's file and return its function (this is what imports torch)."""
        if self.path.parent == Path(__file__).parent:
            module = importlib.import_module(f"wildmerge.methods.{self.path.stem}")
        else:
            spec = importlib.util.spec_from_file_location(f"wildmerge_{self.path.stem}", self.path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        function: Callable[..., Any] = getattr(module, self.name)
        return function


def get(name: str) -> Method:
    """Return the method called `name`; raises Refusal with a suggestion."""
    methods = discover()
    if name not in methods:
        raise Refusal(unknown("method", name, methods))
    return methods[name]


def discover() -> dict[str, Method]:
    """Return every method by name, from this folder and from those in WILDMERGE_METHODS."""
    own = Path(__file__).parent
    extra = [Path(p) for p in os.environ.get("WILDMERGE_METHODS", "").split(os.pathsep) if p]
    found: dict[str, Method] = {}
    for folder in (own, *extra):
        if not folder.is_dir():
            raise Refusal(f"WILDMERGE_METHODS names {folder}, which is not a folder")
        for path in sorted(folder.glob("*.py")):
            for method in _read(path, path.stat().st_mtime_ns):
                if method.name in found:
                    raise Refusal(
                        f"{path} defines the method '{method.name}', and so does "
                        f"{found[method.name].path}: rename one of the functions"
                    )
                found[method.name] = method
    return dict(sorted(found.items()))


@cache
def _read(path: Path, mtime_ns: int) -> list[Method]:
    """Parse a file and return the methods it defines (`mtime_ns` only keys the cache)."""
    del mtime_ns
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [_describe(f, path, tree) for f in functions if _takes_task_vectors(f)]


def _takes_task_vectors(function: ast.FunctionDef) -> bool:
    first = function.args.args[0].annotation if function.args.args else None
    public = not function.name.startswith("_")
    return public and first is not None and ast.unparse(first).strip("'\"") == "TaskVectors"


def _describe(function: ast.FunctionDef, path: Path, tree: ast.Module) -> Method:
    fields: dict[str, Any] = {}
    names = [argument.arg for argument in function.args.kwonlyargs]
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.arg in _GIVEN_BY_RECIPE:
            continue
        if argument.annotation is None or default is None:
            raise Refusal(
                f"{path}: hyperparameter '{argument.arg}' of {function.name}() needs a type and a "
                "default (the default is its preset)"
            )
        # `lambda_` in Python is `lambda` in a study: the keyword cannot name a parameter
        kind = eval(ast.unparse(argument.annotation), {}, _ANNOTATIONS)  # noqa: S307 - own source
        alias = argument.arg.rstrip("_")
        fields[argument.arg] = (kind, Field(ast.literal_eval(default), alias=alias))
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    return Method(
        name=function.name,
        path=path,
        summary=(ast.get_docstring(function) or "").split("\n")[0],
        hyperparameters=create_model(function.name, __config__=strict, **fields),
        takes_null_space="null_space" in names,
        digest=None
        if path.parent == Path(__file__).parent and function.name in PUBLISHED
        else _code_digest(tree),
    )


PUBLISHED = frozenset(
    {
        "iso_c",
        "model_stock",
        "task_arithmetic",
        "task_arithmetic_sb",
        "ties",
        "ties_sb",
        "tsv_m",
    }
)
"""The study's methods, whose numerics are versioned by hand."""


def _code_digest(tree: ast.Module) -> str:
    """Hash what a file does: its syntax tree without docstrings (comments are not in it)."""
    copy = ast.parse(ast.unparse(tree))
    for node in ast.walk(copy):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(copy).encode()).hexdigest()
