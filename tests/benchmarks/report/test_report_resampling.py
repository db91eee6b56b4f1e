"""Permutations, bootstraps and exact counts, against independent implementations and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmarks.report.resampling import (
    iqm,
    mcnemar_exact,
    mean_rank,
    paired_bootstrap,
    probability_of_improvement,
    stratified_permutation,
)

RNG = np.random.default_rng(3)


def test_one_benchmark_is_scipys_sign_flip() -> None:
    a, b = RNG.normal(0.5, 1, size=(2, 8))
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=np.inf
    )
    ours = stratified_permutation([(a, b)])
    assert ours.exact
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.smallest == 2 / 2**8


def test_one_benchmark_without_pairs_is_scipys_permutation() -> None:
    a, b = RNG.normal(0.8, 1, size=5), RNG.normal(0, 1, size=4)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y: abs(np.mean(x) - np.mean(y)),
        permutation_type="independent",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert stratified_permutation([(a, b)], paired=False).p == pytest.approx(theirs.pvalue)


def test_labels_are_swapped_inside_each_benchmark_only() -> None:
    """Enumerated by hand: two benchmarks of two seeds, 16 relabellings, the observed one and its mirror are extreme."""
    strata = [([1.0, 2.0], [0.0, 0.0]), ([30.0, 10.0], [0.0, 0.0])]
    assert stratified_permutation(strata).p == pytest.approx(2 / 16)
    assert stratified_permutation([([2.0, 1.0], [1.0, 2.0])]).p == 1.0


def test_five_seeds_of_one_benchmark_can_never_reach_the_level() -> None:
    certain = ([1.0, 1.1, 1.2, 1.3, 1.4], [0.0] * 5)
    assert stratified_permutation([certain]).p > 0.05
    assert stratified_permutation([certain] * 2).p < 0.05


def test_units_do_not_matter_and_signs_do() -> None:
    strata = [(RNG.normal(0.3, 1, 4), RNG.normal(0, 1, 4)) for _ in range(3)]
    scaled = [(a * f, b * f) for (a, b), f in zip(strata, (1, 100, 0.01), strict=True)]
    assert stratified_permutation(strata).p == stratified_permutation(scaled).p
    assert stratified_permutation([(b, a) for a, b in strata]).statistic == pytest.approx(
        -stratified_permutation(strata).statistic
    )


@pytest.mark.parametrize("paired", [True, False])
def test_monte_carlo_agrees_with_enumeration(paired: bool) -> None:
    strata = [(RNG.normal(0.9, 1, 4), RNG.normal(0, 1, 4)) for _ in range(2)]
    exact = stratified_permutation(strata, paired)
    many = [(np.tile(a, 3), np.tile(b, 3)) for a, b in strata]
    drawn = stratified_permutation(many, paired)
    assert exact.exact
    assert not drawn.exact
    assert drawn == stratified_permutation(many, paired)
    assert 0 < drawn.p < exact.p


def test_the_permutation_keeps_its_level_when_seeds_are_shared() -> None:
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(400):
        shared = rng.normal(size=(3, 3))
        strata = [(rng.normal(size=3) + s, rng.normal(size=3) + s) for s in shared]
        hits.append(stratified_permutation(strata).p < 0.05)
    assert 0.02 < np.mean(hits) < 0.08


def test_unequal_seeds_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="equal seeds"):
        stratified_permutation([([1.0, 2.0], [1.0])])
    with pytest.raises(ValueError, match="at least one benchmark"):
        stratified_permutation([])


def test_iqm_ignores_the_outer_quarters() -> None:
    found = iqm([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 1000.0]])
    assert found.value == pytest.approx(np.mean([2, 3, 4, 5]))
    assert found.low <= found.value <= found.high
    assert found == iqm([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 1000.0]])


def test_iqm_resamples_inside_each_benchmark() -> None:
    """With no spread inside the benchmarks there is nothing to resample, however far they lie apart."""
    found = iqm([[0.2] * 4, [0.9] * 4])
    assert found.low == found.high == found.value


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    a, b = RNG.normal(0.5, 1, 6), RNG.normal(0, 1, 5)
    u = stats.mannwhitneyu(a, b).statistic / 30
    found = probability_of_improvement([(a, b)])
    assert found.value == pytest.approx(u)
    assert found.low <= u <= found.high
    assert probability_of_improvement([([1.0, 1.0], [1.0, 1.0])]).value == 0.5


def test_mean_rank_shares_ties() -> None:
    assert list(mean_rank(np.array([[0.9, 0.5, 0.5], [0.1, 0.3, 0.2]]))) == [2.0, 1.75, 2.25]


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 1), (3, 3), (0, 6), (20, 7)])
def test_mcnemar_is_that_of_statsmodels(only_a: int, only_b: int) -> None:
    a = np.array([True] * (only_a + 5) + [False] * (only_b + 2))
    b = np.array([False] * only_a + [True] * (5 + only_b) + [False] * 2)
    theirs = mcnemar([[5, only_a], [only_b, 2]], exact=True).pvalue
    assert mcnemar_exact(a, b) == pytest.approx(min(1.0, float(theirs)))


def test_mcnemar_without_disagreement_and_with_other_examples() -> None:
    assert mcnemar_exact(np.array([True, False]), np.array([True, False])) == 1.0
    with pytest.raises(ValueError, match="same examples"):
        mcnemar_exact(np.array([True]), np.array([True, False]))


def _mae(prediction: np.ndarray, target: np.ndarray) -> float:
    return float(np.abs(prediction - target).mean())


def _corr(prediction: np.ndarray, target: np.ndarray) -> float:
    return float(np.corrcoef(prediction, target)[0, 1])


def test_the_paired_bootstrap_of_a_mean_has_the_normal_width() -> None:
    target = np.zeros(400)
    a, b = RNG.normal(size=(2, 400))
    found = paired_bootstrap(_mae, target, (a, b))
    gaps = np.abs(a) - np.abs(b)
    assert found.value == pytest.approx(gaps.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * gaps.std() / 20, rel=0.1)


def test_clusters_widen_the_interval() -> None:
    """Twenty examples of one speaker err alike: twenty copies carry the information of one."""
    target, group = np.zeros(400), np.repeat(np.arange(20), 20)
    a, b = np.repeat(RNG.normal(size=(2, 20)), 20, axis=1)
    naive, clustered = paired_bootstrap(_mae, target, (a, b)), paired_bootstrap(_mae, target, (a, b), group)
    assert clustered.value == naive.value
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(np.sqrt(20), rel=0.25)


def test_the_bootstrap_takes_any_metric_and_refuses_other_examples() -> None:
    target = RNG.normal(size=100)
    good, bad = target + 0.1 * RNG.normal(size=100), RNG.normal(size=100)
    assert paired_bootstrap(_corr, target, (good, bad), draws=200).low > 0.5
    with pytest.raises(ValueError, match="same examples"):
        paired_bootstrap(_corr, target, (good, bad[:50]))
