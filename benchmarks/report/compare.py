"""Two rows of a group against each other, family by family, and what can be concluded in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan

import numpy as np

from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, OURS, Group, Row
from benchmarks.report.layout import DASH, count, listed, shown
from benchmarks.report.statistics import (
    ALPHA,
    TESTS,
    Comparison,
    correlation,
    detectable,
    holm,
    paired_t,
    seeds_needed,
    welch_t,
)

RELEVANT = {"%": 0.01, "": 0.02}  # a point, or 0.02 of MAE and Corr: smaller differences are nobody's claim


@dataclass(frozen=True)
class Contrast:
    """Row ``a`` against row ``b`` on one metric. test: None where ``untested`` says why. family: tests declared in it.

    paired: the declared test. better: +1 where a is significantly better after Holm, -1 where b is, 0 where neither is
    shown. limit: arrangements that exist, where seeds go through them in turn; they are the runs of the test then.
    """

    a: Row
    b: Row
    metric: str
    seeds: tuple[int, ...]
    paired: bool = True
    limit: int | None = None
    test: Comparison | None = None
    untested: str = ""
    p_holm: float = 1.0
    family: int = 0
    better: int = 0

    @cached_property
    def detectable(self) -> float:
        """The smallest difference that these runs find with a power of 80 % at Holm's strictest step; 0 untested."""
        test = self.test
        return detectable(test.sd, test.n, self.paired, ALPHA / self.family) if test else 0.0

    @cached_property
    def needed(self) -> int | None:
        """Runs that would find the observed difference with that power; None beyond 1000, or where it is zero."""
        test = self.test
        return seeds_needed(test.difference, test.sd, self.paired, ALPHA / self.family) if test else None

    @property
    def enough(self) -> bool:
        """Whether a difference that matters (``RELEVANT``) would have been found."""
        return self.test is not None and self.detectable <= RELEVANT[METRICS[self.metric].unit]

    @property
    def unit(self) -> str:
        """What a run of the test is."""
        return "seed" if self.limit is None else "arrangement"


def declared_test(group: Group) -> str:
    """The test of a group, as its benchmark declares it."""
    limit = group.spec.cycles.get(group.key.protocol)
    of_means = f", seeds that share one of the {limit} arrangements averaged first" if limit else ""
    return f"{TESTS[group.spec.test]}{of_means}, two-sided, level 0.05"


def per_unit(group: Group, values: Mapping[int, float]) -> dict[int, float]:
    """Values by seed, or by arrangement where the seeds of a protocol go through a few in turn: the mean of each."""
    limit = group.spec.cycles.get(group.key.protocol)
    if limit is None:
        return dict(values)
    sharing: dict[int, list[float]] = defaultdict(list)
    for seed, value in values.items():
        sharing[seed % limit].append(value)
    return {unit: float(np.mean(sharing[unit])) for unit in sorted(sharing)}


def contrasts(group: Group, metric: str, pairs: Iterable[tuple[Row, Row]]) -> list[Contrast]:
    """One declared family: the benchmark's test over all pairs, and Holm over as many as were declared."""
    found = [_contrast(group, metric, a, b) for a, b in pairs]
    corrected = iter(holm([c.test.p for c in found if c.test], len(found)))
    return [_judged(c, next(corrected) if c.test else 1.0, len(found)) for c in found]


def _contrast(group: Group, metric: str, a: Row, b: Row) -> Contrast:
    left, right = group.values(a, metric), group.values(b, metric)
    seeds = tuple(sorted(set(left) & set(right)))
    limit = group.spec.cycles.get(group.key.protocol)
    bare = Contrast(a, b, metric, seeds, group.spec.test == "paired", limit)
    x, y = (per_unit(group, {s: values[s] for s in seeds}) for values in (left, right))
    if bare.paired:
        sizes = [len(x)]
        described = f"{count(len(x), f'shared {bare.unit}')}, a test needs two"
    else:
        sizes = [len(per_unit(group, left)), len(per_unit(group, right))]
        described = f"{listed([count(size, bare.unit) for size in sizes])}, a test needs two of each"
    if min(sizes) < 2:
        return replace(bare, untested=described)
    if bare.paired:
        test = paired_t(list(x.values()), list(y.values()))
    else:
        test = welch_t(list(per_unit(group, left).values()), list(per_unit(group, right).values()))
        test = replace(test, correlation=correlation(list(x.values()), list(y.values())) if x else nan)
    if test.sd == 0:
        same = "the same value" if test.difference == 0 else "the same difference"
        return replace(bare, untested=f"{same} at every {bare.unit}")
    return replace(bare, test=test)


def _judged(contrast: Contrast, p_holm: float, family: int) -> Contrast:
    better = 0
    if contrast.test and p_holm < ALPHA:
        better = 1 if (contrast.test.difference > 0) == (METRICS[contrast.metric].direction == "max") else -1
    return replace(contrast, p_holm=p_holm, family=family, better=better)


def against_ours(group: Group, metric: str) -> dict[str, Contrast]:
    """CLCR (full) against the full variant of every other method that was tried, by method; empty where CLCR has no
    result. Methods of others are a family apart: a row that is handed in changes no mark of the suite's."""
    if not group.values((OURS, FULL), metric):
        return {}
    rivals = [method for method in group.methods if method != OURS]
    found: dict[str, Contrast] = {}
    for external in (False, True):
        family = [method for method in rivals if (method in group.external) == external]
        pairs = [((OURS, FULL), (rival, FULL)) for rival in family]
        found |= dict(zip(family, contrasts(group, metric, pairs), strict=True))
    return {rival: found[rival] for rival in rivals}


def families(group: Group, rivals: Collection[str]) -> str:
    """How many comparisons are corrected together, in words."""
    external = sum(rival in group.external for rival in rivals)
    apart = f", and apart from them the {count(external, 'comparison')} with external methods" if external else ""
    return f"{count(len(rivals) - external, 'comparison')}{apart}"


def in_words(found: Sequence[Contrast], names: Sequence[str], better: str, worse: str) -> tuple[str, ...]:
    """What one family shows and what it cannot, with the power that it had.

    names: of the other rows. better, worse: how a sentence on significant differences begins, up to the names.
    """
    if not found:
        return ()
    named = list(zip(found, names, strict=True))
    title = METRICS[found[0].metric].title
    hits = {sign: [name for contrast, name in named if contrast.better == sign] for sign in (1, -1)}
    lines = [f"{title}: {words} {listed(hits[sign])}." for sign, words in ((1, better), (-1, worse)) if hits[sign]]
    undecided = [(c, c.test, name) for c, name in named if c.test and not c.better]
    if weak := [_open(c, test, name) for c, test, name in undecided if not c.enough]:
        lines.append(
            f"{title}: power was too low to conclude on {'; '.join(weak)}. That does not show that they are equal."
        )
    if firm := [_open(c, test, name) for c, test, name in undecided if c.enough]:
        least = shown(found[0].metric, RELEVANT[METRICS[found[0].metric].unit])
        lines.append(f"{title}: no difference shown on {'; '.join(firm)}; one of {least} would have been found.")
    if untested := [f"{name} ({contrast.untested})" for contrast, name in named if not contrast.test]:
        lines.append(f"{title}: not tested against {listed(untested)}.")
    return tuple(lines)


def _open(contrast: Contrast, test: Comparison, name: str) -> str:
    return (
        f"{name} (difference {shown(contrast.metric, abs(test.difference))}; {count(test.n, contrast.unit)} detect "
        f"{shown(contrast.metric, contrast.detectable)} at 80 %; {_plan(contrast, test)})"
    )


def _plan(contrast: Contrast, test: Comparison) -> str:
    """The runs that it would take to find what was observed, as far as that makes sense."""
    if test.difference == 0:
        return "a difference of zero tells no number of seeds"
    if contrast.needed is None:
        return f"it would take more than 1000 {contrast.unit}s"
    if contrast.limit is not None and contrast.needed > contrast.limit:
        return f"it would take about {contrast.needed} {contrast.unit}s, and there are {contrast.limit}"
    return f"it would take about {count(contrast.needed, contrast.unit)}, {contrast.needed - test.n} more"


def needed_text(contrast: Contrast) -> str:
    """The cell "Seeds needed"."""
    if contrast.test is None or contrast.test.difference == 0:
        return DASH
    if contrast.needed is None:
        return "> 1000"
    beyond = contrast.limit is not None and contrast.needed > contrast.limit
    return f"{contrast.needed} ({contrast.limit} exist)" if beyond else str(contrast.needed)
