"""Synthetic runs of studies: made-up numbers for tests of the findings, never results of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from synthetic_records import append, make, noise, write_records

from benchmarks import studies
from benchmarks.curves import Course, Curve, identity
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.collect import load_spec
from benchmarks.report.sections.data import keys_of_study

LEVELS = {"clcr": 0.70, "late_fusion": 0.69, "ogm_ge": 0.68, "misa": 0.66, "linear": 0.62}
SPREAD = 0.006
Shift = Callable[[RunKey], float]


def record(key: RunKey, shift: float = 0.0, **changes: object) -> RunRecord:
    """A finished run whose scores are its method's level, the shift (upwards is better) and noise of seed and run."""
    spec = load_spec(key.benchmark)
    modalities = range(len(spec.protocol(key.protocol).modalities))
    values = {name: _value(name, key, shift) for name in spec.metrics}
    part = float(key.profile.rpartition("share-")[2]) / 100 if "share-" in key.profile else 0.7
    participation = {f"participation.{level}.{m}": part for level in range(3) for m in modalities}
    what = {"config": {"training": {"epochs": 12}, "variant": key.variant}, "data_digest": f"{key.seed}"}
    given = {
        "metrics": {"test": values, "valid": values},
        "diagnostics": participation,
        "selection": {"metric": spec.main_metric, "epoch": 3, "value": 0.5},
        "what": what,
    }
    return make(key, values, **{**given, **changes})


def _value(metric: str, key: RunKey, shift: float) -> float:
    level = LEVELS.get(key.method, 0.55) + shift
    shared, own = noise(f"{metric}{key.benchmark}{key.seed}"), noise(f"{metric}{key}")
    value = level + SPREAD * (0.7 * shared + own)
    return 1.6 - value if metric == "mae" else value


def main_keys(name: str) -> list[RunKey]:
    """The main tables' runs that a study is compared with, and CLCR's ablations of them."""
    study = studies.declared()[1][name]
    seeds = sorted({key.seed for key in keys_of_study(study)})
    variants = ("no_hierarchy", "no_intraced", "no_intercad", "full_mix", "no_reg", "dense_budget")
    rows = sorted({(key.method, key.variant) for key in keys_of_study(study)} | {("clcr", v) for v in variants})
    return [
        RunKey(*place.split("."), study.data, study.profile, *row, seed)  # type: ignore[misc]
        for place in study.protocols
        for row in rows
        for seed in seeds
    ]


def written(out: Path, names: Iterable[str] = (), shift: Shift = lambda _: 0.0, curves: bool = False) -> Path:
    """<out> with the main runs of the named studies (all without a name) and the runs of these studies."""
    names = list(names) or list(studies.declared()[1])
    main = dict.fromkeys(key for name in names for key in main_keys(name))
    runs = dict.fromkeys(key for name in names for key in keys_of_study(studies.declared()[1][name]))
    known = [record(key, shift(key)) for key in main]
    others = [record(key, shift(key)) for key in runs if key not in main]
    write_records(out, known)
    write_records(out / "studies", others)
    if curves:
        _curves(out, known)
        _curves(out / "studies", others)
    return out


def _curves(out: Path, records: Sequence[RunRecord]) -> None:
    lines = []
    for one in records:
        metric = load_spec(one.key.benchmark).main_metric
        rise = -0.3 if metric == "mae" else 0.3
        scores = tuple(0.6 + rise * (1 - 1 / n) + 0.01 * noise(f"{one.key}{n}") for n in range(1, 13))
        course = Course(tuple(1 / n for n in range(1, 13)), scores)
        lines.append((one.key.benchmark, Curve(metric, "valid", (course,)).line(identity(one))))
    append(out / "curves", lines)


def searched(out: Path, trials: int = 6) -> Path:
    """<out>/search/open.jsonl with made-up trials of two methods."""
    rows = [
        {"benchmark": "cmu_mosi", "protocol": "transcripts", "profile": "open", "method": method, "time_s": 36.0}
        for method in ("clcr", "misa")
        for _ in range(trials)
    ]
    append(out / "search", (("open", json.dumps(row)) for row in rows))
    return out
