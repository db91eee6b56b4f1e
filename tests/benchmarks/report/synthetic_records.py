"""Synthetic run records: made-up numbers for tests of the report, never results of a model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Course, Curve, identity
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.collect import load_spec
from benchmarks.spec import BenchmarkSpec, Protocol

Write = Callable[[Iterable[RunRecord]], Path]
METHODS = {"clcr": 0.70, "late_fusion": 0.66, "misa": 0.69, "unimodal_audio": 0.50, "linear": 0.60}


@dataclass(frozen=True)
class Sweep:
    """A sweep of synthetic records: value = level of the row + noise of the seed (shared) + noise of the run."""

    benchmark: str = "crema_d"
    protocol: str = "paper"
    data: str = "twin"
    profile: str = "tiny"
    levels: Mapping[str, float] = field(default_factory=lambda: METHODS)
    variants: Mapping[str, float] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    spread: float = 0.004

    def records(self) -> list[RunRecord]:
        rows = [(m, "full", level) for m, level in self.levels.items()]
        rows += [("clcr", variant, level) for variant, level in self.variants.items()]
        return [self.record(m, v, seed, level) for m, v, level in rows for seed in self.seeds]

    def record(self, method: str, variant: str, seed: int, level: float) -> RunRecord:
        key = RunKey(self.benchmark, self.protocol, self.data, self.profile, method, variant, seed)
        values = {name: self.value(name, key, level) for name in load_spec(self.benchmark).metrics}
        return make(key, values)

    def value(self, metric: str, key: RunKey, level: float) -> float:
        shared, own = noise(f"{metric}{key.benchmark}{key.seed}"), noise(f"{metric}{key}")
        return level + self.spread * (0.7 * shared + own)


def write_records(out: Path, records: Iterable[RunRecord]) -> Path:
    """Append records to <out>/records/<benchmark>.jsonl; returns <out>."""
    append(out / "records", ((r.key.benchmark, json.dumps(r.to_json(), sort_keys=True)) for r in records))
    return out


def write_curves(out: Path, records: Iterable[RunRecord], epochs: int, folds: int = 1) -> Path:
    """Append made-up learning curves, one a run, to <out>/curves/<benchmark>.jsonl; returns <out>."""
    course = Course(tuple(1 / n for n in range(1, epochs + 1)), tuple(1 - 0.5 / n for n in range(1, epochs + 1)))
    made = Curve("accuracy", "valid", (course,) * folds)
    append(out / "curves", ((r.key.benchmark, made.line(identity(r))) for r in records))
    return out


def append(folder: Path, lines: Iterable[tuple[str, str]]) -> None:
    """Append lines to the files that they are named with."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name: dict[str, list[str]] = {}
    for name, line in lines:
        by_name.setdefault(name, []).append(line)
    for name, some in by_name.items():
        with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in some))


def noise(name: str) -> float:
    """A standard normal number that depends on the name alone."""
    return float(np.random.default_rng(zlib.crc32(name.encode())).standard_normal())


def make(key: RunKey, values: Mapping[str, float], minute: int = 0, **changes: Any) -> RunRecord:
    """A finished synthetic record."""
    record = RunRecord(
        key=key,
        what={
            "config": {"method": {"variant": key.variant}},
            "source_digest": key.method,
            "data_digest": f"{key.seed}",
        },
        status="done",
        metrics={"test": dict(values), "valid": dict(values)},
        n_parameters=1000 + len(key.method),
        time_s=1.5 + key.seed,
        peak_memory_bytes=2**28,
        predictions=f"{key}",
        provenance={"device": "cpu", "finished_at": f"2026-01-01T00:{minute:02d}:00+00:00"},
    )
    return replace(record, **changes)


TOY = BenchmarkSpec(
    name="toy",
    title="Toy set",
    task="regression",
    protocols=(
        Protocol("main", "Main split", (), None, note="Made up."),
        Protocol("leaky", "Leaky split", (), None, group="video", groups_shared=True, selection="test"),
    ),
    metrics=("mae", "acc2_non0"),
    main_metric="mae",
    citation="none",
    licence="none",
    source="none",
    twin_protocol="main",
)


def toy(method: str, seed: int, mae: float, **changes: Any) -> RunRecord:
    """A record of the made-up benchmark with hand-picked numbers."""
    key = RunKey("toy", "main", changes.pop("data", "twin"), "tiny", method, changes.pop("variant", "full"), seed)
    return make(key, {"mae": mae, "acc2_non0": 1 - mae / 2}, **changes)
