"""Permutations, bootstraps and exact counts: what the seeds alone, or the test examples alone, can say. numpy, scipy.

Every random draw comes from a fixed seed, so that a table built twice is the same table. However many runs there are, a
call draws about ``LABELS`` random labels at most (fewer draws, never below ``LEAST``) and holds ``AT_ONCE`` at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, prod, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from benchmarks.report.statistics import ALPHA, POWER, Array, as_array

EXACT = 2**16
DRAWS = 20_000
BOOTSTRAP = 2000
LEAST = 500
LABELS = 20_000_000
AT_ONCE = 2_000_000
Strata = Sequence[tuple[Sequence[float] | Array, Sequence[float] | Array]]


@dataclass(frozen=True)
class Permutation:
    """statistic: mean over benchmarks of the standardised difference. smallest: the least p these data can reach."""

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


def affordable(draws: int, labels: int) -> int:
    """As many of the ``draws`` as ``LABELS`` pays for, where one takes so many ``labels``; never below ``LEAST``."""
    return max(min(draws, LEAST), min(draws, LABELS // max(labels, 1)))


def _blocks(draws: int, labels: int) -> Iterator[int]:
    """Draws in blocks that hold ``AT_ONCE`` labels."""
    size = max(1, AT_ONCE // max(labels, 1))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def stratified_permutation(
    strata: Strata, paired: bool | Sequence[bool] = True, draws: int = DRAWS, seed: int = 0
) -> Permutation:
    """Two methods over all benchmarks: labels swapped inside each benchmark only (Good 2005, stratified permutation).

    strata: per benchmark a (n,) and b (m,), higher better on both sides. paired, one for all or one for each: labels
    are swapped within a seed (n = m, exact whatever the seeds share); else over all runs of the benchmark. The
    statistic is the mean over benchmarks of the difference of means over a scale that no relabelling changes, so that
    metrics of different units count alike. All relabellings are enumerated where there are at most 65,536, else at
    most ``draws`` are drawn.
    """
    pairs = [(as_array(a), as_array(b)) for a, b in strata]
    joined = [paired] * len(pairs) if isinstance(paired, bool) else list(paired)
    if not pairs or any(swap and len(a) != len(b) for (a, b), swap in zip(pairs, joined, strict=True)):
        raise ValueError("expected at least one benchmark and, where paired, equal seeds on both sides")
    parts = [(a, b, swap) for (a, b), swap in zip(pairs, joined, strict=True)]
    observed = sum(_standardised(*part) for part in parts) / len(parts)
    total = prod(2 ** len(a) if swap else comb(len(a) + len(b), len(a)) for a, b, swap in parts)
    exact = total <= EXACT
    if exact:
        sums = np.zeros(1)
        for part in parts:
            sums = (sums[:, None] + _every_relabelling(*part)).ravel()
    else:
        draws = affordable(draws, sum(len(a) + len(b) * (not swap) for a, b, swap in parts))
        rng = np.random.default_rng(seed)
        sums = sum((_drawn(*part, draws, rng) for part in parts), np.zeros(draws))
    sizes = np.abs(sums / len(parts))
    hits = int((sizes >= abs(observed) - 1e-9).sum())
    if exact:
        return Permutation(observed, hits / total, True, float((sizes >= sizes.max() - 1e-9).mean()))
    return Permutation(observed, (hits + 1) / (draws + 1), False, 1 / (draws + 1))


def permutation_seeds(statistic: float, benchmarks: int, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Seeds per benchmark after which the paired permutation would find ``statistic`` with that power.

    Normal approximation: over all sign flips the statistic has the variance 1 / (benchmarks * seeds), around an effect
    of that size (1 - effect squared) of it. Never fewer than can reach the level at all. A plan, as in
    ``statistics.seeds_needed``; None for a statistic of 0.
    """
    if statistic == 0:
        return None
    spread = sqrt(max(0.0, 1.0 - statistic**2))
    wanted = (float(special.ndtri(1 - alpha / 2)) + float(special.ndtri(power)) * spread) / abs(statistic)
    pairs = max(wanted**2, np.log2(2 / alpha))  # of fewer pairs even the least p, 2 / 2 ** pairs, is above the level
    return max(2, int(np.ceil(pairs / benchmarks)))


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
    both, scale = np.concatenate([a, b]), _scale(a, b, paired)
    gaps = []
    for size in _blocks(draws, len(a) if paired else len(both)):
        if paired:
            signs = 1.0 - 2.0 * rng.integers(2, size=(size, len(a)), dtype=np.int8)
            gaps.append(signs @ (a - b) / len(a))
        else:
            shuffled = rng.permuted(np.broadcast_to(both, (size, len(both))), axis=1)
            gaps.append(shuffled[:, : len(a)].mean(axis=1) - shuffled[:, len(a) :].mean(axis=1))
    return np.concatenate(gaps) / scale


def iqm(
    scores: Sequence[Sequence[float] | Array], draws: int = BOOTSTRAP, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interquartile mean over all runs of all benchmarks (Agarwal et al., NeurIPS 2021), stratified bootstrap.

    scores: per benchmark the runs (n,) in one common unit; runs are resampled inside each benchmark. A percentile
    interval of few runs is too narrow (results/simulations): a description, not a test.
    """
    strata = [as_array(s) for s in scores]
    runs = sum(map(len, strata))
    rng = np.random.default_rng(seed)
    means = [
        stats.trim_mean(np.concatenate([s[rng.integers(len(s), size=(n, len(s)))] for s in strata], axis=1), 0.25, 1)
        for n in _blocks(affordable(draws, runs), runs)
    ]
    low, high = percentiles(np.concatenate(means), level)
    return Interval(float(stats.trim_mean(np.concatenate(strata), 0.25)), low, high)


def probability_of_improvement(strata: Strata, draws: int = BOOTSTRAP, seed: int = 0, level: float = 0.95) -> Interval:
    """P(a run of a beats a run of b), ties half, mean over benchmarks (Agarwal et al. 2021); a, b higher better.

    The runs of a and of b are resampled apart, as in the source; the interval is descriptive, as that of ``iqm``.
    """
    pairs = [(as_array(a), np.sort(as_array(b))) for a, b in strata]
    runs = sum(len(a) + len(b) for a, b in pairs)
    rng = np.random.default_rng(seed)
    places = [tuple(np.searchsorted(b, a, side) for side in ("left", "right")) for a, b in pairs]
    value = np.mean([(below + up_to).mean() / 2 / len(b) for (_, b), (below, up_to) in zip(pairs, places, strict=True)])
    found = []
    for size in _blocks(affordable(draws, runs), runs):
        total = np.zeros(size)
        for (a, b), (below, up_to) in zip(pairs, places, strict=True):
            left, right = _weights(len(a), size, rng), _weights(len(b), size, rng)
            reached = np.concatenate([np.zeros((size, 1)), np.cumsum(right, axis=1)], axis=1)
            total += (left * (reached[:, below] + reached[:, up_to])).sum(axis=1) / 2
        found.append(total / len(pairs))
    low, high = percentiles(np.concatenate(found), level)
    return Interval(float(value), low, high)


def _weights(n: int, draws: int, rng: np.random.Generator) -> Array:
    """How much each of n runs weighs in each bootstrap sample: (draws, n), rows sum to 1."""
    picked = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=n * draws).reshape(draws, n) / n


def mean_rank(means: Array) -> Array:
    """Mean rank (1 is best, ties shared) of each method: means (benchmarks, methods), higher better -> (methods,)."""
    ranks: Array = stats.rankdata(-np.asarray(means, dtype=np.float64), axis=1).mean(axis=0)
    return ranks


def mcnemar_exact(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Exact McNemar test (McNemar 1947) of one pair of runs on the same examples (n,), n >= 1: two-sided p.

    Valid for independent examples; where several come from one speaker or video, prefer benchmarks/report/clusters.py.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"expected two rows of the same examples, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def percentiles(values: Array, level: float) -> tuple[float, float]:
    """The interval that holds the middle ``level`` of the values (n,)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
