"""Permutations, bootstraps and exact counts, against independent implementations and by simulation."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmarks.report import resampling
from benchmarks.report.resampling import (
    LEAST,
    affordable,
    iqm,
    mcnemar_exact,
    mean_rank,
    permutation_seeds,
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


def test_a_benchmark_may_be_unpaired_beside_a_paired_one() -> None:
    """Enumerated by hand: 2 swaps of the pair times 3 choices of one run in three, all but the extreme one smaller."""
    found = stratified_permutation([([3.0], [0.0]), ([5.0], [1.0, 2.0])], paired=[True, False])
    assert found.exact
    assert found.p == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="equal seeds"):
        stratified_permutation([([3.0], [0.0]), ([5.0], [1.0, 2.0])], paired=[False, True])


def test_the_smallest_p_knows_of_differences_that_are_zero() -> None:
    """A seed without a difference doubles every count: three of four seeds speak."""
    found = stratified_permutation([([1.0, 2.0, 3.0, 0.0], [0.0] * 4)])
    assert found.smallest == found.p == 2 / 2**3


def test_many_runs_cost_no_more_than_a_few() -> None:
    """20,000 runs a side: fewer draws, the same answer, and memory for a block of them only."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.08, 1, 20_000), rng.normal(0, 1, 20_000)
    assert affordable(20_000, 200) == 20_000
    assert affordable(20_000, 10**9) == LEAST
    tracemalloc.start()
    for paired in (True, False):
        assert stratified_permutation([(a, b)], paired).p < 0.005
    found = probability_of_improvement([(a, b)])
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / 4e8)
    assert found.low < found.value < found.high
    assert iqm([a]).low < iqm([a]).value < iqm([a]).high
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = RNG.normal(0.3, 1, 40), RNG.normal(0, 1, 40)
    whole = stratified_permutation([(a, b)]), iqm([a, b]), probability_of_improvement([(a, b)])
    monkeypatch.setattr(resampling, "AT_ONCE", 4000)
    parts = stratified_permutation([(a, b)]), iqm([a, b]), probability_of_improvement([(a, b)])
    assert [p.p for p in (whole[0], parts[0])] == pytest.approx([whole[0].p] * 2, abs=0.01)
    for one, other in zip(whole[1:], parts[1:], strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=0.03)


@pytest.mark.parametrize("effect", [0.2, 0.4])
def test_the_seeds_planned_for_the_permutation_give_its_power(effect: float) -> None:
    benchmarks = 4
    statistic = effect / np.sqrt(1 + effect**2)  # of differences with mean ``effect`` and standard deviation 1
    seeds = permutation_seeds(float(statistic), benchmarks)
    assert seeds
    rng = np.random.default_rng(2)
    zero = np.zeros(seeds)
    hits = [
        stratified_permutation([(gaps, zero) for gaps in rng.normal(effect, 1, (benchmarks, seeds))], draws=500).p
        < 0.05
        for _ in range(400)
    ]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.07)
    assert permutation_seeds(0.0, 4) is None


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
