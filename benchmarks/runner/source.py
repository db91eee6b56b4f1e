"""The digest of a method's source: what it does, whatever its comments say. Imports none of what it reads.

It covers the syntax trees of the method's module and of everything in ``clcr`` and ``baselines`` that it imports,
directly or not, late imports included; of a method from another package also all that it imports of that package,
with the ``__init__`` of each package on the way. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.methods import PACKAGES, module_file

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ("clcr", "baselines")


@cache
def source_digest(module: str, root: Path = ROOT) -> str:
    """SHA-256 of the source that a module rests on, as a hex string; ``root`` holds the packages of the suite."""
    digest = hashlib.sha256()
    for name in sorted(closure(module, root)):
        digest.update(f"{name}\n{_tree(_path(name, root))}\n".encode())
    return digest.hexdigest()


def closure(module: str, root: Path = ROOT) -> set[str]:
    """A module and all modules of the suite, and of its own package, that it names in an import, directly or not. The
    __init__ of one of the suite's packages counts only where it is imported by name: a new row in the table of methods
    changes no method."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name, root)
    return found


def _path(module: str, root: Path) -> Path:
    if module.partition(".")[0] not in PACKAGES:
        return module_file(module)
    stem = root.joinpath(*module.split("."))
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


def _is_module(name: str, root: Path) -> bool:
    try:
        return _path(name, root).is_file()
    except LookupError:
        return False


def _imports(module: str, root: Path) -> Iterator[str]:
    path, top = _path(module, root), module.partition(".")[0]
    followed = LOCAL if top in PACKAGES else (*LOCAL, top)
    if top not in PACKAGES:
        parts = module.split(".")
        parents = (".".join(parts[:end]) for end in range(1, len(parts)))
        yield from (name for name in parents if _is_module(name, root))
    for node in ast.walk(_parse(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = _start(node, module, path)
            names = [f"{start}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] in followed:
                yield from [each for each in (name, name.rpartition(".")[0]) if each and _is_module(each, root)][:1]


def _start(node: ast.ImportFrom, module: str, path: Path) -> str:
    """What stands between "from" and "import", relative names made absolute."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    package = parts[: len(parts) - node.level + (path.name == "__init__.py")]
    return ".".join([*package, *([node.module] if node.module else [])])


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
