"""The table of timed steps: what it keeps, what it does not believe, what it asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import measured
from benchmarks.runner.measured import START_S, Crew, Table, lacking, name_of, stamp
from benchmarks.runner.plan import Place
from benchmarks.runner.together import Choice

KEY = RunKey("cmu_mosi", "standard", "twin", "tiny", "clcr", "full", 0)
TEAMS = [tuple(replace(KEY, method=m, variant=v, seed=s) for s in range(2)) for m, v in
         (("clcr", "no_hierarchy"), ("clcr", "full"), ("misa", "full"))]  # fmt: skip
NUMBERS = {"run_s": 2.0, "opening_s": 0.1, "memory": 5, "step_s": 0.01}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "cache")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests; each is answered with a row a team, where "misa" cannot be measured."""
    found: list[dict[str, Any]] = []

    def answer(request: dict[str, Any], fail: Callable[[str], None]) -> list[dict[str, Any]]:
        found.append(request)
        rows = [{"seeds": len(team), **NUMBERS} if team[0]["method"] != "misa" else {"seeds": 2, "skipped": "too large"}
                for team in request["teams"]]  # fmt: skip
        return [{"start_s": 1.5 + len(found), "free": 0}, *rows]

    monkeypatch.setattr(measured, "ask", answer)
    return found


def test_rows_are_measured_by_all_workers_and_kept(place: Place, asked: list[dict[str, Any]]) -> None:
    told: list[str] = []
    rows, start_s = measured.measure(TEAMS, place, Crew(2, ("cpu",), 60.0), told.append)
    assert sorted(len(request["teams"]) for request in asked) == [1, 2]
    assert {request["budget_s"] for request in asked} == {60.0}
    assert start_s == 3.5
    assert any("too large" in line for line in told)
    assert told[-1].startswith("2 of 3 configurations measured")
    Table(place.cache, "cpu").add(rows, start_s)
    again = Table(place.cache, "cpu")
    row = again.of(name_of(KEY))
    assert row is not None
    assert (row["run_s"], row["seeds"], again.start_s) == (2.0, 2, 3.5)
    assert again.of(name_of(KEY), 5) is None
    assert again.of(name_of(KEY, ("training.lr=1",))) is None
    assert Table(place.cache, "cuda:0").of(name_of(KEY)) is None


def test_only_what_is_not_known_or_has_changed_is_asked_for_and_full_first(
    place: Place, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(place.cache, "cpu")
    assert lacking(TEAMS, table, ()) == [TEAMS[1], TEAMS[2], TEAMS[0]]
    table.add(measured.measure(TEAMS, place, Crew(1, ("cpu",), 60.0), lambda line: None)[0], None)
    assert lacking(TEAMS, table, ()) == [TEAMS[2]]
    assert lacking([TEAMS[1][:1]], table, ()) == [TEAMS[1][:1]]
    assert lacking(TEAMS, table, ("training.lr=1",)) == [TEAMS[1], TEAMS[2], TEAMS[0]]
    monkeypatch.setattr(measured, "source_digest", lambda module: "rewritten")
    assert len(lacking(TEAMS, table, ())) == 3


def test_a_stamp_follows_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("training: {epochs: 1}")
    before = stamp(KEY)
    monkeypatch.setattr(measured, "PROFILES", tmp_path)
    other = stamp(KEY)
    (tmp_path / "tiny.tuned.yaml").write_text("tuned: {}")
    assert len({before, other, stamp(KEY)}) == 3


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"cpu": 1}', '{"cpu": CPU, "rows": [{}], "start_s": 1}', '{"cpu": CPU, "rows": [3], "start_s": 1}',
     '{"cpu": CPU, "rows": [], "start_s": "x"}',
     '{"cpu": CPU, "start_s": 1, "rows": [{"name": "a", "seeds": 1, "run_s": -1, "opening_s": 0, "memory": 0}]}'],
)  # fmt: skip
def test_a_damaged_table_predicts_nothing(text: str, place: Place) -> None:
    table = Table(place.cache, "cpu")
    table.path.parent.mkdir(parents=True)
    table.path.write_text(text.replace("CPU", json.dumps(measured.cpu_model())))
    found = Table(place.cache, "cpu")
    assert found.of("a") is None
    assert found.start_s in (START_S, 1.0)


def test_the_table_of_another_processor_predicts_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Table(place.cache, "cpu").add([{"name": "a", "seeds": 1, **NUMBERS}], 9.0)
    assert Table(place.cache, "cpu").of("a") is not None
    monkeypatch.setattr(measured, "cpu_model", lambda: "another")
    assert Table(place.cache, "cpu").of("a") is None
    assert Table(place.cache, "cpu").start_s == START_S


def test_a_machine_where_nothing_can_be_measured_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: dict[str, Any], tell: Callable[[str], None]) -> list[dict[str, Any]]:
        tell("ImportError: no torch")
        return []

    monkeypatch.setattr(measured, "ask", fail)
    with pytest.raises(InputError, match="no torch"):
        measured.measure(TEAMS, place, Crew(1, ("cpu",), 60.0), lambda line: None)


def test_choices_are_kept_for_the_records(place: Place) -> None:
    assert measured.choice_of(place.cache, "cpu", "a") == {}
    measured.keep_choices(place.cache, "cpu", {"a": Choice(8, "small"), "b": Choice(1, "large")})
    measured.keep_choices(place.cache, "cpu", {"b": Choice(4, "asked")})
    assert measured.choice_of(place.cache, "cpu", "a") == {"seeds": 8, "why": "small"}
    assert measured.choice_of(place.cache, "cpu", "b") == {"seeds": 4, "why": "asked"}
    assert measured.choice_of(place.cache, "cuda:1", "a") == {}
    (place.cache / "bench" / "together_cpu.json").write_text("{")
    assert measured.choice_of(place.cache, "cpu", "a") == {}
