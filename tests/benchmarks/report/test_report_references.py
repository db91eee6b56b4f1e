"""The same numbers from pingouin and scikit-posthocs, packages that share no code with the report."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.report.resampling import mcnemar_exact, mean_rank
from benchmarks.report.statistics import correlation, detectable, holm, paired_t, power_t, tost, welch_t

pingouin = pytest.importorskip("pingouin", reason="no pingouin: pip install the extra dev")
posthocs = pytest.importorskip("scikit_posthocs", reason="no scikit-posthocs: pip install the extra dev")

RNG = np.random.default_rng(21)
A = RNG.normal(70, 0.8, 6)
B = 0.5 * A + RNG.normal(34, 0.8, 6)


@pytest.mark.parametrize("paired", [True, False])
def test_t_tests(paired: bool) -> None:
    b = B if paired else B[:4]
    theirs = pingouin.ttest(A, b, paired=paired, correction=not paired).iloc[0]
    ours = paired_t(A, b) if paired else welch_t(A, b)
    column = {name.lower().replace("_", "-").replace("95%", "95"): name for name in theirs.index}
    assert ours.statistic == pytest.approx(theirs[column["t"]])
    assert ours.df == pytest.approx(theirs[column["dof"]])
    assert ours.p == pytest.approx(theirs[column["p-val"]])
    assert [ours.low, ours.high] == pytest.approx(list(theirs[column["ci95"]]), abs=0.006)  # pingouin rounds


def test_correlation_over_seeds() -> None:
    assert correlation(A, B) == pytest.approx(pingouin.corr(A, B)["r"].iloc[0])


def test_holm() -> None:
    p = [0.01, 0.2, 0.03, 0.04, 0.6]
    assert holm(p) == pytest.approx(list(pingouin.multicomp(p, method="holm")[1]))


@pytest.mark.parametrize("paired", [True, False])
def test_power_and_the_detectable_difference(paired: bool) -> None:
    contrast = "paired" if paired else "two-samples"
    assert power_t(0.9, 7, paired) == pytest.approx(pingouin.power_ttest(d=0.9, n=7, contrast=contrast))
    least = pingouin.power_ttest(n=7, power=0.8, contrast=contrast)
    assert detectable(0.8, 7, paired) == pytest.approx(0.8 * least, rel=1e-4)


@pytest.mark.parametrize("published", [69.5, 70.4, 72.0])
def test_tost(published: float) -> None:
    theirs = pingouin.tost(A, published, bound=1.0).iloc[0]
    column = next(name for name in theirs.index if name.lower().startswith("p"))
    assert tost(A, published, 1.0).p == pytest.approx(theirs[column])


def test_a_family_of_welch_tests_under_holm() -> None:
    groups = [A, B, RNG.normal(69, 1, 5)]
    theirs = posthocs.posthoc_ttest([list(g) for g in groups], equal_var=False, pool_sd=False, p_adjust="holm")
    pairs = [(0, 1), (0, 2), (1, 2)]
    ours = holm([welch_t(groups[i], groups[j]).p for i, j in pairs])
    assert ours == pytest.approx([theirs.iloc[i, j] for i, j in pairs])


def test_mean_ranks_are_friedmans() -> None:
    """Friedman's statistic follows from mean ranks (Conover 1999)."""
    import pandas as pd

    means = RNG.normal(size=(6, 4))
    frame = pd.DataFrame(means).melt(var_name="method", value_name="mean", ignore_index=False).reset_index()
    theirs = pingouin.friedman(frame, dv="mean", within="method", subject="index").iloc[0]
    b, k = means.shape
    q = 12 * b / (k * (k + 1)) * float(((mean_rank(means) - (k + 1) / 2) ** 2).sum())
    assert q == pytest.approx(theirs["Q"])


def test_mcnemar() -> None:
    a, b = RNG.random(80) < 0.8, RNG.random(80) < 0.6
    import pandas as pd

    _, theirs = pingouin.chi2_mcnemar(pd.DataFrame({"a": a.astype(int), "b": b.astype(int)}), "a", "b")
    column = next(name for name in theirs.columns if "exact" in name.lower())
    assert mcnemar_exact(a, b) == pytest.approx(theirs.loc["mcnemar", column])
