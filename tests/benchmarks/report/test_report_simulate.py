"""Levels and coverages at three to ten seeds, measured on data whose truth is known; and that such a check can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import simulate
from benchmarks.report.simulate import ABOUT, HIGH, LOW, SEEDS, Rate, as_json, as_markdown

COMMITTED = simulate.OUT / "level_and_power.json"


def rate(value: float, bound: str, replications: int = 1000) -> Rate:
    return Rate("study", "test", "n 3", "false positives", value, replications, 0.05, bound)


@pytest.mark.parametrize(
    ("value", "bound", "holds"),
    [
        (0.05, ABOUT, True),
        (0.07, ABOUT, True),
        (0.09, ABOUT, False),
        (0.02, ABOUT, False),
        (0.01, LOW, True),
        (0.09, LOW, False),
        (0.01, HIGH, False),
        (0.90, HIGH, True),
        (0.0, LOW, True),
    ],
)
def test_a_promise_is_kept_within_monte_carlo_error(value: float, bound: str, holds: bool) -> None:
    assert rate(value, bound).holds() is holds


def test_what_promises_nothing_holds_and_errors_are_binomial() -> None:
    assert Rate("s", "t", "n 3", "power", 0.9, 10).holds()
    assert rate(0.05, ABOUT, 475).error == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("study", "replications"),
    [
        (simulate.many_benchmarks, 100),
        (simulate.main_table, 120),
        (simulate.examples, 40),
        (simulate.paired_examples, 150),
        (simulate.verdicts, 1000),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_promise_of_a_study_is_kept(study: object, replications: int) -> None:
    found = list(study(replications))  # type: ignore[operator]
    assert not [each for each in found if not each.holds()]
    assert any(each.target is not None for each in found)


@pytest.fixture(scope="module")
def two_methods() -> list[Rate]:
    """One benchmark, paired and Welch t, at every number of seeds."""
    return list(simulate.two_methods(800))


def test_powers_and_coverages_of_the_seed_tests_are_those_promised(two_methods: list[Rate]) -> None:
    assert {each.what for each in two_methods} == {"false positives", "power for 1 point", "coverage of 95 %"}
    assert not [each for each in two_methods if not each.holds()]


@pytest.mark.parametrize("n", SEEDS)
def test_the_false_positives_of_the_seed_tests_are_nominal(n: int, two_methods: list[Rate]) -> None:
    found = [r for r in two_methods if r.what == "false positives" and r.setting.startswith(f"n {n},")]
    assert {r.test for r in found} == {"paired t", "Welch t"}
    for each in found:
        assert each.rate < 0.05 + 3.5 * each.error
        assert each.test == "Welch t" or each.rate > 0.05 - 3.5 * each.error


@pytest.mark.parametrize(("n", "known"), [(3, 2 / 2**3), (5, 0.16)])
def test_the_check_catches_a_bootstrap_of_a_few_means(n: int, known: float) -> None:
    """Not used anywhere in the tables: it finds differences where there are none. Of three, whenever all have one sign,
    for the interval then reaches from the least of them to the largest."""
    found = simulate.percentile_of_means(n, 2000)
    assert not found.holds()
    assert found.rate == pytest.approx(known, abs=0.04)


def test_equal_arguments_give_equal_files_and_new_ones_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "STUDIES", ((simulate.verdicts, 1), (simulate.paired_examples, 2)))
    for name in ("a", "b"):
        simulate.main(["--replications", "40", "--out", str(tmp_path / name)])
    for file in ("level_and_power.json", "level_and_power.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert len(json.loads((tmp_path / "a" / "level_and_power.json").read_text())) == 24 + 9


def test_the_committed_study_is_whole_keeps_its_promises_and_reads_as_its_table_says() -> None:
    rows = json.loads(COMMITTED.read_text(encoding="utf-8"))
    errors = [row.pop("error") for row in rows]
    found = [Rate(**row) for row in rows]
    assert as_json(found) == COMMITTED.read_text(encoding="utf-8")
    assert as_markdown(found) == COMMITTED.with_suffix(".md").read_text(encoding="utf-8")
    assert errors == pytest.approx([each.error for each in found], abs=1e-6)
    assert not [each for each in found if not each.holds()]
    assert {each.replications for each in found} == {simulate.REPLICATIONS // share for _, share in simulate.STUDIES}
    names = [(each.study, each.test, each.setting, each.what) for each in found]
    assert names == [(r.study, r.test, r.setting, r.what) for r in simulate.simulate(1)]
