"""One pair of runs, example by example, from the committed predictions: McNemar and the bootstrap over groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import archive
from benchmarks.record import RunKey
from benchmarks.report.collect import FULL, OURS, Group, label
from benchmarks.report.layout import DASH, Cell, Section, interval, name_of, p_text, signed
from benchmarks.report.resampling import mcnemar_exact, paired_bootstrap
from benchmarks.report.statistics import Array, holm

LEAST_GROUPS = 20  # a percentile bootstrap of fewer groups is too narrow, and claims too much
DRAWS = 1000
COLUMNS = ("CLCR against", "Examples", "Groups", "Difference [95 % interval]", "McNemar p", "p (Holm)")
Arrays = Mapping[str, NDArray[np.generic]]


class Examples:
    """Builds the section of a group from <folder>/<benchmark>.npz; no section where predictions are absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Mapping[str, NDArray[np.generic]]] = {}

    def __call__(self, group: Group) -> Sequence[Section]:
        """At most one section: CLCR against each rival at the lowest seed that all of them have."""
        seeds = {m: set(group.values((m, FULL), group.spec.main_metric)) for m in group.methods}
        rivals = [m for m in group.methods if m != OURS and seeds[m]]
        shared = sorted(set.intersection(*(seeds.get(m, set()) for m in (OURS, *rivals))))
        path = self.folder / f"{group.key.benchmark}.npz"
        if not rivals or not shared or not path.exists():
            return []
        seed = shared[0]
        found = {m: self._arrays(path, group, m, seed) for m in (OURS, *rivals)}
        pairs = {m: (found[OURS], found[m]) for m in rivals if _same(found[OURS], found[m])}
        return [_section(group, seed, pairs)] if pairs else []

    def _arrays(self, path: Path, group: Group, method: str, seed: int) -> Arrays:
        if path.name not in self._open:
            self._open[path.name] = archive.read_npz(path)
        key = group.key
        run = RunKey(key.benchmark, key.protocol, key.data, key.profile, method, FULL, seed)
        runs = group.runs
        digest = runs[(runs["method"] == method) & (runs["variant"] == FULL) & (runs["seed"] == seed)]["predictions"]
        return archive.predictions_of(self._open[path.name], run, str(digest.iloc[0]))


def _same(a: Arrays, b: Arrays) -> bool:
    return np.array_equal(a["index"], b["index"]) and np.array_equal(a["target"], b["target"])


def _section(group: Group, seed: int, pairs: Mapping[str, tuple[Arrays, Arrays]]) -> Section:
    classify = group.spec.task == "classification"
    tested = [mcnemar_exact(*(_score(group, x) > 0 for x in pair)) for pair in pairs.values()] if classify else []
    corrected = dict(zip(pairs, zip(tested, holm(tested), strict=True), strict=True)) if classify else {}
    rows = [(Cell(label(m)), *_cells(group, pair, corrected.get(m))) for m, pair in pairs.items()]
    unit = group.protocol.group
    facts = (
        f"Main metric of the runs with seed {seed}: what other test examples would change for these trained models, "
        "not what another training would.",
        f"Interval: paired bootstrap over {f'whole {unit}s' if unit else 'examples'}, {DRAWS} draws.",
        *([f"Test: exact McNemar; family: the {len(rows)} of this table; correction: Holm."] if classify else []),
    )
    notes = [f"Examples of one {unit} are not independent, which McNemar assumes: trust the interval."] * bool(unit)
    return Section(f"One pair of runs, {name_of(group)}", COLUMNS, tuple(rows), facts, tuple(notes))


def _score(group: Group, arrays: Arrays) -> Array:
    """Per example, what the main metric is the mean of: right or wrong, or the absolute error."""
    prediction, target = np.asarray(arrays["prediction"]), np.asarray(arrays["target"])
    if group.spec.task == "classification":
        return np.asarray(prediction.argmax(axis=1) == target, dtype=np.float64)
    return np.abs(prediction.astype(np.float64) - target.astype(np.float64))


def _mean(score: NDArray[np.generic], _: NDArray[np.generic]) -> float:
    return float(np.mean(score.astype(np.float64)))


def _cells(group: Group, pair: tuple[Arrays, Arrays], tested: tuple[float, float] | None) -> tuple[Cell, ...]:
    ours, theirs = (_score(group, arrays) for arrays in pair)
    labels = pair[0].get("group")
    groups = len(ours) if labels is None else len(np.unique(labels))
    gap = DASH
    if groups >= LEAST_GROUPS:
        found = paired_bootstrap(_mean, ours, (ours, theirs), labels, DRAWS)
        metric = group.spec.main_metric
        gap = f"{signed(metric, found.value)} {interval(metric, found.low, found.high)}"
    p, p_holm = (p_text(tested[0]), p_text(tested[1])) if tested else (DASH, DASH)
    return tuple(Cell(text) for text in (str(len(ours)), str(groups) if labels is not None else DASH, gap, p, p_holm))
