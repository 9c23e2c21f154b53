"""The merge methods: one file each, found by name, no registration.

A method is a function whose first parameter is annotated `TaskVectors`; its keyword-only parameters are
the hyperparameters and their defaults are the preset `paper`. It sees one tensor of the model at a time
and returns the update to add to the base, as a tensor or as an elementwise rule, optionally with a
dictionary of facts for the merge report (see `wildmerge.vectors.task_vectors`). What it is called in
print, and where it comes from, stands above it (see `wildmerge.methods.declaration`).

All this is read from the source text, so that naming, checking and hashing a recipe never imports torch.
Files outside of this folder join in from folders that a study or the command line names.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field, create_model

from wildmerge.errors import Refusal, unknown
from wildmerge.methods.declaration import (
    Count,
    Family,
    Positive,
    Preset,
    Share,
    Threshold,
    Weights,
)
from wildmerge.methods.source import code_digest, is_about, last_name, parse_source
from wildmerge.validation import parse

VARIABLE = "WILDMERGE_METHODS"
"""Environment variable that names folders of methods for single merges, separated like PATH."""

_OWN = Path(__file__).parent
_GIVEN_BY_RECIPE = {"null_space"}
_KINDS: dict[str, Any] = {
    "Share": Share,
    "Threshold": Threshold,
    "Positive": Positive,
    "Count": Count,
    "Weights": Weights,
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
}


class About(PydanticModel):
    """What a method's file declares of it; see `declaration.about`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    family: Family = "weight-space"
    source: str = ""
    presets: dict[Preset, dict[str, Any]] = {}
    reads_spectra: bool = False
    pair: bool = False
    versioned: bool = False


@dataclass(frozen=True)
class Method:
    """A merge method as its source states it: name, file, first docstring line, hyperparameters."""

    name: str
    path: Path
    summary: str
    about: About
    hyperparameters: type[PydanticModel]
    takes_null_space: bool
    digest: str | None
    """SHA-256 of the code without comments, docstrings and `about`; None for a versioned method."""

    def complete(self, given: dict[str, Any], preset: Preset = "paper") -> dict[str, Any]:
        """Return `given` with every hyperparameter written out; raises Refusal for a bad one."""
        chosen = {**self.about.presets.get(preset, {}), **given}
        model = parse(self.hyperparameters, chosen, self.name)
        return model.model_dump(by_alias=True)

    def describe(self) -> str:
        """Say in lines of text what it is, where it comes from and what can be set."""
        parameters = ", ".join(f"{k}: {json.dumps(v)}" for k, v in self.complete({}).items())
        source = f"; {self.about.source}" if self.about.source else ""
        return (
            f"{self.name:<20} {self.summary}\n"
            f"{'':<20} {self.about.label} ({self.about.family}){source}\n"
            f"{'':<20} {{{parameters}}}"
        )

    def row(self) -> dict[str, str]:
        """Return its row of methods.csv: what a study's tables and figures call it."""
        about = self.about
        return {
            "method": self.name,
            "label": about.label,
            "family": about.family,
            "source": about.source,
        }

    def load(self) -> Callable[..., Any]:
        """Import the method's file and return its function (this is what imports torch)."""
        if self.path.parent == _OWN:
            module = importlib.import_module(f"wildmerge.methods.{self.path.stem}")
        else:
            folder = str(self.path.parent)
            if folder not in sys.path:
                sys.path.append(folder)  # for its helper modules
            spec = importlib.util.spec_from_file_location(f"wildmerge_{self.path.stem}", self.path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        function: Callable[..., Any] = getattr(module, self.name)
        return function


def get(name: str, folders: Sequence[Path] = ()) -> Method:
    """Return the method called `name`; raises Refusal with a suggestion."""
    methods = discover(folders)
    if name not in methods:
        raise Refusal(unknown("method", name, methods))
    return methods[name]


def discover(folders: Sequence[Path] = ()) -> dict[str, Method]:
    """Return every method by name, those of wildmerge and those in `folders`.

    Raises:
        Refusal: a folder is missing, a file cannot be read, a name stands in two files.
    """
    found: dict[str, Method] = {}
    for folder in (_OWN, *folders):
        if not folder.is_dir():
            raise Refusal(f"{folder}: no folder of methods; check methods_dir or {VARIABLE}")
        code = sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])
        stamp = tuple(file.stat().st_mtime_ns for file in code)
        for path in sorted(folder.glob("*.py")):
            for method in _read(path, stamp):
                if method.name in found:
                    raise Refusal(
                        f"{path} defines the method '{method.name}', and so does "
                        f"{found[method.name].path}: rename one of the functions"
                    )
                found[method.name] = method
    return dict(sorted(found.items()))


def folders_of_environment() -> list[Path]:
    """Return the folders that WILDMERGE_METHODS names: for single merges; a study names its own."""
    return [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]


# --- reading a method's file ----------------------------------------------------------------------


@cache
def _read(path: Path, stamp: tuple[int, ...]) -> list[Method]:
    """Parse a file and return the methods it defines (`stamp`, of its folder, only keys the cache)."""
    del stamp
    tree = parse_source(path)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [_describe(f, path, tree) for f in functions if _takes_task_vectors(f)]


def _takes_task_vectors(function: ast.FunctionDef) -> bool:
    first = function.args.args[0].annotation if function.args.args else None
    public = not function.name.startswith("_")
    return public and first is not None and ast.unparse(first).strip("'\"") == "TaskVectors"


def _describe(function: ast.FunctionDef, path: Path, tree: ast.Module) -> Method:
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    about = _about(function, path)
    if about.versioned and path.parent != _OWN:
        raise Refusal(f"{path}: {function.name}(): only wildmerge's own methods are versioned")
    return Method(
        name=function.name,
        path=path,
        summary=(ast.get_docstring(function) or "").split("\n")[0],
        about=about,
        hyperparameters=create_model(
            function.name, __config__=strict, **dict(_hyperparameters(function, path))
        ),
        takes_null_space="null_space" in [argument.arg for argument in function.args.kwonlyargs],
        digest=None if about.versioned else code_digest(path),
    )


def _about(function: ast.FunctionDef, path: Path) -> About:
    """Read `@about(...)` above a function; a method without it goes by its function's name."""
    where = f"{path}: about() of {function.name}()"
    for call in filter(is_about, function.decorator_list):
        assert isinstance(call, ast.Call)
        try:
            values = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        except ValueError:
            raise Refusal(f"{where}: only literals may stand in it; write them out") from None
        return parse(About, values, where)
    return About(label=function.name)


def _hyperparameters(function: ast.FunctionDef, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield name, type and default of each hyperparameter, as pydantic wants its fields."""
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.arg in _GIVEN_BY_RECIPE:
            continue
        where = f"{path}: hyperparameter '{argument.arg}' of {function.name}()"
        if argument.annotation is None or default is None:
            raise Refusal(f"{where} needs a type and a default (the default is its preset)")
        try:
            kind, value = _kind(argument.annotation), ast.literal_eval(default)
        except ValueError:
            raise Refusal(
                f"{where}: its type must be one of {', '.join(_KINDS)}, Literal[...] or one of them "
                "`| None`, and its default a literal"
            ) from None
        # `lambda_` in Python is `lambda` in a study: the keyword cannot name a parameter
        yield argument.arg, (kind, Field(value, alias=argument.arg.rstrip("_")))


def _kind(annotation: ast.expr) -> Any:
    """Return the type that an annotation names; raises ValueError for one that is not known."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return Union[_kind(annotation.left), _kind(annotation.right)]  # noqa: UP007 - at run time
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return None
    if isinstance(annotation, ast.Subscript) and last_name(annotation.value) == "Literal":
        values = ast.literal_eval(annotation.slice)
        return Literal[values if isinstance(values, tuple) else (values,)]
    if last_name(annotation) not in _KINDS:
        raise ValueError(ast.unparse(annotation))
    return _KINDS[last_name(annotation)]
