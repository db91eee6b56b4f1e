"""Permutations, bootstraps and exact counts: what the seeds alone, or the test examples alone, can say. numpy, scipy.

Every random draw comes from a fixed seed, so that a table built twice is the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.report.statistics import Array, as_array

EXACT = 2**16
DRAWS = 20_000
Strata = Sequence[tuple[Sequence[float] | Array, Sequence[float] | Array]]


@dataclass(frozen=True)
class Permutation:
    """statistic: mean over benchmarks of the standardised difference. smallest: the least p this design can reach."""

    statistic: float
    p: float
    exact: bool
    smallest: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float


def stratified_permutation(strata: Strata, paired: bool = True, draws: int = DRAWS, seed: int = 0) -> Permutation:
    """Two methods over all benchmarks: labels swapped inside each benchmark only (Good 2005, stratified permutation).

    strata: per benchmark a (n,) and b (m,), higher better on both sides. paired: labels are swapped within a seed
    (n = m, exact whatever the seeds share); else over all runs of the benchmark. The statistic is the mean over
    benchmarks of the difference of means over a scale that no relabelling changes, so that metrics of different units
    count alike. All relabellings are enumerated where there are at most 65,536, else ``draws`` are drawn.
    """
    pairs = [(as_array(a), as_array(b)) for a, b in strata]
    if not pairs or (paired and any(len(a) != len(b) for a, b in pairs)):
        raise ValueError("expected at least one benchmark and, where paired, equal seeds on both sides")
    observed = sum(_standardised(a, b, paired) for a, b in pairs) / len(pairs)
    total = prod(2 ** len(a) if paired else comb(len(a) + len(b), len(a)) for a, b in pairs)
    exact = total <= EXACT
    if exact:
        sums = np.zeros(1)
        for a, b in pairs:
            sums = (sums[:, None] + _every_relabelling(a, b, paired)).ravel()
    else:
        rng = np.random.default_rng(seed)
        sums = sum((_drawn(a, b, paired, draws, rng) for a, b in pairs), np.zeros(draws))
    hits = int((np.abs(sums / len(pairs)) >= abs(observed) - 1e-9).sum())
    p = hits / total if exact else (hits + 1) / (draws + 1)
    return Permutation(observed, p, exact, min(1.0, 2 / total) if exact else 1 / (draws + 1))


def _scale(a: Array, b: Array, paired: bool) -> float:
    """Root mean square of the differences, or the standard deviation of all runs: both invariant to relabelling."""
    scale = float(np.sqrt(((a - b) ** 2).mean())) if paired else float(np.concatenate([a, b]).std())
    return scale or 1.0


def _standardised(a: Array, b: Array, paired: bool) -> float:
    return float(a.mean() - b.mean()) / _scale(a, b, paired)


def _every_relabelling(a: Array, b: Array, paired: bool) -> Array:
    if paired:
        signs = np.array(list(product((1.0, -1.0), repeat=len(a))))
        return np.asarray(signs @ (a - b) / len(a) / _scale(a, b, paired))
    both = np.concatenate([a, b])
    picked = np.array([both[list(chosen)].sum() for chosen in combinations(range(len(both)), len(a))])
    return np.asarray((picked / len(a) - (both.sum() - picked) / len(b)) / _scale(a, b, paired))


def _drawn(a: Array, b: Array, paired: bool, draws: int, rng: np.random.Generator) -> Array:
    if paired:
        signs = 1.0 - 2.0 * rng.integers(2, size=(draws, len(a)), dtype=np.int8)
        return np.asarray(signs @ (a - b) / len(a) / _scale(a, b, paired))
    both = np.concatenate([a, b])
    shuffled = rng.permuted(np.broadcast_to(both, (draws, len(both))), axis=1)
    gaps = shuffled[:, : len(a)].mean(axis=1) - shuffled[:, len(a) :].mean(axis=1)
    return np.asarray(gaps / _scale(a, b, paired))


def iqm(scores: Sequence[Sequence[float] | Array], draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Interquartile mean over all runs of all benchmarks (Agarwal et al., NeurIPS 2021), stratified bootstrap.

    scores: per benchmark the runs (n,) in one common unit; runs are resampled inside each benchmark.
    """
    strata = [as_array(s) for s in scores]
    rng = np.random.default_rng(seed)
    resampled = np.concatenate([s[rng.integers(len(s), size=(draws, len(s)))] for s in strata], axis=1)
    low, high = _percentiles(stats.trim_mean(resampled, 0.25, axis=1), level)
    return Interval(float(stats.trim_mean(np.concatenate(strata), 0.25)), low, high)


def probability_of_improvement(strata: Strata, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """P(a run of a beats a run of b), ties half, mean over benchmarks (Agarwal et al. 2021); a, b higher better."""
    pairs = [(as_array(a), as_array(b)) for a, b in strata]
    wins = [_wins(a, b) for a, b in pairs]
    rng = np.random.default_rng(seed)
    total = np.zeros(draws)
    for table in wins:
        left, right = (_weights(n, draws, rng) for n in table.shape)
        total += ((left @ table) * right).sum(axis=1)
    low, high = _percentiles(total / len(wins), level)
    return Interval(float(np.mean([table.mean() for table in wins])), low, high)


def _weights(n: int, draws: int, rng: np.random.Generator) -> Array:
    """How much each of n runs weighs in each bootstrap sample: (draws, n), rows sum to 1."""
    picked = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=n * draws).reshape(draws, n) / n


def _wins(a: Array, b: Array) -> Array:
    """Which runs of a (n,) beat which of b (m,), ties half: (n, m)."""
    gaps = a[:, None] - b[None, :]
    return np.asarray((gaps > 0) + 0.5 * (gaps == 0))


def mean_rank(means: Array) -> Array:
    """Mean rank (1 is best, ties shared) of each method: means (benchmarks, methods), higher better -> (methods,)."""
    ranks: Array = stats.rankdata(-np.asarray(means, dtype=np.float64), axis=1).mean(axis=0)
    return ranks


def mcnemar_exact(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Exact McNemar test (McNemar 1947) of one pair of runs on the same examples (n,), n >= 1: two-sided p.

    Valid for independent examples; where several come from one speaker or video, prefer ``paired_bootstrap``.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"expected two rows of the same examples, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_bootstrap(
    metric: Callable[[NDArray[np.generic], NDArray[np.generic]], float],
    target: NDArray[np.generic],
    predictions: tuple[NDArray[np.generic], NDArray[np.generic]],
    group: NDArray[np.generic] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """metric(a) - metric(b) of one pair of runs with its 95 % percentile interval (Efron and Tibshirani 1993, ch. 13).

    metric(prediction, target) -> float; target (n,), predictions (n, ...) twice. Whole groups (n,) are resampled where
    given, because examples of one speaker or video are not independent; else single examples.
    """
    first, second = predictions
    if not len(target) == len(first) == len(second) or (group is not None and len(group) != len(target)):
        raise ValueError("targets, both predictions and groups must be of the same examples")
    labels = np.unique(group, return_inverse=True)[1] if group is not None else np.arange(len(target))
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    rng = np.random.default_rng(seed)
    gaps = np.empty(draws)
    for draw in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        gaps[draw] = metric(first[rows], target[rows]) - metric(second[rows], target[rows])
    low, high = _percentiles(gaps, 0.95)
    return Interval(metric(first, target) - metric(second, target), low, high)


def _percentiles(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
