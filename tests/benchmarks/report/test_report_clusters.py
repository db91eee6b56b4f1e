"""Two models on the same examples, against independent implementations and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.metrics import corr, mae
from benchmarks.report.clusters import (
    clustered_bootstrap,
    correlation_of,
    expanded,
    group_sums,
    mean_of,
    moments,
    swap_test,
)

RNG = np.random.default_rng(3)


def test_sums_of_all_groups_give_the_metrics_of_the_suite() -> None:
    target, prediction, group = RNG.normal(2, 1, 200), RNG.normal(5, 3, 200), RNG.integers(0, 9, 200)
    errors = group_sums(np.abs(prediction - target)[:, None], group)
    assert errors.shape == (9, 2)
    assert errors[:, 1] == pytest.approx(np.bincount(group))
    assert mean_of(errors.sum(axis=0)) == pytest.approx(mae(prediction, target))
    both = group_sums(moments(prediction, target), group)
    assert correlation_of(both.sum(axis=0)) == pytest.approx(corr(prediction, target))
    part = np.isin(group, (2, 5))
    weights = np.isin(np.arange(9), (2, 5)).astype(float)
    assert correlation_of(weights @ both) == pytest.approx(corr(prediction[part], target[part]))
    assert correlation_of(group_sums(moments(np.ones(5), np.arange(5.0)), None).sum(axis=0)) == 0


def test_the_bootstrap_of_independent_examples_is_scipys() -> None:
    gaps = RNG.normal(0.1, 1, 300)
    ours = clustered_bootstrap(mean_of, group_sums(gaps[:, None], None), group_sums(np.zeros((300, 1)), None))
    theirs = stats.bootstrap((gaps,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert ours.value == pytest.approx(gaps.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_bootstrap_of_a_correlation_is_scipys() -> None:
    x, y = RNG.normal(size=(2, 150))
    z = x + 0.5 * RNG.normal(size=150)
    ours = clustered_bootstrap(correlation_of, group_sums(moments(z, x), None), group_sums(moments(y, x), None))
    theirs = stats.bootstrap(
        (z, y, x), lambda z, y, x: corr(z, x) - corr(y, x), method="percentile", n_resamples=4000, rng=1, paired=True,
        vectorized=False,
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(corr(z, x) - corr(y, x))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_clusters_widen_the_interval() -> None:
    """Twenty examples of one speaker err alike: twenty copies carry the information of one."""
    group = np.repeat(np.arange(20), 20)
    gaps = np.repeat(RNG.normal(size=20), 20)[:, None]
    nothing = np.zeros_like(gaps)
    naive = clustered_bootstrap(mean_of, group_sums(gaps, None), group_sums(nothing, None))
    clustered = clustered_bootstrap(mean_of, group_sums(gaps, group), group_sums(nothing, group))
    assert clustered.value == pytest.approx(naive.value)
    wider = np.sqrt(20) * np.sqrt(20 / 19) * stats.t.isf(0.025, 19) / 1.96
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(wider, rel=0.1)


def test_the_expansion_is_hesterbergs() -> None:
    """At ten groups the tails are those of the normal law beyond Student's widened quantile; at many the usual ones."""
    reach = np.sqrt(10 / 9) * stats.t.isf(0.025, 9)
    assert expanded(0.95, 10) == pytest.approx(1 - 2 * stats.norm.sf(reach))
    assert expanded(0.95, 100_000) == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize("groups", [6, 12])
def test_swapping_whole_groups_is_scipys_sign_flip(groups: int) -> None:
    group = RNG.integers(0, groups, 90)
    a, b = RNG.normal(0.3, 1, 90), RNG.normal(0, 1, 90)
    ours, least = swap_test(group_sums(a[:, None], group), group_sums(b[:, None], group))
    totals = [np.bincount(group, x, groups) for x in (a, b)]
    theirs = stats.permutation_test(
        totals, lambda x, y: x.sum() - y.sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert ours == pytest.approx(theirs.pvalue)
    assert least == 2.0 ** (1 - groups)


def test_swapping_single_examples_is_mcnemar() -> None:
    """Of right and wrong, sign flips of the examples that differ are the binomial of McNemar."""
    only_a, only_b = 11, 3
    a = np.array([1.0] * (only_a + 20) + [0.0] * (only_b + 5))[:, None]
    b = np.array([0.0] * only_a + [1.0] * (20 + only_b) + [0.0] * 5)[:, None]
    p, _ = swap_test(group_sums(a, None), group_sums(b, None))
    assert p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    many = np.tile(a, (4, 1)), np.tile(b, (4, 1))
    drawn, least = swap_test(*(group_sums(x, None) for x in many))
    assert drawn == pytest.approx(stats.binomtest(4 * only_a, 4 * (only_a + only_b)).pvalue, abs=1e-3)
    assert least < 1e-3


def test_one_group_shows_nothing_and_equal_models_neither() -> None:
    one = np.zeros(50, dtype=int)
    a, b = np.ones((50, 1)), np.zeros((50, 1))
    assert swap_test(group_sums(a, one), group_sums(b, one)) == (1.0, 1.0)
    assert swap_test(group_sums(a, None), group_sums(a, None)) == (1.0, 1.0)


def test_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples"):
        group_sums(np.zeros((5, 1)), np.zeros(4))
    with pytest.raises(ValueError, match="same groups"):
        clustered_bootstrap(mean_of, np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="same groups"):
        swap_test(np.ones((3, 2)), np.ones((4, 2)))
