"""Every method that can run here: the suite's rows, and behind them those that installed packages add.

A package adds a method by an entry point of group ``clcr.methods``, ``name = "module:Class"``, and its module states
the row as a literal: ``ROW = {"label": "...", "citation": "...", "year": 2018}``, with ``variants`` and ``further``
where it has them (baselines.MethodRow says what they mean). The literal is read from the file's text: to
list or to plan runs no code of a package, and torch is not loaded. The suite's rows cannot be shadowed or changed:
their names are taken, and a package that wants one is refused. Standard library only.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import baselines
from baselines import MethodRow
from benchmarks.errors import InputError, unknown

GROUP = "clcr.methods"
PACKAGES = ("clcr", "baselines", "benchmarks")
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
LONGEST = {"label": 60, "citation": 300}
FIELDS = ("label", "citation", "year", "variants", "further")
NEEDED = FIELDS[:3]


class _Methods(Mapping[str, MethodRow]):
    """The suite's rows in their order, then those of installed packages by name; packages are looked for when a name
    is not the suite's, or when all are wanted."""

    def __getitem__(self, name: str) -> MethodRow:
        return baselines.METHODS[name] if name in baselines.METHODS else installed()[name]

    def __iter__(self) -> Iterator[str]:
        yield from baselines.METHODS
        yield from installed()

    def __len__(self) -> int:
        return len(baselines.METHODS) + len(installed())


METHODS: Mapping[str, MethodRow] = _Methods()


def belongs(name: str) -> bool:
    """Whether a name is one of the suite's methods, ``unimodal_<modality>`` included."""
    rows = baselines.METHODS
    return name in rows or any(row.per_modality and name.startswith(f"{row.name}_") for row in rows.values())


@cache
def installed() -> dict[str, MethodRow]:
    """The rows of installed packages, by name. InputError, with the package, for one that cannot be taken."""
    rows: dict[str, MethodRow] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, origin(point))):
        where = f"package {origin(point)}: entry point {point.name!r} of group {GROUP}"
        if not NAME.fullmatch(point.name) or point.name == "all":
            raise InputError(f"{where}: not a method's name; use small letters, digits and _, at most 40")
        if belongs(point.name):
            raise InputError(f"{where}: the suite has a method of this name; rename it, or uninstall the package")
        if point.name in rows:
            raise InputError(f"{where}: {rows[point.name].origin} has a method of this name; uninstall one of them")
        rows[point.name] = _row(point, where)
    return rows


def origin(point: EntryPoint) -> str:
    """The distribution of an entry point, "name version"."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "without a name"


def _row(point: EntryPoint, where: str) -> MethodRow:
    if not re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", point.value):
        raise InputError(f"{where}: {point.value!r} is not module:Class; correct it in pyproject.toml")
    if point.module.partition(".")[0] in PACKAGES:
        raise InputError(f"{where}: {point.module} is a module of the suite; point it at a module of the package")
    try:
        path = module_file(point.module)
    except LookupError as error:
        raise InputError(f"{where}: {error}; install the package again") from None
    fields = _literal(path)
    _check(fields, f"{path}: ROW")
    for name in ("variants", "further"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return MethodRow(point.name, point.value, origin=origin(point), **fields)


def _literal(path: Path) -> dict[str, Any]:
    """The dictionary that a module assigns to ROW, read from its text."""
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "ROW" for target in targets):
                found = ast.literal_eval(node.value)  # type: ignore[attr-defined]
                if isinstance(found, dict):
                    return found
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{path}: ROW cannot be read ({' '.join(str(error).split())}); write it as a literal"
        ) from None
    raise InputError(f'{path}: no ROW = {{"label": ..., "citation": ..., "year": ...}}; add it as a literal')


def _check(fields: Mapping[Any, Any], where: str) -> None:
    for name in fields:
        if name not in FIELDS:
            raise unknown("field", str(name), FIELDS, where)
    for name in NEEDED:
        if name not in fields:
            raise InputError(f"{where}: field {name!r} is missing; add it")
    for name, most in LONGEST.items():
        text = fields[name]
        if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > most:
            raise InputError(f"{where}: field {name!r} is {text!r}; write one line of 1 to {most} characters")
    if type(fields["year"]) is not int:
        raise InputError(f"{where}: field 'year' is {fields['year']!r}; write a number")
    variants = [*fields.get("variants", ("full",)), *fields.get("further", ())]
    if not all(isinstance(name, str) and NAME.fullmatch(name) and name != "all" for name in variants):
        raise InputError(f"{where}: field 'variants' is {variants!r}; use small letters, digits and _")
    if variants[:1] != ["full"] or len(set(variants)) < len(variants):
        raise InputError(f"{where}: field 'variants' is {variants!r}; name each once, 'full' first")


def module_file(module: str) -> Path:
    """The .py file of a module, found without importing it. LookupError where there is none."""
    top, *rest = module.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(top)
    except ValueError:
        spec = None
    name = top
    for part in rest:
        name = f"{name}.{part}"
        places = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(name, places) if places else None
    if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
        raise LookupError(f"module {module} has no .py file")
    return Path(str(spec.origin))
