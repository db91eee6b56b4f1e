"""Two rows of a group against each other, family by family, and what can be concluded in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan

from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, OURS, Group, Row
from benchmarks.report.layout import listed, shown
from benchmarks.report.statistics import ALPHA, Comparison, detectable, holm, paired_t, seeds_needed


@dataclass(frozen=True)
class Contrast:
    """Row ``a`` against row ``b`` on one metric. test: None where ``untested`` says why. family: tests in it.

    better: +1 where a is significantly better after Holm, -1 where b is, 0 where neither is shown. detectable and
    needed (seeds) are planned at Holm's strictest step with a power of 80 %.
    """

    a: Row
    b: Row
    metric: str
    seeds: tuple[int, ...]
    test: Comparison | None = None
    untested: str = ""
    p_holm: float = 1.0
    family: int = 0
    better: int = 0
    detectable: float = 0.0
    needed: int | None = None


def contrasts(group: Group, metric: str, pairs: Iterable[tuple[Row, Row]]) -> list[Contrast]:
    """One declared family: paired t by seed over the seeds both rows have, Holm over the pairs that can be tested."""
    found = [_contrast(group, metric, a, b) for a, b in pairs]
    corrected = iter(holm([c.test.p for c in found if c.test]))
    size = sum(c.test is not None for c in found)
    return [_judged(c, c.test, next(corrected), size) if c.test else c for c in found]


def _contrast(group: Group, metric: str, a: Row, b: Row) -> Contrast:
    left, right = group.values(a, metric), group.values(b, metric)
    seeds = tuple(sorted(set(left) & set(right)))
    if len(seeds) < 2:
        why = f"{len(seeds)} shared seed{'' if len(seeds) == 1 else 's'}, a test needs two"
        return Contrast(a, b, metric, seeds, untested=why)
    test = paired_t([left[s] for s in seeds], [right[s] for s in seeds])
    if isnan(test.p):
        return Contrast(a, b, metric, seeds, untested="the difference does not vary over seeds")
    return Contrast(a, b, metric, seeds, test)


def _judged(contrast: Contrast, test: Comparison, p_holm: float, family: int) -> Contrast:
    better = 0
    if p_holm < ALPHA:
        better = 1 if (test.difference > 0) == (METRICS[contrast.metric].direction == "max") else -1
    alpha = ALPHA / family
    least, needed = detectable(test.sd, test.n, alpha=alpha), seeds_needed(test.difference, test.sd, alpha=alpha)
    return replace(contrast, p_holm=p_holm, family=family, better=better, detectable=least, needed=needed)


def against_ours(group: Group, metric: str) -> dict[str, Contrast]:
    """CLCR (full) against the full variant of every other method, by method; empty where CLCR has no result."""
    if not group.values((OURS, FULL), metric):
        return {}
    rivals = [method for method in group.methods if method != OURS and group.values((method, FULL), metric)]
    found = contrasts(group, metric, [((OURS, FULL), (rival, FULL)) for rival in rivals])
    return dict(zip(rivals, found, strict=True))


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
    if open_ := [
        _open(contrast, contrast.test, name) for contrast, name in named if contrast.test and not contrast.better
    ]:
        lines.append(
            f"{title}: power was too low to conclude on {'; '.join(open_)}. That does not show that they are equal."
        )
    if untested := [f"{name} ({contrast.untested})" for contrast, name in named if not contrast.test]:
        lines.append(f"{title}: not tested against {listed(untested)}.")
    return tuple(lines)


def _open(contrast: Contrast, test: Comparison, name: str) -> str:
    needed = f"about {contrast.needed}" if contrast.needed else "more than 1000"
    return (
        f"{name} (difference {shown(contrast.metric, abs(test.difference))}; {test.n} seeds detect "
        f"{shown(contrast.metric, contrast.detectable)} at 80 %; it would take {needed} seeds)"
    )
