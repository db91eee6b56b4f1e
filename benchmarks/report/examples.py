"""One pair of runs, example by example, from the committed predictions: McNemar, and what holds for whole groups.

Examples of one speaker or video are not independent. Where a protocol names such groups, the test that decides swaps
the models' labels within whole groups, and the interval resamples whole groups (benchmarks/report/clusters.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import archive
from benchmarks.metrics import METRICS
from benchmarks.record import RunKey
from benchmarks.report.clusters import (
    Statistic,
    clustered_bootstrap,
    correlation_of,
    group_sums,
    mean_of,
    moments,
    swap_test,
)
from benchmarks.report.collect import FULL, OURS, Group, label
from benchmarks.report.layout import DASH, Cell, Section, count, interval, listed, name_of, p_text, signed
from benchmarks.report.resampling import mcnemar_exact
from benchmarks.report.statistics import ALPHA, Array, holm

LEAST_GROUPS = 20  # below, an interval of resampled groups is not worth its name (results/simulations)
CORR = "corr"
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
        pairs = [Pair(group, m, found[OURS], found[m]) for m in rivals if _same(found[OURS], found[m])]
        others = [label(m) for m in rivals if not _same(found[OURS], found[m])]
        return [_section(group, seed, pairs, others)] if pairs else []

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


@dataclass(frozen=True)
class Pair:
    """CLCR and one rival at one seed, on the same examples."""

    group: Group
    rival: str
    ours: Arrays
    theirs: Arrays

    @property
    def labels(self) -> NDArray[np.generic] | None:
        """The group of each example (n,), or None where examples count as independent."""
        return self.ours.get("group")

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(self.ours["target"])

    @property
    def groups(self) -> int:
        """How many independent parts the test set has."""
        return self.examples if self.labels is None else len(np.unique(self.labels))

    def scores(self) -> tuple[Array, Array]:
        """Per example, what the main metric is the mean of: right or wrong, or the absolute error."""
        return _score(self.group, self.ours), _score(self.group, self.theirs)

    def sums(self, metric: str) -> tuple[Statistic, Array, Array]:
        """A metric as a function of sums per group, and these sums of both models."""
        if metric == CORR:
            both = [moments(_values(x["prediction"]), _values(x["target"])) for x in (self.ours, self.theirs)]
        else:
            both = [score[:, None] for score in self.scores()]
        ours, theirs = (group_sums(columns, self.labels) for columns in both)
        return (correlation_of if metric == CORR else mean_of), ours, theirs

    def mcnemar(self) -> float:
        """p of the exact McNemar test, which takes every example for independent."""
        right = [score > 0 for score in self.scores()]
        return mcnemar_exact(right[0], right[1])

    def p(self) -> tuple[float, float]:
        """p of the test that decides, and the least p that it could have given."""
        if self.labels is None and self.group.spec.task == "classification":
            return self.mcnemar(), 0.0
        _, ours, theirs = self.sums(self.group.spec.main_metric)
        return swap_test(ours, theirs)

    def gap(self, metric: str) -> str:
        """Difference and interval; a dash where too few groups carry it."""
        if self.groups < LEAST_GROUPS:
            return DASH
        found = clustered_bootstrap(*self.sums(metric))
        return f"{signed(metric, found.value)} {interval(metric, found.low, found.high)}"

    def conclusion(self, p: float) -> str:
        """What the pair shows, in words; p is the corrected one."""
        if p >= ALPHA:
            return "undecided"
        ours, theirs = (float(score.mean()) for score in self.scores())
        higher = METRICS[self.group.spec.main_metric].direction == "max"
        return "CLCR better" if (ours > theirs) == higher else "CLCR worse"


def _values(array: NDArray[np.generic]) -> Array:
    return np.asarray(array, dtype=np.float64)


def _score(group: Group, arrays: Arrays) -> Array:
    prediction, target = np.asarray(arrays["prediction"]), np.asarray(arrays["target"])
    if group.spec.task == "classification":
        return np.asarray(prediction.argmax(axis=1) == target, dtype=np.float64)
    return np.abs(_values(prediction) - _values(target))


def _section(group: Group, seed: int, pairs: Sequence[Pair], others: Sequence[str]) -> Section:
    classify, grouped, unit = group.spec.task == "classification", pairs[0].labels is not None, _unit(group)
    tested = [pair.p() for pair in pairs]
    corrected = holm([p for p, _ in tested], len(pairs) + len(others))
    metrics = [group.spec.main_metric, *([CORR] if CORR in group.spec.metrics else [])]
    gaps = [f"{METRICS[metric].title} difference [95 % interval]" for metric in metrics]
    columns = ("CLCR against", "Examples", "Groups", *gaps, *(["McNemar p"] if classify else []), "p", "p (Holm)")
    rows = []
    for pair, (p, _), p_holm in zip(pairs, tested, corrected, strict=True):
        texts = [label(pair.rival), str(pair.examples), str(pair.groups) if grouped else DASH, *map(pair.gap, metrics)]
        texts += [p_text(pair.mcnemar())] if classify else []
        rows.append(tuple(Cell(t) for t in (*texts, p_text(p), p_text(p_holm), pair.conclusion(p_holm))))
    size = count(len(pairs) + len(others), "comparison")
    facts = (
        f"Main metric{' and correlation' * (len(metrics) > 1)} of the runs with seed {seed}: what other test examples "
        "would change for these trained models, not what another training would.",
        f"Interval: paired bootstrap over {f'whole {unit}s' if grouped else 'examples'}, expanded for their number. "
        f"Test (p): {_deciding(classify, grouped, unit)} on the main metric, level 0.05; family: the {size} of this "
        "table; correction: Holm.",
    )
    notes = (*_words(group, pairs, tested, len(pairs) + len(others)), *_unlike(others))
    return Section(f"One pair of runs, {name_of(group)}", (*columns, "Conclusion"), tuple(rows), facts, notes)


def _unit(group: Group) -> str:
    return group.protocol.group or "group"


def _deciding(classify: bool, grouped: bool, unit: str) -> str:
    if grouped:
        return f"labels of the two models swapped within whole {unit}s"
    return "exact McNemar" if classify else "labels of the two models swapped within examples"


def _unlike(others: Sequence[str]) -> tuple[str, ...]:
    return (f"Not compared, scored on other test examples: {listed(others)}.",) if others else ()


def _words(group: Group, pairs: Sequence[Pair], tested: Sequence[tuple[float, float]], family: int) -> tuple[str, ...]:
    """What the number of groups allows to conclude."""
    if pairs[0].labels is None:
        return ()
    unit, groups = _unit(group), pairs[0].groups
    lines = []
    if group.spec.task == "classification":
        lines.append(f"Examples of one {unit} are not independent, which McNemar assumes: conclude from p by {unit}.")
    if groups < LEAST_GROUPS:
        lines.append(f"{count(groups, unit)}: too few for an interval, which takes {LEAST_GROUPS}.")
    if family * min(least for _, least in tested) >= ALPHA:
        lines.append(
            f"With {count(groups, unit)} no result could be significant after correction: nothing can be concluded on "
            f"other {unit}s."
        )
    return tuple(lines)
