"""What a run costs, from the nearest source that tells, and how long a crew takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.record import RunKey, RunRecord, canonical
from benchmarks.runner import costs, store
from benchmarks.runner.costs import Cost, Costs, wall_s
from benchmarks.runner.measured import Table, name_of

KEY = RunKey("cmu_mosi", "standard", "twin", "tiny", "clcr", "full", 0)
OTHER = replace(KEY, method="misa")


def record(key: RunKey, seconds: float, together: int = 3) -> RunRecord:
    seeds = {"together": list(range(together))}
    return RunRecord(key, {}, "done", time_s=seconds, peak_memory_bytes=7, provenance=seeds, predictions=f"{seconds}")


def here(out: Path, *records: RunRecord) -> None:
    for each in records:
        folder = store.folder_of(out, each.key)
        folder.mkdir(parents=True, exist_ok=True)
        store.write_record(folder, each)


def committed(out: Path, *records: RunRecord) -> None:
    path = out / "records" / "cmu_mosi.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(canonical(each.to_json()) + "\n" for each in records))


def row(key: RunKey, run_s: float, seeds: int = 3, *overrides: str) -> dict[str, object]:
    return {"name": name_of(key, overrides), "seeds": seeds, "run_s": run_s, "opening_s": 0.5, "memory": 9}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "cache", "cpu")


def cost(out: Path, table: Table, key: RunKey = KEY, *overrides: str) -> Cost:
    return Costs([KEY, OTHER], out, table, overrides).of(key)


def test_the_nearer_source_goes_first(tmp_path: Path, table: Table) -> None:
    assert cost(tmp_path, table) == Cost()
    committed(tmp_path, record(KEY, 4.0))
    found = cost(tmp_path, table)
    assert (found.seconds, found.memory, found.together) == (4.0, 7, 3)
    assert found.source == "committed records, as they are: this machine was not measured"
    table.add([row(KEY, 6.0)], None)
    assert cost(tmp_path, table) == Cost(6.0, 9, "bench", 3, 0.5)
    here(tmp_path, record(KEY, 5.0))
    assert cost(tmp_path, table) == Cost(5.0, 7, "earlier runs here", 3, 0.5)


def test_committed_records_are_scaled_to_this_machine(tmp_path: Path, table: Table) -> None:
    """One method was timed here and takes twice its committed time: so will the other."""
    committed(tmp_path, record(KEY, 4.0), record(OTHER, 10.0))
    table.add([row(KEY, 8.0)], None)
    found = cost(tmp_path, table, OTHER)
    assert found.seconds == pytest.approx(20.0)
    assert found.source == "committed records, times 2.00 for this machine"


def test_runs_that_were_merged_are_still_those_of_here(tmp_path: Path, table: Table) -> None:
    here(tmp_path, record(KEY, 5.0))
    committed(tmp_path, record(KEY, 5.0), record(OTHER, 9.0))
    assert cost(tmp_path, table).source == "earlier runs here"
    assert cost(tmp_path, table, OTHER).source.startswith("committed records, as they are")


def test_steps_of_the_right_team_go_before_runs_of_another(tmp_path: Path, table: Table) -> None:
    here(tmp_path, record(KEY, 5.0, together=1))
    table.add([row(KEY, 2.0, seeds=8)], None)
    assert cost(tmp_path, table).source == "bench"


def test_an_override_is_another_configuration(tmp_path: Path, table: Table) -> None:
    here(tmp_path, record(KEY, 5.0))
    table.add([row(KEY, 50.0, 3, "training.epochs=80")], None)
    assert cost(tmp_path, table, KEY, "training.epochs=80").seconds == 50.0
    assert cost(tmp_path, table, KEY, "training.epochs=9").source == "earlier runs here"


def test_a_variant_takes_the_cost_of_its_method(tmp_path: Path, table: Table) -> None:
    table.add([{**row(KEY, 6.0), "early": True}], None)
    found = cost(tmp_path, table, replace(KEY, variant="no_reg"))
    assert (found.seconds, found.source) == (6.0, "bench, at most, of another variant")


def test_a_crew_takes_the_next_team_when_it_is_free() -> None:
    def runs(*seconds: float, together: int = 1) -> list[tuple[RunKey, Cost]]:
        costly = [Cost(each, together=together, opening_s=1.0) for each in seconds]
        return [(replace(KEY, method=str(together), seed=seed), each) for seed, each in enumerate(costly)]

    assert wall_s(runs(4.0, 4.0, 4.0), 1, 3.0) == 3 + 15
    assert wall_s(runs(4.0, 4.0, 4.0), 2, 3.0) == 3 + 10
    assert wall_s(runs(4.0, 4.0, 4.0, together=8), 2, 3.0) == 3 + 13
    assert wall_s(runs(9.0, 1.0, 1.0) + runs(2.0, 2.0, 2.0, together=2), 2, 0.0) == 12.0
    assert wall_s([(KEY, Cost())], 2, 3.0) is None
    assert wall_s([], 2, 3.0) == 0.0


def test_sources_are_counted() -> None:
    found = costs.sources([Cost(1.0, source="bench"), Cost(), Cost(2.0, source="bench")])
    assert list(found.items()) == [("bench", 2), ("unknown", 1)]
