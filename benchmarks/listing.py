"""What ``clcr list`` lists, section by section, as plain data. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS, catalog
from benchmarks.errors import InputError
from benchmarks.methods import METHODS
from benchmarks.metrics import METRICS
from benchmarks.runner import launch, plan
from benchmarks.runner.names import base_of
from benchmarks.spec import BenchmarkSpec, Protocol


def sections(names: Iterable[str], cache: Path) -> dict[str, Any]:
    """The sections of these names; ``cache`` tells which data is prepared."""
    makers: Mapping[str, Callable[[], Any]] = {
        "benchmarks": lambda: _benchmarks(cache),
        "methods": _methods,
        "variants": lambda: {row["name"]: list(METHODS[base_of(row["name"])].every_variant) for row in _methods()},
        "launchers": lambda: list(launch.LAUNCHERS),
        "metrics": _metrics,
        "protocols": _protocols,
    }
    return {name: makers[name]() for name in names}


def _benchmarks(cache: Path) -> list[dict[str, Any]]:
    rows = []
    for name in BENCHMARKS:
        spec = catalog.spec(name)
        protocol, data = _now(name, cache)
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "task": spec.task,
                "modalities": [modality.name for modality in protocol.modalities],
                "n_classes": protocol.n_classes,
                "protocols": [each.name for each in spec.protocols],
                "main_metric": spec.main_metric,
                "data": data,
            }
        )
    return rows


def _now(name: str, cache: Path) -> tuple[Protocol, str]:
    """The protocol that a plain run takes now, and its data: prepared, twin, or missing (an open set, not prepared)."""
    try:
        protocol, data = catalog.choose(name, None, "auto", cache)
    except InputError:
        return catalog.spec(name).protocols[0], "missing"
    # the benchmark's own classes and modalities, also where its smaller twin stands in
    return catalog.spec(name).protocol(protocol.name), "prepared" if data == "real" else "twin"


def _methods() -> list[dict[str, Any]]:
    rows = []
    for name in plan.method_names():
        row = METHODS[base_of(name)]
        modality = name.removeprefix(f"{row.name}_") if name != row.name else ""
        if row.per_modality and not modality:
            continue
        label = f"{row.label} ({modality})" if modality else row.label
        told = {"name": name, "label": label, "from": row.origin or "this suite", "year": row.year}
        rows.append({**told, "citation": row.citation})
    return rows


def _metrics() -> list[dict[str, Any]]:
    return [{"name": m.name, "direction": m.direction, "unit": m.unit, "title": m.title} for m in METRICS.values()]


def _protocols() -> list[dict[str, Any]]:
    return [
        {
            "benchmark": name,
            "name": protocol.name,
            "title": protocol.title,
            "modalities": [modality.name for modality in protocol.modalities],
            "folds": protocol.folds,
            "selection": protocol.selection,
            "group": protocol.group,
            "shared_groups": _shared(catalog.spec(name), protocol),
            "note": protocol.note,
        }
        for name in BENCHMARKS
        for protocol in catalog.spec(name).protocols
    ]


def _shared(spec: BenchmarkSpec, protocol: Protocol) -> dict[str, int] | None:
    """The leakage report: how many groups two splits have in common, by the official lists. A protocol that says that
    none is shared is refused where one is (catalog.check_arrangement). None: no groups, or it varies with the seed."""
    if protocol.name in spec.leaks:
        return dict(spec.leaks[protocol.name])
    return None if protocol.group is None or protocol.groups_shared else {"train/test": 0}


def as_table(name: str, rows: Any) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
    """A section as columns and rows for people."""
    if isinstance(rows, Mapping):
        return ("method", "variants"), [(method, ", ".join(variants)) for method, variants in rows.items()]
    if rows and isinstance(rows[0], Mapping):
        return tuple(rows[0]), [[_cell(value) for value in row.values()] for row in rows]
    return (name.removesuffix("s"),), [(row,) for row in rows]


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
