"""What is committed under results/ hangs together. `clcr check` looks further; here its parts that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import accepted, generated, read_published
from benchmarks.report.recount import Recount, recount
from benchmarks.runner import judge
from benchmarks.runner.plan import Place

RESULTS = Path(__file__).resolve().parent.parent / "results"


@pytest.fixture(scope="module")
def counted() -> Recount:
    return recount(RESULTS)


def test_there_are_committed_records_of_real_and_synthetic_runs(counted: Recount) -> None:
    assert {record.key.data for record in counted.records} == {"real", "twin"}


def test_committed_metrics_follow_from_committed_predictions(counted: Recount) -> None:
    assert [str(failure) for failure in counted.failures] == []


def test_no_committed_record_is_stale(counted: Recount, tmp_path: Path) -> None:
    place = Place(RESULTS, tmp_path)  # without real data: their digests are judged by `clcr check` where it is prepared
    assert {str(record.key): found for record in counted.newest if (found := judge.changes(record, place))} == {}


def test_committed_tables_are_those_of_the_committed_records() -> None:
    assert [str(failure) for failure in generated.compare(RESULTS).failures] == []


def test_what_is_accepted_is_a_published_cell() -> None:
    cells = accepted.load(RESULTS / accepted.ACCEPTED)
    assert accepted.left(cells, read_published(RESULTS)) == []


def test_committed_records_name_a_clean_commit(counted: Recount) -> None:
    for record in counted.records:
        assert record.provenance["commit"], record.key
        assert not record.provenance["dirty"], record.key


def test_every_method_had_the_same_number_of_trials() -> None:
    lines = (RESULTS / "search" / "open.jsonl").read_text(encoding="utf-8").splitlines()
    trials: dict[tuple[str, str], dict[str, set[int]]] = {}
    for line in map(json.loads, lines):
        group = trials.setdefault((line["benchmark"], line["protocol"]), {})
        group.setdefault(line["method"], set()).add(line["trial"])
    for methods in trials.values():
        assert len(set(map(frozenset, methods.values()))) == 1


def test_figures_of_another_matplotlib_are_told_and_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "version", lambda package: "0.1")
    assert "matplotlib is 0.1, pinned" in generated.other_bytes("figures")
    assert {generated.other_bytes(name) for name in ("tables", "site", "findings")} == {""}  # of these only pictures
