"""How often the tests of the tables are wrong, and how often they find what is there, measured on made-up numbers.

    python -m benchmarks.report.simulate [--replications 10000] [--out results/simulations]

Every study draws data whose truth is known, puts them through the functions that the tables use, and counts. Equal
arguments give equal files. Points are percentage points: runs scatter with a standard deviation of 0.8, and a
difference is 1, unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from benchmarks.archive import write_bytes
from benchmarks.report import clusters, resampling
from benchmarks.report.examples import LEAST_GROUPS
from benchmarks.report.statistics import ALPHA, Array, holm, paired_t, power_t, tost, tost_power, welch_t

OUT = Path(__file__).resolve().parents[2] / "results" / "simulations"
REPLICATIONS = 10_000
SD, STEP = 0.8, 1.0
SEEDS = (3, 5, 10)
CORRELATIONS = (0.0, 0.3, 0.5)
BENCHMARKS, RIVALS = 6, 5
METRICS = (2, 2, 2, 2, 8, 8)  # that the main table shows, by benchmark; they correlate within a run
SHARED = 0.8
GROUPS = {7: 15, 10: 30, LEAST_GROUPS: 30, 24: 44, 31: 22, 91: 16}  # groups of a test set: examples in each, on average
NEARLY = 0.93  # what an interval of resampled groups must cover, with as many as the tables ask for
LOW, ABOUT, HIGH = "at most", "about", "at least"
Promise = tuple[float | None, str]
NONE: Promise = (None, "")
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Rate:
    """How often something happened. target: what it should be, ``bound`` how ("at most", "about", "at least"); None
    where nothing is promised."""

    study: str
    test: str
    setting: str
    what: str
    rate: float
    replications: int
    target: float | None = None
    bound: str = ""

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of the rate, that of the target where the rate is 0 or 1."""
        p = self.rate if 0 < self.rate < 1 or self.target is None else self.target
        return sqrt(p * (1 - p) / self.replications)

    def holds(self, errors: float = 3.5) -> bool:
        """Whether the rate keeps to its target up to so many standard errors."""
        if self.target is None:
            return True
        slack = errors * max(self.error, sqrt(self.target * (1 - self.target) / self.replications))
        too_low = self.bound != LOW and self.rate < self.target - slack
        return not (too_low or (self.bound != HIGH and self.rate > self.target + slack))


def stream(*name: object) -> np.random.Generator:
    """Random numbers of a study, the same every time."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, name)).encode()))


def runs(rng: np.random.Generator, size: tuple[int, ...], correlation: float, methods: int = 2) -> Array:
    """Scores (methods, *size) with standard deviation ``SD`` that correlate between methods as runs of one seed do."""
    shared, own = rng.normal(size=size), rng.normal(size=(methods, *size))
    return SD * (sqrt(correlation) * shared + sqrt(1 - correlation) * own)


def two_methods(replications: int) -> Iterator[Rate]:
    """One benchmark: paired and Welch t, without and with a difference, and their intervals."""
    for n, rho in product(SEEDS, CORRELATIONS):
        rng, setting = stream("two", n, rho), f"n {n}, correlation {rho}"
        a, b = runs(rng, (replications, n), rho)
        for name, test, effect in (
            ("paired t", paired_t, STEP / (SD * sqrt(2 - 2 * rho))),
            ("Welch t", welch_t, STEP / SD),
        ):
            none = [test(x, y) for x, y in zip(a, b, strict=True)]
            some = [test(x + STEP, y) for x, y in zip(a, b, strict=True)]
            exact = name == "paired t"
            bound = ABOUT if exact else LOW
            yield _rate("one benchmark", name, setting, "false positives", [t.p < ALPHA for t in none], ALPHA, bound)
            predicted = power_t(effect, n, exact) if exact or rho == 0 else None
            target = (predicted, ABOUT if exact else LOW)
            yield _rate("one benchmark", name, setting, "power for 1 point", [t.p < ALPHA for t in some], *target)
            inside = [t.low <= STEP <= t.high for t in some]
            yield _rate("one benchmark", name, setting, "coverage of 95 %", inside, 0.95, ABOUT if exact else HIGH)


def intervals(replications: int) -> Iterator[Rate]:
    """The mean of n differences: Student's interval against bootstraps, for normal and for skewed differences."""
    laws: Mapping[str, Callable[[np.random.Generator, int, int], Array]] = {
        "normal": lambda rng, r, n: rng.normal(size=(r, n)),
        "one run in ten 5 sd worse": lambda rng, r, n: rng.normal(size=(r, n)) - 5 * (rng.random((r, n)) < 0.1) + 0.5,
    }
    for n, (law, draw) in product(SEEDS, laws.items()):
        rng = stream("intervals", n, law)
        values = draw(rng, replications, n)
        zero = np.zeros(n)
        inside = [t.low <= 0 <= t.high for t in (paired_t(x, zero) for x in values)]
        promised = (0.95, ABOUT) if law == "normal" else NONE
        yield _rate("intervals of a mean", "t", f"n {n}, {law}", "coverage of 95 %", inside, *promised)
        methods: tuple[Literal["percentile", "BCa"], ...] = ("percentile", "BCa")
        for method in methods:
            covered = np.concatenate(
                [_bootstrapped(x, method, rng) for x in np.array_split(values, 1 + len(values) // 250)]
            )
            yield _rate("intervals of a mean", f"{method} bootstrap", f"n {n}, {law}", "coverage of 95 %", covered)


def _bootstrapped(values: Array, method: Literal["percentile", "BCa"], rng: np.random.Generator) -> Array:
    """Whether scipy's bootstrap interval of each row's mean holds 0; one that does not exist does not."""
    with np.errstate(all="ignore"):
        drawn = stats.bootstrap((values,), _mean, axis=-1, method=method, n_resamples=999, rng=rng)
    found = drawn.confidence_interval
    return np.asarray((found.low <= 0) & (found.high >= 0))


def _mean(values: Array, axis: int) -> Array:
    return np.asarray(values.mean(axis=axis))


def percentile_of_means(n: int, replications: int) -> Rate:
    """The false positives of a percentile bootstrap of n differences: what the suite does not do."""
    rng = stream("percentile", n)
    covered = _bootstrapped(rng.normal(size=(replications, n)), "percentile", rng)
    return _rate("one benchmark", "percentile bootstrap", f"n {n}", "false positives", covered == 0, ALPHA, ABOUT)


def many_benchmarks(replications: int, draws: int = 999) -> Iterator[Rate]:
    """Six benchmarks at once: the stratified permutation, alone and as a family of five under Holm."""
    for n in SEEDS:
        rng, setting = stream("many", n), f"{BENCHMARKS} benchmarks, n {n}, correlation 0.5"
        ours, *rivals = runs(rng, (replications, BENCHMARKS, n), 0.5, RIVALS + 1)
        families = [
            [_permuted(mine, theirs, draws) for theirs in each]
            for mine, each in zip(ours, zip(*rivals, strict=True), strict=True)
        ]
        alone = [family[0] < ALPHA for family in families]
        study, name = "all benchmarks", "stratified permutation"
        yield _rate(study, name, setting, "false positives", alone, ALPHA, ABOUT)
        error = [min(holm(family)) < ALPHA for family in families]
        yield _rate(study, f"{name}, Holm", f"{setting}, {RIVALS} rivals", "any false positive", error, ALPHA, LOW)
        for step in (0.25, 0.5, 1.0):
            found = [_permuted(a + step, b, draws) < ALPHA for a, b in zip(ours, rivals[0], strict=True)]
            yield _rate(study, name, setting, f"power for {step:g} points everywhere", found)
    for n in SEEDS:
        a, b = runs(stream("one", n), (replications, 1, n), 0.5)
        found = [_permuted(x + 10, y, draws) < ALPHA for x, y in zip(a, b, strict=True)]
        yield _rate("all benchmarks", "sign flips", f"1 benchmark, n {n}", "power for 10 points", found)


def _permuted(a: Array, b: Array, draws: int) -> float:
    return resampling.stratified_permutation(list(zip(a, b, strict=True)), draws=draws).p


def main_table(replications: int) -> Iterator[Rate]:
    """The families of a whole main table, where no method differs, and where one rival does."""
    for n in SEEDS:
        rng = stream("table", n)
        first, overview, whole, marks, others = [], [], [], [], []
        for _ in range(replications):
            hits = [_marks(rng, n, metrics) for metrics in METRICS]
            first.append(hits[0][0] > 0)
            overview.append(any(row[0] for row in hits))
            whole.append(any(row.any() for row in hits))
            marks.append(sum(int(row.sum()) for row in hits))
            others.append(_marks(rng, n, 1, gap=3.0)[0] > 0)
        study, name, tests = "main table", "paired t, Holm", (RIVALS + 1) * sum(METRICS)
        setting = f"n {n}, {RIVALS + 1} rivals"
        yield _rate(study, name, f"{setting}, one family", "any false mark", first, ALPHA, LOW)
        yield _rate(study, name, f"{setting}, one of them 3 points worse", "any false mark", others, ALPHA, LOW)
        yield _rate(study, name, f"{setting}, {BENCHMARKS} main metrics", "any false mark", overview)
        yield _rate(study, name, f"{setting}, {sum(METRICS)} metrics in all", "any false mark", whole)
        share = float(np.mean(marks)) / tests
        yield Rate(study, name, f"{setting}, {tests} comparisons", "share of false marks", share, replications)


def _marks(rng: np.random.Generator, n: int, metrics: int, gap: float = 0.0) -> Array:
    """False marks by metric on one benchmark: each metric is a family; the last rival differs by ``gap``."""
    common = runs(rng, (1, n), 0.5, RIVALS + 2)
    own = runs(rng, (metrics, n), 0.5, RIVALS + 2)
    scores = sqrt(SHARED) * common + sqrt(1 - SHARED) * own
    scores[-1] -= gap
    p: Array = np.asarray(stats.ttest_rel(scores[:1], scores[1:], axis=2).pvalue)
    kept = RIVALS if gap else RIVALS + 1
    return np.array([sum(q < ALPHA for q in holm(column)[:kept]) for column in p.T.tolist()], dtype=np.float64)


def examples(replications: int, draws: int = 500) -> Iterator[Rate]:
    """One pair of models on a test set of groups: what treats examples as independent, and what does not."""
    for groups, size in GROUPS.items():
        rng, setting = stream("examples", groups), f"{groups} groups of about {size}"
        counts: dict[tuple[str, str], list[bool]] = {}
        for _ in range(replications):
            group, right, prediction, target = _test_set(rng, groups, size)
            for said, value in _judged(group, right, prediction, target, draws).items():
                counts.setdefault(said, []).append(value)
        for (name, what), found in counts.items():
            promised: Promise = (ALPHA, LOW) if name.startswith("swapped") else NONE
            if "expanded" in name and groups >= LEAST_GROUPS:
                promised = (NEARLY, HIGH)
            yield _rate("examples in groups", name, setting, what, found, *promised)


def _test_set(rng: np.random.Generator, groups: int, size: int) -> tuple[Labels, Flags, Array, Array]:
    """Two models of equal skill: group of each example (n,), right (2, n), prediction (2, n), target (n,)."""
    sizes = 1 + rng.poisson(rng.gamma(4.0, (size - 1) / 4.0, groups))  # groups are of unequal size
    group = np.repeat(np.arange(groups), sizes)
    difficulty, shift = rng.normal(0, 0.7, groups), rng.normal(0, 0.6, (2, groups))
    n = len(group)
    right = (difficulty[group] + shift[:, group] + rng.normal(size=n) + rng.normal(0, 0.5, (2, n))) > -0.8
    target = rng.normal(size=groups)[group] + rng.normal(size=n)
    noise = np.exp(0.5 * shift[:, group]) * rng.normal(size=(2, n))
    return group, right, target + 0.5 * shift[:, group] + noise, target


def _judged(group: Labels, right: Flags, prediction: Array, target: Array, draws: int) -> dict[tuple[str, str], bool]:
    errors = np.abs(prediction - target)
    mean = [clusters.group_sums(x[:, None], group) for x in errors]
    corr = [clusters.group_sums(clusters.moments(x, target), group) for x in prediction]
    free = [clusters.group_sums(x[:, None], None) for x in errors]
    hits = [clusters.group_sums(x[:, None].astype(float), group) for x in right]
    level, covered = "false positives", "coverage of 95 %"
    return {
        ("McNemar", level): resampling.mcnemar_exact(right[0], right[1]) < ALPHA,
        ("swapped within groups", level): clusters.swap_test(hits[0], hits[1], draws)[0] < ALPHA,
        ("bootstrap of examples, MAE", covered): _holds_zero(clusters.mean_of, free, draws, False),
        ("bootstrap of groups, percentile, MAE", covered): _holds_zero(clusters.mean_of, mean, draws, False),
        ("bootstrap of groups, expanded, MAE", covered): _holds_zero(clusters.mean_of, mean, draws),
        ("bootstrap of groups, expanded, accuracy", covered): _holds_zero(clusters.mean_of, hits, draws),
        ("bootstrap of groups, expanded, Corr", covered): _holds_zero(clusters.correlation_of, corr, draws),
    }


def _holds_zero(statistic: clusters.Statistic, sums: Sequence[Array], draws: int, expand: bool = True) -> bool:
    found = clusters.clustered_bootstrap(statistic, sums[0], sums[1], draws, expand=expand)
    return found.low <= 0 <= found.high


def paired_examples(replications: int) -> Iterator[Rate]:
    """McNemar on independent examples, as many as test sets of this suite have."""
    for n, gap in product((100, 700, 1500), (0.0, 0.03, 0.06)):
        rng = stream("mcnemar", n, gap)
        easy = rng.normal(size=(replications, n))
        a, b = (easy + rng.normal(size=easy.shape) > special.ndtri(1 - p) * sqrt(2) for p in (0.7 + gap, 0.7))
        found = [resampling.mcnemar_exact(x, y) < ALPHA for x, y in zip(a, b, strict=True)]
        what = f"power for {100 * gap:g} points" if gap else "false positives"
        promised: Promise = NONE if gap else (ALPHA, LOW)
        yield _rate("independent examples", "McNemar", f"{n} examples", what, found, *promised)


def verdicts(replications: int) -> Iterator[Rate]:
    """TOST with a margin of 1 point: a true match, the edge of the margin, and far off."""
    few: Promise = (ALPHA, LOW)
    for n, truth in product((*SEEDS, 20), (0.0, STEP, 3 * STEP)):
        found = [tost(x, 0.0, STEP).verdict for x in stream("tost", n, truth).normal(truth, SD, (replications, n))]
        setting = f"n {n}, true difference {truth:g}, margin 1"
        yes, no = ([v == verdict for v in found] for verdict in ("reproduced", "not reproduced"))
        target: Promise = few if truth else (tost_power(STEP, SD, n), ABOUT)
        yield _rate("reproduction", "TOST", setting, "reproduced", yes, *target)
        yield _rate("reproduction", "TOST", setting, "not reproduced", no, *(few if truth <= STEP else NONE))


def aggregates(replications: int, draws: int = 500) -> Iterator[Rate]:
    """The bootstrap intervals of IQM and of the probability of improvement, which decide nothing."""
    level = np.array([60.0, 62.0, 64.0, 70.0])
    grid = np.sort(np.concatenate([stats.norm(m, SD).ppf((np.arange(50_000) + 0.5) / 50_000) for m in level]))
    middle = float(stats.trim_mean(grid, 0.25))
    better = float(special.ndtr(STEP / (SD * sqrt(2))))
    for n in SEEDS:
        a, b = runs(stream("aggregates", n), (replications, len(level), n), 0.5)
        strata = [list(zip(x + STEP, y, strict=True)) for x, y in zip(a, b, strict=True)]
        held = [resampling.iqm(list(x + level[:, None]), draws) for x in a]
        wins = [resampling.probability_of_improvement(pairs, draws) for pairs in strata]
        setting = f"{len(level)} benchmarks, n {n}"
        for name, truth, found in (("IQM", middle, held), ("probability of improvement", better, wins)):
            inside = [i.low <= truth <= i.high for i in found]
            yield _rate("aggregates", f"{name}, percentile bootstrap", setting, "coverage of 95 %", inside)


def _rate(
    study: str,
    test: str,
    setting: str,
    what: str,
    found: Iterable[object],
    target: float | None = None,
    bound: str = "",
) -> Rate:
    hits = [bool(hit) for hit in found]
    return Rate(
        study, test, setting, what, float(np.mean(hits)), len(hits), target, bound if target is not None else ""
    )


STUDIES: tuple[tuple[Callable[[int], Iterator[Rate]], int], ...] = (
    (two_methods, 1),
    (intervals, 2),
    (many_benchmarks, 5),
    (main_table, 5),
    (examples, 5),
    (paired_examples, 5),
    (verdicts, 1),
    (aggregates, 10),
)  # with the part of the replications that each can afford


def simulate(replications: int = REPLICATIONS) -> list[Rate]:
    """Every study, in order."""
    return [rate for study, share in STUDIES for rate in study(max(1, replications // share))]


def as_json(found: Sequence[Rate]) -> str:
    """All rates, one a line, with their Monte-Carlo errors."""
    rows = [json.dumps({**asdict(rate), "error": round(rate.error, 6)}, ensure_ascii=False) for rate in found]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def as_markdown(found: Sequence[Rate]) -> str:
    """The same for people: one table per study."""
    lines = [
        "# Level and power of the tests",
        "",
        "Made by `python -m benchmarks.report.simulate`; edits are overwritten. Rates in %, ± Monte-Carlo standard "
        f"error. Runs scatter with a standard deviation of {SD} points; the level is {ALPHA:g}. A row without a target "
        "makes no promise: it shows why the tables do otherwise, or how much power there is.",
    ]
    for study, rows in groupby(found, key=lambda rate: rate.study):
        lines += [
            "",
            f"## {study[0].upper()}{study[1:]}",
            "",
            "| test | setting | what | rate | target | replications |",
        ]
        lines.append("|---|---|---|---:|---:|---:|")
        lines += [_line(rate) for rate in rows]
    return "\n".join(lines) + "\n"


def _line(rate: Rate) -> str:
    target = "" if rate.target is None else f"{rate.bound} {100 * rate.target:.1f}"
    if not rate.holds():
        target += " (not kept)"
    measured = f"{100 * rate.rate:.2f} ± {100 * rate.error:.2f}"
    return f"| {rate.test} | {rate.setting} | {rate.what} | {measured} | {target} | {rate.replications} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write level_and_power.json and .md; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=REPLICATIONS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(arguments)
    if args.replications < 1:
        parser.error("--replications: expected a positive number")
    found = simulate(args.replications)
    args.out.mkdir(parents=True, exist_ok=True)
    write_bytes(args.out / "level_and_power.json", as_json(found).encode())
    write_bytes(args.out / "level_and_power.md", as_markdown(found).encode())
    broken = [rate for rate in found if not rate.holds()]
    print(f"{len(found)} rates in {args.out}, {len(broken)} of them not as promised")
    for rate in broken:
        print(_line(rate))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
