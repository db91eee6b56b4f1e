"""The significance table: CLCR against every other method on each benchmark, and over all benchmarks at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, OURS, Collected, Group, label
from benchmarks.report.compare import (
    Contrast,
    against_ours,
    declared_test,
    families,
    in_words,
    needed_text,
    per_unit,
)
from benchmarks.report.layout import (
    DASH,
    DATA,
    KINDS,
    Cell,
    Section,
    Table,
    about,
    count,
    heading,
    interval,
    lacks,
    listed,
    name_of,
    number,
    p_text,
    shown,
    signed,
)
from benchmarks.report.resampling import (
    Interval,
    Permutation,
    iqm,
    mean_rank,
    permutation_seeds,
    probability_of_improvement,
    stratified_permutation,
)
from benchmarks.report.statistics import ALPHA, Array, holm
from benchmarks.report.tables import BETTER, WORSE, identity, overview_order

INTRO = (
    "Differences are CLCR minus the other method on the main metric. Test and families were declared beforehand, the "
    "test in each benchmark's specification: paired t by seed, because equal seeds share split and order, where a "
    "section does not say otherwise. The correlation over seeds is reported, never used to choose the test.",
    "Detectable: the smallest difference found with a power of 80 % at the observed spread, n and Holm's strictest "
    "step. Seeds needed: as many as would find the observed difference with that power; a plan, not a finding: it "
    "takes the observed difference and spread for the true ones.",
)
COLUMNS = (
    "CLCR against",
    "n",
    "Difference [95 % interval]",
    "t",
    "p",
    "p (Holm)",
    "Hedges g",
    "Seed correlation",
    "Detectable",
    "Seeds needed",
    "Conclusion",
)
MOST_SEEDS = 1000
NOTHING = "CLCR, or every other method, has no result here: nothing is compared."
Examples = Callable[[Group], Sequence[Section]]


@dataclass(frozen=True)
class Across:
    """CLCR against one rival over the benchmarks that both ran."""

    rival: str
    benchmarks: tuple[str, ...]
    permutation: Permutation
    improvement: Interval
    paired: bool

    def needed(self, family: int) -> int | None:
        """Seeds per benchmark that would find this statistic at Holm's strictest step; None where no plan is made."""
        found = permutation_seeds(self.permutation.statistic, len(self.benchmarks), ALPHA / family)
        return found if self.paired and found is not None and found <= MOST_SEEDS else None


def significance_table(collected: Collected, examples: Examples = lambda _: ()) -> Table:
    """Every comparison; ``examples`` adds the sections of one pair of runs per test example."""
    found = {group.key: against_ours(group, group.spec.main_metric) for group in collected.groups}
    parts: dict[str, tuple[Section, ...]] = {}
    rows: list[dict[str, object]] = []
    for data in DATA:
        sections = []
        for group in collected.of(data):
            sections += [_section(group, found[group.key]), *examples(group)]
            rows += [_csv_row(group, rival, contrast) for rival, contrast in found[group.key].items()]
        for profile, members in groupby(sorted(collected.of(data), key=_profile), key=_profile):
            groups = one_protocol_each(list(members))
            rivals = across(groups)
            sections += _across_sections(profile, groups, rivals)
            rows += [_across_row(data, profile, row, p, len(rivals)) for row, p in _corrected(rivals)]
        parts[data] = tuple(sections)
    return Table("significance", "Significance", INTRO, parts, pd.DataFrame(rows))


def _profile(group: Group) -> str:
    return group.key.profile


def _section(group: Group, found: Mapping[str, Contrast]) -> Section:
    rows = tuple(cells(rival, contrast) for rival, contrast in found.items())
    test = (
        f"{heading(group.spec.main_metric)}. Test: {declared_test(group)}; family: the "
        f"{families(group, found)} of this table; correction: Holm."
    )
    notes = in_words(list(found.values()), [label(m) for m in found], BETTER, WORSE) or (NOTHING,)
    return Section(name_of(group), COLUMNS, rows, (*about(group), test), (*notes, *lacks(group, False)))


def cells(rival: str, contrast: Contrast) -> tuple[Cell, ...]:
    """One comparison in words, a cell for each of ``COLUMNS``."""
    test, metric = contrast.test, contrast.metric
    if test is None:
        texts = (label(rival), str(len(contrast.seeds)), *([DASH] * 8), f"not tested: {contrast.untested}")
        return tuple(Cell(text) for text in texts)
    texts = (
        label(rival),
        str(test.n),
        f"{signed(metric, test.difference)} {interval(metric, test.low, test.high)}",
        f"{number(test.statistic, 2)} (df {number(test.df, 0 if float(test.df).is_integer() else 1)})",
        p_text(test.p),
        p_text(contrast.p_holm),
        number(test.effect, 2),
        number(test.correlation, 2),
        shown(metric, contrast.detectable),
        needed_text(contrast),
        conclusion(contrast),
    )
    return tuple(Cell(text) for text in texts)


def conclusion(contrast: Contrast) -> str:
    """What one comparison shows, in words."""
    undecided = "no difference shown" if contrast.enough else "undecided, power too low"
    return {1: "CLCR better", -1: "CLCR worse", 0: undecided}[contrast.better]


def _csv_row(group: Group, rival: str, contrast: Contrast) -> dict[str, object]:
    test = asdict(contrast.test) if contrast.test else {}
    return {
        **identity(group, (rival, FULL)),
        "metric": contrast.metric,
        "test": test.get("test", "none"),
        "family": contrast.family,
        "correction": "Holm",
        **{name: test.get(name) for name in ("n", "difference", "low", "high", "statistic", "df", "p")},
        "p_holm": contrast.p_holm if contrast.test else None,
        **{name: test.get(name) for name in ("effect", "sd", "correlation")},
        "detectable": contrast.detectable if contrast.test else None,
        "seeds_needed": contrast.needed,
        "conclusion": conclusion(contrast) if contrast.test else f"not tested: {contrast.untested}",
    }


def one_protocol_each(groups: Sequence[Group]) -> list[Group]:
    """One group per benchmark, of its first protocol that was run: protocols of one data set are not independent."""
    first: dict[str, Group] = {}
    for group in groups:
        first.setdefault(group.key.benchmark, group)
    return list(first.values())


def oriented(group: Group, method: str) -> dict[int, float]:
    """Main metric by seed, higher better."""
    metric = group.spec.main_metric
    sign = 1 if METRICS[metric].direction == "max" else -1
    return {seed: sign * value for seed, value in group.values((method, FULL), metric).items()}


def across(groups: Sequence[Group]) -> list[Across]:
    """CLCR against each rival over at least two benchmarks, each by its declared test: on the seeds that both have
    where it is paired."""
    rows = []
    for rival in sorted({m for group in groups for m in group.methods} - {OURS}, key=overview_order):
        strata = {group.spec.title: pair for group in groups if (pair := _stratum(group, rival))}
        if len(strata) > 1:
            pairs = list(strata.values())
            paired = [group.spec.test == "paired" for group in groups if group.spec.title in strata]
            found = stratified_permutation(pairs, paired)
            rows.append(Across(rival, tuple(strata), found, probability_of_improvement(pairs), all(paired)))
    return rows


def _stratum(group: Group, rival: str) -> tuple[list[float], list[float]] | None:
    """The runs of CLCR and of a rival on one benchmark, as its test counts them; None where one has none."""
    ours, theirs = oriented(group, OURS), oriented(group, rival)
    if group.spec.test == "paired":
        shared = set(ours) & set(theirs)
        ours, theirs = ({s: v for s, v in side.items() if s in shared} for side in (ours, theirs))
    sides = [list(dict(sorted(per_unit(group, side).items())).values()) for side in (ours, theirs)]
    return (sides[0], sides[1]) if all(sides) else None


def _corrected(rows: Sequence[Across]) -> list[tuple[Across, float]]:
    return list(zip(rows, holm([row.permutation.p for row in rows]), strict=True))


def _across_sections(profile: str, groups: Sequence[Group], rows: Sequence[Across]) -> list[Section]:
    if not rows:
        return []
    columns = ("CLCR against", "Benchmarks", "Statistic", "p", "p (Holm)", "Smallest p possible", "Seeds needed")
    cells = [_across_cells(row, p, len(rows)) for row, p in _corrected(rows)]
    facts = (
        f"{KINDS[groups[0].key.data]}, one protocol per benchmark: {listed([name_of(group) for group in groups])}.",
        f"Test: permutation stratified by benchmark ({_swapped(groups)}, inside each benchmark only), "
        f"two-sided, level 0.05; family: the {count(len(rows), 'comparison')} of this table; correction: Holm. "
        "Statistic: mean over benchmarks of the difference over its root mean square, positive where CLCR is better. "
        "Seeds needed: per benchmark, to find this statistic with a power of 80 % at Holm's strictest step (normal "
        "approximation); a plan, not a finding.",
        "P(CLCR run better): probability that a run of CLCR beats one of the other method, mean over benchmarks, with "
        "a stratified bootstrap interval; descriptive.",
    )
    title = f"Across benchmarks, {profile}"
    first = Section(title, (*columns, "P(CLCR run better) [95 %]"), tuple(cells), facts, _across_words(rows))
    return [first, *_ranks(profile, groups)]


def _swapped(groups: Sequence[Group]) -> str:
    free = [group.spec.title for group in groups if group.spec.test != "paired"]
    if not free:
        return "labels swapped within a seed"
    return f"labels swapped within a seed, on {listed(free)} over all runs"


def _across_words(rows: Sequence[Across]) -> tuple[str, ...]:
    better, worse, undecided = list[str](), list[str](), list[str]()
    for row, p in _corrected(rows):
        if p >= ALPHA:
            needed = row.needed(len(rows))
            plan = f"about {count(needed, 'seed')} per benchmark" if needed else "no number of seeds follows"
            undecided.append(f"{label(row.rival)} ({plan})")
        else:
            (better if row.permutation.statistic > 0 else worse).append(label(row.rival))
    said = (("CLCR is significantly better than", better), ("CLCR is significantly worse than", worse))
    lines = [f"{words} {listed(names)}." for words, names in said if names]
    if undecided:
        lines.append(
            "Undecided, too few runs or benchmarks that disagree; what it would take, if the observed statistic were "
            f"the true one: {listed(undecided)}. That does not show that they are equal."
        )
    return tuple(lines)


def _across_cells(row: Across, p: float, family: int) -> tuple[Cell, ...]:
    kind = "exact" if row.permutation.exact else "Monte Carlo"
    texts = (
        label(row.rival),
        str(len(row.benchmarks)),
        number(row.permutation.statistic, 2),
        f"{p_text(row.permutation.p)} ({kind})",
        p_text(p),
        p_text(row.permutation.smallest),
        str(row.needed(family) or DASH),
        _interval(row.improvement),
    )
    return tuple(Cell(text) for text in texts)


def _interval(found: Interval, scale: float = 1.0, digits: int = 2) -> str:
    value, low, high = (number(x * scale, digits) for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def ranked(groups: Sequence[Group]) -> dict[str, float]:
    """Mean rank over the benchmarks of each method that ran on all of them; 1 is best."""
    everywhere = set.intersection(*({m for m in g.methods if oriented(g, m)} for g in groups))
    methods = sorted(everywhere, key=overview_order)
    means: Array = np.array([[float(np.mean(list(oriented(g, m).values()))) for m in methods] for g in groups])
    return dict(zip(methods, map(float, mean_rank(means)), strict=True)) if methods else {}


def _ranks(profile: str, groups: Sequence[Group]) -> list[Section]:
    """Mean rank over the benchmarks, and IQM of accuracy, of the methods that ran all of them."""
    ranks = ranked(groups)
    if len(ranks) < 2:
        return []
    scores = {m: [list(oriented(g, m).values()) for g in groups] for m in ranks}
    accurate = [i for i, g in enumerate(groups) if g.spec.main_metric == "accuracy"]
    rows = []
    for method, rank in ranks.items():
        middle = _interval(iqm([scores[method][i] for i in accurate]), 100) if accurate else DASH
        rows.append((Cell(label(method)), Cell(number(rank, 2)), Cell(middle)))
    names = listed([groups[i].spec.title for i in accurate]) if accurate else "none"
    facts = (
        f"{KINDS[groups[0].key.data]}, methods that ran on all {count(len(groups), 'benchmark')}; no test.",
        f"Rank 1 is best. IQM: interquartile mean over all runs on {names}; its stratified bootstrap interval is too "
        "narrow with few seeds (results/simulations) and decides nothing.",
    )
    return [Section(f"Ranks, {profile}", ("Method", "Mean rank ↓", "IQM of accuracy ↑ (%) [95 %]"), tuple(rows), facts)]


def _across_row(data: str, profile: str, row: Across, p: float, family: int) -> dict[str, object]:
    return {
        "data": data,
        "benchmark": "; ".join(row.benchmarks),
        "profile": profile,
        "method": row.rival,
        "label": label(row.rival),
        "variant": FULL,
        "test": f"stratified permutation ({'exact' if row.permutation.exact else 'Monte Carlo'})",
        "family": family,
        "correction": "Holm",
        "statistic": row.permutation.statistic,
        "p": row.permutation.p,
        "p_holm": p,
        "smallest_p": row.permutation.smallest,
        "seeds_needed": row.needed(family),
        "improvement": row.improvement.value,
        "improvement_low": row.improvement.low,
        "improvement_high": row.improvement.high,
    }
