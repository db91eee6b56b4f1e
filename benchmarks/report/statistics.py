"""Tests over seeds: differences, corrections, power and equivalence. Pure functions on numpy arrays.

Which test answers a question is declared before the data is seen, in the benchmark's specification: paired by seed
unless it says otherwise, because equal seeds share split and order. Resampling: benchmarks/report/resampling.py.
What these tests do at three to ten seeds is measured by benchmarks/report/simulate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special, stats

Array = NDArray[np.float64]
ALPHA = 0.05
POWER = 0.80
VERDICT_SEEDS = 10
TESTS = {"paired": "paired t by seed", "welch": "Welch t"}
VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not run")


@dataclass(frozen=True)
class Comparison:
    """Two methods over seeds: ``difference`` is mean(a) - mean(b) with the interval [low, high] at ``confidence``.

    n: pairs, or the smaller of the two sizes. effect: Hedges' g (paired: of the differences), nan where it has no
    expectation (one degree of freedom). sd: of the differences (paired) or the root mean square of both standard
    deviations (Welch). correlation: of a and b over shared seeds, nan where not defined. p is nan where nothing can be
    tested, because a difference that is not zero does not vary.
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
    """Two one-sided tests against a constant; [low, high] is the interval at 1 - 2 alpha that decides the verdict.

    sd: of the values. p is nan where the values do not vary: then there is no test, and the verdict is inconclusive.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    verdict: str
    sd: float


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

    The effect is Hedges' g on the root mean square of both standard deviations, which assumes no equal variance, with
    the degrees of freedom of that mean square (Delacre et al. 2021). correlation: nan, for entry i of a and of b need
    not share a seed here; who knows that they do fills it in.
    """
    x, y = as_array(a, 2), as_array(b, 2)
    variances = [_spread(v, float(np.abs(v).max())) ** 2 for v in (x, y)]
    parts = [variance / len(v) for variance, v in zip(variances, (x, y), strict=True)]
    mean, error = float(x.mean() - y.mean()), sqrt(sum(parts))
    sizes = (len(x) - 1, len(y) - 1)
    df, df_effect = (_satterthwaite(each, sizes) for each in (parts, variances))
    t, p, low, high = _student(mean, error, df, confidence)
    sd = sqrt(sum(variances) / 2)
    effect = _hedges(mean, sd, df_effect)
    return Comparison("Welch t", min(len(x), len(y)), mean, low, high, t, df, p, effect, sd, nan)


def _satterthwaite(parts: Sequence[float], sizes: Sequence[int]) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946), each with degrees of freedom of its own."""
    below = sum(part * part / size for part, size in zip(parts, sizes, strict=True))
    return sum(parts) ** 2 / below if below else float(sum(sizes))


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
    half = -float(special.stdtrit(df, (1 - confidence) / 2)) * error
    return t, 2 * float(special.stdtr(df, -abs(t))), mean - half, mean + half


def _hedges(mean: float, sd: float, df: float) -> float:
    """Hedges (1981): Cohen's d times J(df), which removes its bias in small samples; nan where df <= 1, for d has no
    expectation then."""
    if df <= 1 or (sd == 0 and mean != 0):
        return nan
    correction = exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / sqrt(df / 2)
    return mean / sd * correction if sd else 0.0


def correlation(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    """Pearson correlation over seeds of a (n,) and b (n,): what pairing gains. nan where n < 3 or one is constant."""
    x, y = as_array(a), as_array(b)
    if len(x) != len(y) or len(x) < 3 or min(_spread(x, np.abs(x).max()), _spread(y, np.abs(y).max())) == 0:
        return nan
    return float(np.corrcoef(x, y)[0, 1])


def holm(p: Sequence[float], size: int | None = None) -> list[float]:
    """Holm's step-down correction (Holm 1979) of one declared family; keeps the order, controls any false positive.

    size: comparisons that the family was declared with, at least len(p). Those that could not be tested count as the
    largest: a family that shrank with what the runs gave would not be the declared one. ValueError for a p that is not
    in [0, 1], or a size that is too small.
    """
    values = as_array(p, 0)
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p values must lie in [0, 1]")
    if size is not None and size < len(values):
        raise ValueError(f"a family of {size} cannot hold {len(values)} p values")
    order = np.argsort(values, kind="stable")
    steps = (size or len(values)) - np.arange(len(values))
    stepped = np.maximum.accumulate(steps * values[order])
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
    critical = -special.stdtrit(df, alpha / 2)
    wrong_side = np.nan_to_num(special.nctdtr(df, centre, -critical))  # scipy says nan where it is nothing
    missed = special.nctdtr(df, centre, critical)  # and here where it is next to nothing; the slow way knows it
    return float((stats.nct.sf(critical, df, centre) if np.isnan(missed) else 1.0 - missed) + wrong_side)


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
    not reproduced: that interval lies outside; inconclusive: neither, or the values do not vary at all, for two equal
    runs are no proof of a spread of zero. The margin is stated before the run, and the constant's own noise is unknown.
    """
    x = as_array(values, 2)
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}")
    n, difference, sd = len(x), float(x.mean() - constant), _spread(x, float(np.abs(x).max()))
    if sd == 0:
        return Equivalence(n, difference, difference, difference, nan, "inconclusive", sd)
    error = sd / sqrt(n)
    half = -float(special.stdtrit(n - 1, alpha)) * error
    low, high = difference - half, difference + half
    p = float(special.stdtr(n - 1, (abs(difference) - margin) / error))
    verdict = "inconclusive"
    if p < alpha:
        verdict = "reproduced"
    elif low > margin or high < -margin:
        verdict = "not reproduced"
    return Equivalence(n, difference, low, high, p, verdict, sd)


def tost_power(margin: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """Probability that n runs of standard deviation ``sd`` confirm a true match (Phillips 1990, difference zero).

    The mean must lie within what the interval's half width leaves of the margin: integrated over the law of the sample
    standard deviation, which is chi with n - 1 degrees of freedom.
    """
    if n < 2:
        return 0.0
    df, error = n - 1, sd / sqrt(n)
    critical = -float(special.stdtrit(df, alpha))
    widest = sqrt(df) * margin / (critical * error)  # of chi: beyond it the interval is wider than the margin

    def density(chi: float) -> float:
        left = (margin - critical * error * chi / sqrt(df)) / error
        return float(stats.chi.pdf(chi, df) * (2 * special.ndtr(left) - 1))

    bulk = float(stats.chi.isf(1e-12, df))
    return float(integrate.quad(density, 0.0, min(widest, bulk), limit=200)[0])


def tost_seeds(margin: float, sd: float, power: float = POWER, most: int = 1000) -> int | None:
    """Runs after which a true match would be confirmed with that power; None beyond ``most``, or where sd is 0."""
    if sd == 0 or tost_power(margin, sd, most) < power:
        return None
    return _first(lambda n: tost_power(margin, sd, n) >= power, 2, most)


def critical_difference(methods: int, benchmarks: int, alpha: float = ALPHA) -> float:
    """The distance of mean ranks beyond which Nemenyi's test tells two methods apart (Demsar 2006, section 3.2.2).

    For a picture, never for a conclusion: with few benchmarks it is larger than any distance that can occur.
    """
    if methods < 2 or benchmarks < 1:
        raise ValueError(f"ranks need two methods and a benchmark, got {methods} and {benchmarks}")
    quantile = float(stats.studentized_range.isf(alpha, methods, inf)) / sqrt(2)
    return quantile * sqrt(methods * (methods + 1) / (6 * benchmarks))
