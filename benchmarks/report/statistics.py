"""Tests over seeds: differences, corrections, power and equivalence. Pure functions on numpy arrays.

Which test answers a question is declared before the data is seen (REPRODUCE.md): paired by seed where two methods ran
with the same seeds, because equal seeds share split and order. Resampling lives in benchmarks/report/resampling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]
ALPHA = 0.05
POWER = 0.80
VERDICT_SEEDS = 10
VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not run")


@dataclass(frozen=True)
class Comparison:
    """Two methods over seeds: ``difference`` is mean(a) - mean(b) with the interval [low, high] at ``confidence``.

    n: pairs, or the smaller of the two sizes. effect: Hedges' g (paired: of the differences). sd: of the differences
    (paired) or pooled over both methods (Welch). correlation: of a and b over shared seeds, nan where not defined.
    p is nan where nothing can be tested, because a difference that is not zero does not vary.
    """

    test: str
    n: int
    difference: float
    low: float
    high: float
    statistic: float
    df: float
    p: float
    effect: float
    sd: float
    correlation: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests against a constant; [low, high] is the interval at 1 - 2 alpha that decides the verdict."""

    n: int
    difference: float
    low: float
    high: float
    p: float
    verdict: str


def as_array(values: Sequence[float] | Array, least: int = 1) -> Array:
    """Values (n,) as float64; ValueError where fewer than ``least`` or not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"expected at least {least} values in one row, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite")
    return array


def paired_t(a: Sequence[float] | Array, b: Sequence[float] | Array, confidence: float = 0.95) -> Comparison:
    """Paired t test (Student 1908) of a (n,) and b (n,), entry i of both from the same seed; n >= 2.

    The effect is the paired Cohen's d (mean over standard deviation of the differences) with Hedges' correction.
    """
    x, y = as_array(a, 2), as_array(b, 2)
    if len(x) != len(y):
        raise ValueError(f"a paired test needs the same seeds on both sides, got {len(x)} and {len(y)}")
    gaps = x - y
    n, mean, sd = len(gaps), float(gaps.mean()), _spread(gaps, max(np.abs(x).max(), np.abs(y).max()))
    t, p, low, high = _student(mean, sd / sqrt(n), n - 1, confidence)
    return Comparison("paired t", n, mean, low, high, t, n - 1, p, _hedges(mean, sd, n - 1), sd, correlation(x, y))


def welch_t(a: Sequence[float] | Array, b: Sequence[float] | Array, confidence: float = 0.95) -> Comparison:
    """Welch's t test (Welch 1947) of a (n,) and b (m,) from independent runs; n, m >= 2.

    The effect is Hedges' g on the root mean square of both standard deviations, which assumes no equal variance.
    """
    x, y = as_array(a, 2), as_array(b, 2)
    parts = [_spread(v, float(np.abs(v).max())) ** 2 / len(v) for v in (x, y)]
    mean, error = float(x.mean() - y.mean()), sqrt(sum(parts))
    sizes = (len(x) - 1, len(y) - 1)
    df = sum(parts) ** 2 / sum(q * q / k for q, k in zip(parts, sizes, strict=True)) if error else float(sum(sizes))
    t, p, low, high = _student(mean, error, df, confidence)
    sd = sqrt((parts[0] * len(x) + parts[1] * len(y)) / 2)
    shared = correlation(x, y) if len(x) == len(y) else nan
    return Comparison("Welch t", min(len(x), len(y)), mean, low, high, t, df, p, _hedges(mean, sd, df), sd, shared)


def _spread(values: Array, scale: float) -> float:
    """Sample standard deviation; differences that are rounding noise of values of size ``scale`` count as zero."""
    sd = float(values.std(ddof=1))
    return sd if sd > 1e-12 * scale else 0.0


def _student(mean: float, error: float, df: float, confidence: float) -> tuple[float, float, float, float]:
    """t, two-sided p and the interval of a mean; without any variation only a zero difference can be judged."""
    if error == 0:
        t, p = (0.0, 1.0) if mean == 0 else (nan, nan)
        return t, p, mean, mean
    t = mean / error
    half = float(stats.t.isf((1 - confidence) / 2, df)) * error
    return t, 2 * float(stats.t.sf(abs(t), df)), mean - half, mean + half


def _hedges(mean: float, sd: float, df: float) -> float:
    """Hedges (1981): Cohen's d times J(df), which removes its bias in small samples."""
    if sd == 0:
        return 0.0 if mean == 0 else nan
    correction = exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / sqrt(df / 2) if df > 1 else 1.0
    return mean / sd * correction


def correlation(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    """Pearson correlation over seeds of a (n,) and b (n,): what pairing gains. nan where n < 3 or one is constant."""
    x, y = as_array(a), as_array(b)
    if len(x) != len(y) or len(x) < 3 or min(_spread(x, np.abs(x).max()), _spread(y, np.abs(y).max())) == 0:
        return nan
    return float(np.corrcoef(x, y)[0, 1])


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979) of one declared family; keeps the order, controls any false positive.

    ValueError for a p that is not in [0, 1]: a comparison that could not be tested does not belong in the family.
    """
    values = as_array(p, 0)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p values must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(v) for v in adjusted]


def power_t(effect: float, n: int, paired: bool = True, alpha: float = ALPHA) -> float:
    """Power of the two-sided t test for a standardised ``effect`` with n pairs, or n runs of each method.

    From the noncentral t distribution (Cohen 1988, chapter 2), without simulation.
    """
    df = n - 1 if paired else 2 * (n - 1)
    if df < 1:
        return 0.0
    centre = abs(effect) * sqrt(n if paired else n / 2)
    critical = float(stats.t.isf(alpha / 2, df))
    wrong_side = (
        stats.nct.cdf(-critical, df, centre) if centre < 6 else 0.0
    )  # beyond 6 it is nothing, and scipy says nan
    return float(stats.nct.sf(critical, df, centre) + wrong_side)


def detectable(sd: float, n: int, paired: bool = True, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest difference that n seeds detect with that power, at standard deviation ``sd`` (of the differences
    where paired). inf where n < 2. Unlike "observed power" it does not depend on the difference that was seen."""
    return sd * _detectable_effect(n, paired, alpha, power) if n >= 2 else inf


@lru_cache(maxsize=4096)
def _detectable_effect(n: int, paired: bool, alpha: float, power: float) -> float:
    high = 1.0
    while power_t(high, n, paired, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: power_t(effect, n, paired, alpha) - power, 0.0, high, xtol=1e-9))


def seeds_needed(
    difference: float, sd: float, paired: bool = True, alpha: float = ALPHA, power: float = POWER, most: int = 1000
) -> int | None:
    """Seeds (per method) after which the t test would find ``difference`` with that power; None beyond ``most``.

    Fed with an observed difference it is a plan, not a finding: the true difference is uncertain.
    """
    if difference == 0 or not isfinite(sd):
        return None
    if sd == 0:
        return 2
    effect = difference / sd
    if power_t(effect, most, paired, alpha) < power:
        return None
    return _first(lambda n: power_t(effect, n, paired, alpha) >= power, 2, most)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest n in [low, high] for which a condition that stays true once it is true holds."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def tost(values: Sequence[float] | Array, constant: float, margin: float, alpha: float = ALPHA) -> Equivalence:
    """Does the mean of values (n,), n >= 2, agree with a published constant up to ``margin`` (Schuirmann 1987)?

    reproduced: both one-sided tests reject, that is the interval at 1 - 2 alpha lies inside +-margin;
    not reproduced: that interval lies outside; inconclusive: neither. The margin is stated before the run, and the
    constant's own noise is unknown. At n = 5 a true match is confirmed only about every second time.
    """
    x = as_array(values, 2)
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}")
    n, difference = len(x), float(x.mean() - constant)
    error = _spread(x, float(np.abs(x).max())) / sqrt(n)
    half = float(stats.t.isf(alpha, n - 1)) * error
    low, high = difference - half, difference + half
    slack = margin - abs(difference)
    p = float(stats.t.sf(slack / error, n - 1)) if error else float(slack <= 0)
    verdict = "inconclusive"
    if p < alpha:
        verdict = "reproduced"
    elif low > margin or high < -margin:
        verdict = "not reproduced"
    return Equivalence(n, difference, low, high, p, verdict)


def critical_difference(methods: int, benchmarks: int, alpha: float = ALPHA) -> float:
    """The distance of mean ranks beyond which Nemenyi's test tells two methods apart (Demsar 2006, section 3.2.2).

    For a picture, never for a conclusion: with few benchmarks it is larger than any distance that can occur.
    """
    if methods < 2 or benchmarks < 1:
        raise ValueError(f"ranks need two methods and a benchmark, got {methods} and {benchmarks}")
    quantile = float(stats.studentized_range.isf(alpha, methods, inf)) / sqrt(2)
    return quantile * sqrt(methods * (methods + 1) / (6 * benchmarks))
