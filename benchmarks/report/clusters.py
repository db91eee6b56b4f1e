"""Two models on the same test examples, where examples of one speaker or video are not independent. numpy, scipy.

Everything works on sums per group, so that a draw costs as much as there are groups, whatever the number of examples: a
statistic is a function of sums (..., k) over any choice of groups. Where no groups are known each example is one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.report.resampling import DRAWS, Interval, affordable, percentiles
from benchmarks.report.statistics import Array

MOST_EXACT = 16  # groups whose sign flips are enumerated
Statistic = Callable[[Array], Array]
Labels = NDArray[np.generic] | None


def group_sums(columns: Array, group: Labels) -> Array:
    """Sums of columns (n, k) over the examples of each group (n,), with the counts behind them: (groups, k + 1)."""
    if group is not None and len(group) != len(columns):
        raise ValueError(f"expected groups of the same examples, got {len(group)} for {len(columns)}")
    counted = np.column_stack([columns, np.ones(len(columns))]).astype(np.float64)
    if group is None:
        return counted
    labels = np.unique(group, return_inverse=True)[1]
    return np.stack([np.bincount(labels, weights=column) for column in counted.T], axis=1)


def mean_of(sums: Array) -> Array:
    """The mean of a score per example: sums (..., 2) of (score, 1) -> (...)."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def moments(prediction: Array, target: Array) -> Array:
    """What a correlation needs of each example: (n, 5)."""
    x, y = prediction - prediction.mean(), target - target.mean()  # for precision; a correlation does not see it
    return np.column_stack([x, y, x * x, y * y, x * y])


def correlation_of(sums: Array) -> Array:
    """Pearson correlation from sums (..., 6) of ``moments`` and 1 -> (...); 0 where either side is constant."""
    x, y, xx, yy, xy = (sums[..., i] / sums[..., 5] for i in range(5))
    spread = np.maximum(xx - x * x, 0.0) * np.maximum(yy - y * y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (xy - x * y) / np.sqrt(spread), 0.0)


def clustered_bootstrap(
    statistic: Statistic, a: Array, b: Array, draws: int = DRAWS, seed: int = 0, expand: bool = True
) -> Interval:
    """statistic(a) - statistic(b) with its 95 % interval: whole groups resampled, both models alike.

    a, b: ``group_sums`` of both models, (groups, k). Percentile interval (Efron and Tibshirani 1993, ch. 13), expanded
    for the number of groups (Hesterberg 2015, The American Statistician 69): a plain one of g groups is too narrow by
    the factor sqrt((g - 1) / g) and by the normal quantile in the place of Student's; ``expand`` off shows that one.
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"expected sums of the same groups, at least two, got {a.shape} and {b.shape}")
    groups = len(a)
    rng = np.random.default_rng(seed)
    gaps = []
    for _ in range(affordable(draws, groups) // 100):
        picked = rng.integers(groups, size=(100, groups)) + groups * np.arange(100)[:, None]
        weights = np.bincount(picked.ravel(), minlength=groups * 100).reshape(100, groups).astype(np.float64)
        gaps.append(statistic(weights @ a) - statistic(weights @ b))
    low, high = percentiles(np.concatenate(gaps), expanded(0.95, groups) if expand else 0.95)
    return Interval(float(statistic(a.sum(axis=0)) - statistic(b.sum(axis=0))), low, high)


def expanded(level: float, groups: int) -> float:
    """The level that a percentile interval of so many groups must aim at to hold ``level`` (Hesterberg 2015)."""
    reach = np.sqrt(groups / (groups - 1)) * special.stdtrit(groups - 1, (1 + level) / 2)
    return float(2 * special.ndtr(reach) - 1)


def swap_test(a: Array, b: Array, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """p that two models with ``group_sums`` a and b, (groups, 2), have the same mean, and the least p possible.

    The models' labels are swapped within whole groups (Good 2005; Fisher's sign flips of each group's difference of
    sums), all ways of it up to 16 groups, else ``draws`` of them. Exact where swapping is fair whatever a group's
    examples share; of few groups nothing can be shown, which the second number says.
    """
    if a.shape != b.shape or a.shape[1:] != (2,):
        raise ValueError(f"expected sums and counts of the same groups, got {a.shape} and {b.shape}")
    gaps = a[:, 0] - b[:, 0]
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 1.0, 1.0
    least = abs(gaps.sum()) - 1e-9 * np.abs(gaps).sum()
    if len(gaps) <= MOST_EXACT:
        sums = np.abs(np.array(list(product((1.0, -1.0), repeat=len(gaps)))) @ gaps)
        return float((sums >= least).mean()), 2.0 ** (1 - len(gaps))
    draws, rng, hits = affordable(draws, len(gaps)) // 100 * 100, np.random.default_rng(seed), 0
    for _ in range(draws // 100):
        signs = 1.0 - 2.0 * rng.integers(2, size=(100, len(gaps)), dtype=np.int8)
        hits += int((np.abs(signs @ gaps) >= least).sum())
    return (hits + 1) / (draws + 1), 1 / (draws + 1)
