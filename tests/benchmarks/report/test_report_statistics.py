"""Tests over seeds, against independent implementations and by simulation."""

from __future__ import annotations

from math import inf, isnan, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks.report.statistics import (
    correlation,
    detectable,
    holm,
    paired_t,
    power_t,
    seeds_needed,
    tost,
    tost_power,
    tost_seeds,
    welch_t,
)

RNG = np.random.default_rng(11)
A = RNG.normal(0.70, 0.01, size=7)
B = A * 0.5 + RNG.normal(0.34, 0.01, size=7)


def test_paired_t_is_scipys() -> None:
    ours, theirs = paired_t(A, B), stats.ttest_rel(A, B)
    low, high = theirs.confidence_interval(0.95)
    assert (ours.statistic, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, 6))
    assert (ours.low, ours.high, ours.difference) == pytest.approx((low, high, A.mean() - B.mean()))
    assert ours.correlation == pytest.approx(stats.pearsonr(A, B).statistic)


def test_welch_t_is_scipys_with_unequal_sizes() -> None:
    ours, theirs = welch_t(A, B[:4]), stats.ttest_ind(A, B[:4], equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    assert (ours.statistic, ours.p, ours.df) == pytest.approx((theirs.statistic, theirs.pvalue, theirs.df))
    assert (ours.low, ours.high, ours.n) == pytest.approx((low, high, 4))


def test_hedges_g_is_cohens_d_with_the_known_correction() -> None:
    d = (A - B).mean() / (A - B).std(ddof=1)
    assert paired_t(A, B).effect == pytest.approx(d * (1 - 3 / (4 * 6 - 1)), rel=2e-3)
    g = welch_t(A, B[:3]).effect
    one, two = A.var(ddof=1), B[:3].var(ddof=1)
    df = 6 * 2 * (one + two) ** 2 / (2 * one**2 + 6 * two**2)  # Delacre et al. 2021, equation 13
    assert g == pytest.approx((A.mean() - B[:3].mean()) / sqrt((one + two) / 2) * (1 - 3 / (4 * df - 1)), rel=5e-3)


def test_hedges_g_is_unbiased_and_does_not_exist_for_two_pairs() -> None:
    rng = np.random.default_rng(4)
    zero = np.zeros(4)
    assert np.mean([paired_t(x, zero).effect for x in rng.normal(0.5, 1, (6000, 4))]) == pytest.approx(0.5, abs=0.05)
    assert isnan(paired_t([0.5, 0.7], [0.4, 0.5]).effect)


def test_the_order_of_the_methods_turns_every_sign() -> None:
    one, other = paired_t(A, B), paired_t(B, A)
    assert (one.difference, one.low, one.statistic, one.effect) == pytest.approx(
        (-other.difference, -other.high, -other.statistic, -other.effect)
    )
    assert one.p == pytest.approx(other.p)


def test_a_difference_that_does_not_vary_is_not_tested() -> None:
    assert isnan(paired_t([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]).p)
    assert paired_t([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert isnan(welch_t([0.5, 0.5], [0.4, 0.4]).p)


@pytest.mark.parametrize("bad", [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0])])
def test_too_few_unequal_or_broken_values_are_refused(bad: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match=r"expected|same seeds|finite"):
        paired_t(*bad)


def test_correlation_needs_three_seeds_and_variation() -> None:
    assert isnan(correlation([1, 2], [2, 1]))
    assert isnan(correlation([1, 1, 1], [1, 2, 3]))
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03], [0.5, 0.001, 0.02, 0.02, 0.9], [0.3], []])
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]) if p else [])


def test_holm_counts_what_was_declared_and_not_tested() -> None:
    assert holm([0.01, 0.04], 4) == pytest.approx(list(multipletests([0.01, 0.04, 1, 1], method="holm")[1][:2]))
    assert holm([], 3) == []
    with pytest.raises(ValueError, match="family of 1"):
        holm([0.1, 0.2], 1)


def test_holm_refuses_what_is_not_a_p_value() -> None:
    with pytest.raises(ValueError, match="finite"):
        holm([0.1, float("nan")])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.2])


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("effect", [0.1, 0.8, 2.5])
def test_power_is_that_of_statsmodels(n: int, effect: float) -> None:
    assert power_t(effect, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-6)
    assert power_t(effect, n, paired=False) == pytest.approx(TTestIndPower().power(effect, n, 0.05), abs=1e-6)


@pytest.mark.parametrize(("effect", "n"), [(17.9, 7), (1.4, 800), (40.0, 4), (11.0, 5), (200.0, 3)])
def test_power_is_one_where_the_effect_is_huge(effect: float, n: int) -> None:
    assert power_t(effect, n, alpha=0.05 / 7) == pytest.approx(1.0, abs=1e-3)
    assert seeds_needed(effect, 1.0, alpha=0.05 / 7) == next(
        k for k in range(2, 40) if power_t(effect, k, alpha=0.05 / 7) >= 0.8
    )


def test_power_of_one_point_at_eight_tenths() -> None:
    """The figures that the choice of seeds rests on: two-sample t, difference 1, standard deviation 0.8."""
    assert [round(power_t(1 / 0.8, n, paired=False), 2) for n in (3, 5, 10)] == [0.22, 0.41, 0.75]
    assert [round(detectable(0.8, n, paired=False), 2) for n in (3, 5, 10)] == [2.46, 1.62, 1.06]
    assert [seeds_needed(1, 0.8, False, power=power) for power in (0.8, 0.9)] == [12, 15]
    assert seeds_needed(1, 0.8, False, alpha=0.05 / 6) == 18
    assert [seeds_needed(1, 0.8 * sqrt(2 - 2 * r)) for r in (0, 0.3, 0.5)] == [13, 10, 8]


def test_detectable_and_needed_fit_each_other() -> None:
    least = detectable(0.8, 6)
    assert power_t(least / 0.8, 6) == pytest.approx(0.8, abs=1e-6)
    assert seeds_needed(least * 1.0001, 0.8) == 6
    assert seeds_needed(least * 0.9999, 0.8) == 7
    assert detectable(0.8, 1) == inf
    assert seeds_needed(0.0, 0.8) is None
    assert seeds_needed(1e-6, 0.8) is None


@pytest.mark.parametrize("centre", [0.0, 0.4, 0.9, 3.0])
def test_tost_is_that_of_statsmodels(centre: float) -> None:
    x = np.array([0.2, -0.3, 0.5, 0.1, -0.2]) + centre
    ours = tost(x, 0.0, 1.0)
    theirs = DescrStatsW(x).ttost_mean(-1.0, 1.0)
    assert ours.p == pytest.approx(theirs[0])
    low, high = DescrStatsW(x).tconfint_mean(alpha=0.10)
    assert (ours.low, ours.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, -0.1, 0.0, 0.05], "reproduced"),
        ([3.1, 2.9, 3.0, 3.05], "not reproduced"),
        ([-3.1, -2.9, -3.0, -3.05], "not reproduced"),
        ([2.0, -1.5, 1.0, -0.5], "inconclusive"),
        ([0.4, 0.4], "inconclusive"),
        ([1.4, 1.4], "inconclusive"),
    ],
)
def test_verdicts(values: list[float], verdict: str) -> None:
    assert tost(values, 0.0, 1.0).verdict == verdict
    assert tost([v + 75.0 for v in values], 75.0, 1.0).verdict == verdict


@pytest.mark.parametrize(("n", "sd"), [(2, 0.3), (5, 0.8), (10, 0.8), (10, 2.0)])
def test_the_power_of_tost_is_a_double_integral(n: int, sd: float) -> None:
    """Over the mean and the variance, which are independent in normal samples, on a grid."""
    mean = np.linspace(-1, 1, 4001)
    variance = stats.chi2(n - 1).ppf((np.arange(4000) + 0.5) / 4000) / (n - 1) * sd**2
    half = stats.t.isf(0.05, n - 1) * np.sqrt(variance / n)
    inside = np.abs(mean)[:, None] + half < 1
    density = stats.norm(0, sd / sqrt(n)).pdf(mean) * (mean[1] - mean[0])
    assert tost_power(1.0, sd, n) == pytest.approx(density @ inside.mean(axis=1), abs=2e-3)


def test_the_seeds_of_a_verdict() -> None:
    assert tost_seeds(1.0, 0.8) == 8
    assert tost_power(1.0, 0.8, 7) < 0.8 < tost_power(1.0, 0.8, 8)
    assert tost_seeds(1.0, 50.0) is None
    assert tost_seeds(1.0, 0.0) is None


def test_a_margin_must_be_stated() -> None:
    with pytest.raises(ValueError, match="positive"):
        tost([1.0, 2.0], 1.0, 0.0)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_level_is_kept_with_few_seeds(n: int) -> None:
    rng = np.random.default_rng(n)
    shared = rng.normal(size=(1200, 1, n))
    draws = rng.normal(size=(1200, 2, n)) + shared
    paired = np.mean([paired_t(a, b).p < 0.05 for a, b in draws])
    welch = np.mean([welch_t(a, b).p < 0.05 for a, b in rng.normal(size=(1200, 2, n))])
    assert 0.03 < paired < 0.07
    assert 0.02 < welch < 0.07


def test_the_power_at_five_seeds_is_the_predicted_one() -> None:
    rng = np.random.default_rng(5)
    found = [welch_t(a + 1.0, b).p < 0.05 for a, b in rng.normal(0, 0.8, size=(1500, 2, 5))]
    assert np.mean(found) == pytest.approx(0.41, abs=0.04)


def test_tost_confirms_a_true_match_about_every_second_time_at_five_seeds() -> None:
    rng = np.random.default_rng(6)
    found = [tost(x, 0.0, 1.0).verdict for x in rng.normal(0, 0.8, size=(1500, 5))]
    assert found.count("reproduced") / 1500 == pytest.approx(tost_power(1.0, 0.8, 5), abs=0.04)
    assert found.count("not reproduced") / 1500 < 0.02
