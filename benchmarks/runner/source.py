"""The digest of a method's source: what it does, whatever its comments say. Standard library only; imports nothing.

It covers the syntax trees of the method's module and of everything in ``clcr`` and ``baselines`` that it imports,
directly or not, late imports included. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ("clcr", "baselines")


@cache
def source_digest(module: str, root: Path = ROOT) -> str:
    """SHA-256 of the source that a module rests on, as a hex string; ``root`` holds the packages."""
    digest = hashlib.sha256()
    for name in sorted(closure(module, root)):
        digest.update(f"{name}\n{_tree(_path(name, root))}\n".encode())
    return digest.hexdigest()


def closure(module: str, root: Path = ROOT) -> set[str]:
    """A module and all project-local modules that it names in an import, directly or not. The __init__ of a package
    counts only where it is imported by name: a new row in the table of methods changes no method."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(_path(name, root), root)
    return found


def _path(module: str, root: Path) -> Path:
    stem = root.joinpath(*module.split("."))
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


def _imports(path: Path, root: Path) -> Iterator[str]:
    for node in ast.walk(_parse(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in LOCAL:
                yield name if _path(name, root).is_file() else name.rpartition(".")[0]


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _tree(path: Path) -> str:
    return "".join(_dump(_parse(path)))


def _dump(node: object) -> Iterator[str]:
    """A tree as text. Empty fields are left out: Python versions differ in which of them there are."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                yield f"{name}="
                yield from _dump(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            if not _is_docstring(item):
                yield from _dump(item)
        yield "]"
    else:
        yield f"{node!r},"


def _is_docstring(node: object) -> bool:
    """Any statement that is a string alone: it does nothing, wherever it stands."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
