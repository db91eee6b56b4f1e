"""Which seeds train together is fixed by what was asked for, not by workers or interruptions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import launch, measured, plan, store
from benchmarks.runner.launch import Crew
from benchmarks.runner.plan import Place, Planned, Team
from benchmarks.runner.teams import parse_together, teams

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", 0)
ENGINE = "fake_engine"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "cache")


def planned(place: Place, *seeds: int, method: str = "quick") -> list[Planned]:
    return plan.plan([replace(KEY, method=method, seed=seed) for seed in seeds], place, ENGINE)


def seeds_of(found: list[Team]) -> list[tuple[int, ...]]:
    return [tuple(key.seed for key in team) for team in found]


def test_seeds_come_in_teams_of_the_size_that_is_best_or_asked_for(place: Place) -> None:
    runs = planned(place, *range(7))
    assert seeds_of(teams(runs, place, None, ENGINE)) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert seeds_of(teams(runs, place, 4, ENGINE)) == [(0, 1, 2, 3), (4, 5, 6)]
    assert seeds_of(teams(runs, place, 1, ENGINE)) == [(seed,) for seed in range(7)]


def test_the_choice_and_its_reason_are_told_and_kept(place: Place) -> None:
    told: list[str] = []
    runs = planned(place, 0, 1) + planned(place, 0, 1, method="slow") + planned(place, 4, method="lone")
    teams(runs, place, None, ENGINE, told.append)
    assert told == ["2 configurations train up to 3 seeds together; cmu_mosi quick: three is company"]
    name = measured.name_of(KEY)
    assert measured.choice_of(place.cache, "cpu", name) == {"seeds": 3, "why": "three is company"}
    teams(runs, place, 2, ENGINE)
    assert measured.choice_of(place.cache, "cpu", name) == {"seeds": 2, "why": "as asked for"}
    assert measured.choice_of(place.cache, "cpu", name.replace("quick", "lone")) == {}


def test_seeds_of_other_marks_and_methods_that_do_not_fold_are_kept_apart(place: Place) -> None:
    assert seeds_of(teams(planned(place, 8, 9, 10, 11), place, 4, ENGINE)) == [(8, 9), (10, 11)]
    assert seeds_of(teams(planned(place, 0, 1, method="single"), place, 4, ENGINE)) == [(0,), (1,)]
    mixed = planned(place, 0, 1) + planned(place, 0, 1, method="slow")
    assert [(team[0].method, len(team)) for team in teams(mixed, place, 4, ENGINE)] == [("quick", 2), ("slow", 2)]


def test_an_interrupted_team_trains_again_as_it_was(place: Place) -> None:
    """Seeds 0 to 2 were a team, 1 was lost; 5 is new."""
    launch.local(teams(planned(place, 0, 1, 2), place, 3, ENGINE), place, Crew(1, engine=ENGINE), lambda event: None)
    shutil.rmtree(store.folder_of(place.out, replace(KEY, seed=1)))
    assert seeds_of(teams(planned(place, 0, 1, 2, 5), place, 8, ENGINE)) == [(0, 1, 2), (5,)]
    assert seeds_of(teams(planned(place, 1, 5), place, 8, ENGINE)) == [(1, 5)]  # the others were not asked for
    assert teams(planned(place, 0, 2), place, 8, ENGINE) == []


@pytest.mark.parametrize("wrong", ["0", "33", "-1", "many", "", "1.5"])
def test_a_wrong_number_of_seeds_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="--seeds-together"):
        parse_together(wrong)
    assert (parse_together("auto"), parse_together("8")) == (None, 8)


@pytest.fixture(autouse=True)
def _engine_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
