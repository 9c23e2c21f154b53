"""The source text of methods: parsed, and hashed by what it does.

Reading it instead of importing it needs no torch, and runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal


def parse_source(path: Path) -> ast.Module:
    """Return a file's syntax tree; raises Refusal for one that is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise Refusal(f"{path}: no valid Python ({error}); mend it") from None


def is_about(decorator: ast.expr) -> bool:
    """Say whether a decorator is `@about(...)`."""
    return isinstance(decorator, ast.Call) and last_name(decorator.func) == "about"


def last_name(node: ast.expr) -> str:
    """Return `name` for the expressions `name` and `module.name`; else nothing."""
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def code_digest(path: Path) -> str:
    """Hash what a method's file does, and the modules beside it that it imports, and those they import.

    Comments, docstrings and `about` do not count, nor does the version of Python.
    """
    codes: dict[str, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(path.parent).as_posix() if file != path else ""
        if name not in codes:
            tree = parse_source(file)
            codes[name] = _canonical(_bare(tree))
            waiting += _modules_beside(tree, path.parent)
    if len(codes) == 1:
        return hashlib.sha256(codes[""].encode()).hexdigest()
    return hashlib.sha256(json.dumps(codes, sort_keys=True).encode()).hexdigest()


def _modules_beside(tree: ast.Module, folder: Path) -> list[Path]:
    """Return the files of the modules in a folder that a file imports; all files of a package."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    files = [folder / f"{name}.py" for name in sorted(names)]
    packages = [file for name in sorted(names) for file in sorted((folder / name).rglob("*.py"))]
    return [file for file in files if file.is_file()] + packages


def _bare(tree: ast.Module) -> ast.Module:
    """Return a syntax tree without docstrings and `about`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not is_about(d)]
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _canonical(node: Any) -> str:
    """Write a syntax tree as text, without fields that are empty: some versions of Python have more."""
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    inside = ",".join(f"{name}={_canonical(value)}" for name, value in fields)
    return f"{type(node).__name__}({inside})"
