"""The declared test, the declared family, and what is said of it in words. All numbers are synthetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from synthetic_records import TOY, Write, toy

from benchmarks.errors import InputError
from benchmarks.record import RunRecord
from benchmarks.report.collect import Group, collect
from benchmarks.report.compare import against_ours, contrasts, declared_test, in_words, needed_text, per_unit
from benchmarks.report.examples import Examples
from benchmarks.report.layout import p_text
from benchmarks.report.significance import across, significance_table
from benchmarks.report.tables import main_table
from benchmarks.spec import BenchmarkSpec

OURS, RIVAL = (0.70, 0.72, 0.71, 0.74, 0.69), (0.71, 0.75, 0.72, 0.73, 0.74)
WELCH = replace(TOY, test="welch")
NOBS = {"paired": "nobs", "welch": "nobs1"}
CYCLE = replace(TOY, cycles={"main": 3})


def group(write: Write, records: list[RunRecord], spec: BenchmarkSpec = TOY) -> Group:
    return collect(write(records) / "records", specs={"toy": spec}).groups[0]


def rows(**methods: tuple[float, ...]) -> list[RunRecord]:
    return [toy(method, seed, value) for method, values in methods.items() for seed, value in enumerate(values)]


def words(found: Group) -> str:
    contrasts_ = against_ours(found, "mae")
    return " ".join(in_words(list(contrasts_.values()), list(contrasts_), "better than", "worse than"))


def test_the_benchmark_declares_its_test(write: Write) -> None:
    found = against_ours(group(write, rows(clcr=OURS, misa=RIVAL[:4]), WELCH), "mae")["misa"]
    theirs = stats.ttest_ind(OURS, RIVAL[:4], equal_var=False)
    assert found.test
    assert (found.test.p, found.test.test) == (pytest.approx(theirs.pvalue), "Welch t")
    assert found.test.correlation == pytest.approx(np.corrcoef(OURS[:4], RIVAL[:4])[0, 1])
    assert not found.paired
    assert declared_test(group(write, [], WELCH)) == "Welch t, two-sided, level 0.05"
    with pytest.raises(InputError, match="wilcoxon"):
        replace(TOY, test="wilcoxon")


def test_the_plan_follows_the_declared_test(write: Write) -> None:
    """Two samples of five need another difference than five pairs: statsmodels solves both."""
    for spec, solver in ((TOY, TTestPower()), (WELCH, TTestIndPower())):
        found = against_ours(group(write, rows(clcr=OURS, misa=RIVAL) if spec is TOY else [], spec), "mae")["misa"]
        assert found.test
        theirs = solver.solve_power(effect_size=None, **{NOBS[spec.test]: 5}, alpha=0.05, power=0.8)
        assert found.detectable == pytest.approx(theirs * found.test.sd, rel=1e-4)


def test_the_table_says_which_test_it_is(write: Write) -> None:
    collected = collect(write(rows(clcr=OURS, misa=RIVAL)) / "records", specs={"toy": WELCH})
    for table in (main_table(collected), significance_table(collected)):
        facts = " ".join(table.parts["twin"][0].facts)
        assert "Welch t, two-sided, level 0.05" in facts
        assert "paired t" not in facts


def test_seeds_that_share_an_arrangement_are_one_run(write: Write) -> None:
    """Seeds 0 and 3, and 1 and 4, read the same data: three runs, not five."""
    found = group(write, rows(clcr=OURS, misa=RIVAL), CYCLE)
    assert per_unit(found, found.values(("clcr", "full"), "mae")) == pytest.approx({0: 0.72, 1: 0.705, 2: 0.71})
    contrast = against_ours(found, "mae")["misa"]
    theirs = stats.ttest_rel([0.72, 0.705, 0.71], [0.72, 0.745, 0.72])
    assert contrast.test
    assert (contrast.test.n, contrast.test.p) == (3, pytest.approx(theirs.pvalue))
    assert "seeds that share one of the 3 arrangements averaged first" in declared_test(found)
    assert contrast.needed
    assert contrast.needed > 3
    assert f"it would take about {contrast.needed} arrangements, and there are 3" in words(found)
    assert needed_text(contrast) == f"{contrast.needed} (3 exist)"


def test_across_benchmarks_the_same_units_count(write: Write) -> None:
    records = rows(clcr=OURS, misa=RIVAL)
    second = [replace(r, key=replace(r.key, benchmark="toy2")) for r in records]
    specs = {"toy": CYCLE, "toy2": replace(TOY, name="toy2", title="Toy 2")}
    groups = collect(write(records + second) / "records", specs=specs).groups
    assert across(groups)[0].permutation.smallest == 2 / 2 ** (2 + 5)  # one of three arrangements has no difference


def test_a_family_keeps_the_size_that_it_was_declared_with(write: Write) -> None:
    """A rival with one run, and one that is constantly off, count for Holm although nothing can be tested."""
    shifted = tuple(v + 0.1 for v in OURS)
    records = rows(clcr=OURS, misa=RIVAL, linear=shifted, ogm_ge=(0.8,))
    failed = [toy("late_fusion", s, 1.0, status="failed", error="no", metrics={}) for s in range(5)]
    found = against_ours(group(write, records + failed), "mae")
    p = stats.ttest_rel(OURS, RIVAL).pvalue
    assert found["misa"].family == 4
    assert found["misa"].p_holm == pytest.approx(min(1.0, 4 * p))
    said = words(group(write, []))
    assert "linear (the same difference at every seed)" in said
    assert "ogm_ge (1 shared seed, a test needs two)" in said
    assert "late_fusion (0 shared seeds, a test needs two)" in said


def test_equal_values_are_not_called_a_lack_of_power(write: Write) -> None:
    said = words(group(write, rows(clcr=OURS, misa=OURS)))
    assert "not tested against misa (the same value at every seed)" in said
    assert "power" not in said


def test_much_power_and_no_difference_is_said_so(write: Write) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = 0.7 + 0.002 * rng.standard_normal((2, 20))
    found = group(write, rows(clcr=tuple(ours), misa=tuple(theirs)))
    contrast = against_ours(found, "mae")["misa"]
    assert contrast.enough
    assert "no difference shown on misa" in words(found)
    assert "one of 0.020 would have been found" in words(found)
    assert "power was too low" not in words(found)


def test_the_seeds_still_needed_are_said(write: Write) -> None:
    found = group(write, rows(clcr=OURS, misa=RIVAL))
    needed = against_ours(found, "mae")["misa"].needed
    assert needed
    assert f"it would take about {needed} seeds, {needed - 5} more" in words(found)


def test_a_difference_of_zero_plans_nothing(write: Write) -> None:
    found = group(write, rows(clcr=(0.7, 0.8, 0.75), misa=(0.8, 0.7, 0.75)))
    contrast = against_ours(found, "mae")["misa"]
    assert contrast.test
    assert contrast.test.difference == pytest.approx(0, abs=1e-12)
    assert needed_text(replace(contrast, test=replace(contrast.test, difference=0.0))) == "—"


def test_an_empty_family_is_empty(write: Write) -> None:
    assert contrasts(group(write, rows(clcr=OURS)), "mae", []) == []
    assert in_words([], [], "", "") == ()


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.04996, "0.04996"), (0.0504, "0.0504"), (0.05, "0.050"), (0.0494, "0.049"), (0.0009, "< 0.001"), (1.0, "1.000")],
)
def test_a_rounded_p_stays_on_its_side_of_the_level(p: float, text: str) -> None:
    assert p_text(p) == text


def test_no_p_is_a_dash() -> None:
    assert p_text(float("nan")) == "—"


def test_examples_are_silent_without_predictions(write: Write, tmp_path: Path) -> None:
    assert Examples(tmp_path)(group(write, rows(clcr=OURS, misa=RIVAL))) == []
