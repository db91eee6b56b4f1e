"""Which committed runs are golden follows from the records: everything occurs, teams are whole, cheap ones first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from baselines import METHODS
from benchmarks import BENCHMARKS, catalog
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.recount import recount
from benchmarks.runner import golden

NEWEST = recount(Path(__file__).resolve().parents[3] / "results").newest
TWINS = {name for name in BENCHMARKS if catalog.spec(name).twin_protocol is not None}


def test_every_method_and_twin_occurs_within_the_budget() -> None:
    chosen = golden.twins(NEWEST)
    assert {each.row for each in chosen} == set(METHODS)
    assert {each.key.benchmark for each in chosen} == TWINS
    least, cost = (sum(each.cost_s for each in some) for some in (golden.twins(NEWEST, 0.0), chosen))
    assert cost <= max(golden.BUDGET_S, least)
    assert golden.twins(reversed(NEWEST)) == chosen


def test_every_variant_occurs_before_any_ablation_occurs_twice() -> None:
    rows = {(golden.base_of(r.key.method), r.key.variant) for r in NEWEST if r.key.data == "twin"}
    first = golden.twins(NEWEST, 1e9)
    seen = [(each.row, each.key.variant) for each in first]
    repeated = next(n for n, row in enumerate(seen) if row[1] != "full" and row in seen[:n])
    assert set(seen[:repeated]) == rows


def test_without_a_budget_every_method_and_twin_occurs_once_and_no_more() -> None:
    chosen = golden.twins(NEWEST, 0.0)
    assert {each.row for each in chosen} == set(METHODS)
    assert {each.key.benchmark for each in chosen} == TWINS
    assert len(chosen) == max(len(METHODS), len(TWINS))


def test_a_team_is_the_recorded_one() -> None:
    for each in golden.twins(NEWEST):
        for record in each.records:
            assert [key.seed for key in each.team] == record.provenance["together"]


def record(seed: int, together: list[int], time_s: float = 1.0) -> RunRecord:
    key = RunKey("ave", "paper", "twin", "tiny", "clcr", "full", seed)
    return RunRecord(key, {}, "done", time_s=time_s, provenance={"together": together})


def test_broken_teams_are_no_candidates_and_the_cheapest_speaks() -> None:
    broken = [record(0, [0, 1]), record(2, [2, 3]), record(3, [3])]
    (found,) = golden.candidates(broken)
    assert [key.seed for key in found.team] == [3]
    (found,) = golden.candidates([record(0, [0, 1], 4), record(1, [0, 1], 4), record(2, [2], 5), record(3, [3], 9)])
    assert [key.seed for key in found.team] == [2]
    assert golden.candidates([replace(record(0, [0]), status="failed")]) == []


def test_real_ones_are_ours_and_a_fusing_rival_on_another_set() -> None:
    ours, rival = golden.real(NEWEST)
    assert (ours.row, ours.key.data, rival.key.data) == ("clcr", "real", "real")
    assert rival.row in ("late_fusion", "ogm_ge", "misa")
    assert rival.key.benchmark != ours.key.benchmark
    assert golden.real([r for r in NEWEST if r.key.data == "twin"]) == []
