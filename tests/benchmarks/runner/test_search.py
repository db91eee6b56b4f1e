"""The search: the same budget and the same common draws for all, validation only, resumable, the best kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from baselines import METHODS
from benchmarks import catalog
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import config, names, search
from benchmarks.runner.config import resolve
from benchmarks.runner.execute import Options
from benchmarks.runner.search import COMMON, OWN, Budget, best_of, overrides_of, read_trials, run_trial

KEY = RunKey("crema_d", catalog.spec("crema_d").twin_protocol or "", "twin", "mine", "late_fusion", "full", 0)
TRAINED = [name for name, row in METHODS.items() if not row.fitted and not row.per_modality]
BUDGET = Budget(trials=3)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A profile of its own, so that the tuned file of the project is not touched; trials run in this process."""
    text = (names.PROFILES / "tiny.yaml").read_text()
    monkeypatch.setattr(names, "PROFILES", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr(search, "_run", lambda trials, options, workers: (run_trial(t, options) for t in trials))
    return Options(tmp_path / "results", tmp_path / "cache", overrides=("training.epochs=2",))


def test_common_draws_are_the_same_for_every_method(options: Options) -> None:
    for trial in range(1, 6):
        drawn = [overrides_of(replace(KEY, method=method), trial) for method in TRAINED]
        assert len({tuple(one[name] for name in COMMON) for one in drawn}) == 1
        for method, one in zip(TRAINED, drawn, strict=True):
            assert set(one) == set(COMMON) | set(OWN.get(method, {}))


def test_draws_are_deterministic_differ_and_fit_their_configs(options: Options) -> None:
    for method in TRAINED:
        key = replace(KEY, method=method)
        drawn = [overrides_of(key, trial) for trial in range(20)]
        assert drawn == [overrides_of(key, trial) for trial in range(20)]
        assert drawn[0] == {}
        assert len({str(one) for one in drawn}) == 20
        default = resolve(key)
        for one in drawn[1:]:
            found = resolve(key, [f"{name}={value}" for name, value in one.items()])
            assert default.training.lr / 5.01 <= found.training.lr <= default.training.lr * 5.01
            assert found != default
    assert overrides_of(KEY, 1) == overrides_of(replace(KEY, seed=7), 1)
    assert overrides_of(KEY, 1) != overrides_of(replace(KEY, benchmark="ave"), 1)


def test_a_search_runs_records_and_keeps_the_best(options: Options) -> None:
    keys = [replace(KEY, method=method, seed=seed) for method in ("late_fusion", "linear") for seed in (0, 1)]
    told: list[dict] = []
    tuned = search.search(keys, options, BUDGET, 1, told.append)
    lines = read_trials(options.out / "search" / "mine.jsonl")
    assert [line["trial"] for line in lines] == [0, 1, 2]
    assert {line["method"] for line in lines} == {"late_fusion"}
    assert {line["seed"] for line in lines} == {search.SEARCH_SEED}
    assert told == lines
    best = max(lines, key=lambda line: (line["value"], -line["trial"]))
    group = f"{KEY.benchmark}.{KEY.protocol}"
    assert tuned[group]["late_fusion"] == best["overrides"]
    assert yaml.safe_load((options.out / "search" / "mine.tuned.yaml").read_text())["tuned"] == tuned
    assert not config.tuned_path("mine").exists()
    assert resolve(KEY) == resolve(KEY, tuned=False)  # until it is adopted
    assert search.adopt("mine", tuned) == yaml.safe_load(config.tuned_path("mine").read_text())["tuned"] == tuned
    expected = resolve(KEY, [f"{name}={value}" for name, value in best["overrides"].items()], tuned=False)
    assert resolve(KEY) == expected


def test_a_stopped_search_goes_on_and_a_finished_one_does_nothing(options: Options) -> None:
    told: list[dict] = []
    first = search.search([KEY], options, Budget(trials=2), 1, told.append)
    path = options.out / "search" / "mine.jsonl"
    path.write_text(path.read_text() + '{"trial": 2, "cut of')
    search.search([KEY], options, BUDGET, 1, told.append)
    assert [line["trial"] for line in told] == [0, 1, 2]
    assert search.search([KEY], options, Budget(trials=2), 1, told.append) == first
    assert len(told) == len(read_trials(path)) == 3
    search.search([KEY], replace(options, overrides=("training.epochs=1",)), Budget(trials=1), 1, told.append)
    assert len(told) == 4  # another configuration is another trial


def test_entries_of_other_methods_stay(options: Options) -> None:
    kept = {"ave.paper": {"misa": {"training.lr": 0.5}}}
    beside = options.out / "search" / "mine.tuned.yaml"
    beside.parent.mkdir(parents=True)
    for path in (beside, config.tuned_path("mine")):
        path.write_text(yaml.safe_dump({"tuned": kept}))
    tuned = search.search([KEY], options, Budget(trials=1), 1, lambda line: None)
    assert tuned == {**kept, f"{KEY.benchmark}.{KEY.protocol}": {"late_fusion": {}}}
    assert search.adopt("mine", {f"{KEY.benchmark}.{KEY.protocol}": {"late_fusion": {}}}) == tuned


def test_no_trial_reads_the_test_split(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()
    targets: set[str] = set()
    batch, target = FoldData.batch, FoldData.targets

    def watched(self: FoldData, samples: torch.Tensor, **how: object) -> object:
        asked.update(samples.flatten().tolist())
        return batch(self, samples, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(FoldData, "batch", watched)
    monkeypatch.setattr(FoldData, "targets", lambda self, split: (targets.add(split), target(self, split))[1])
    search.search([KEY], options, Budget(trials=1), 1, lambda line: None)
    test = set(search.setting(replace(KEY, seed=search.SEARCH_SEED), options).arrangement.folds[0].test.tolist())
    assert asked
    assert not asked & test
    assert targets == {"train", "valid"}


def test_a_profile_that_changes_during_a_search_stops_it(options: Options) -> None:
    """What a line says was tried is what was tried."""
    trial = search._trial(replace(KEY, seed=search.SEARCH_SEED), 1, options, BUDGET)
    assert run_trial(trial, options)["value"] is not None
    with pytest.raises(InputError, match="changed during the search"):
        run_trial(trial, replace(options, overrides=("training.epochs=3",)))


def test_a_failed_trial_is_an_outcome_and_never_the_best(options: Options) -> None:
    options = replace(options, overrides=("training.lr=1e30", "training.epochs=2"))
    tuned = search.search([KEY], options, Budget(trials=1), 1, lambda line: None)
    line = read_trials(options.out / "search" / "mine.jsonl")[0]
    assert line["value"] is None
    assert "not finite" in line["error"]
    assert tuned == {}


def test_the_earliest_of_equals_is_the_best() -> None:
    lines = [{"trial": t, "metric": "mae", "value": v} for t, v in ((3, 0.5), (1, None), (2, 0.5), (0, 0.7))]
    assert (best_of(lines) or {})["trial"] == 2
    assert (best_of([{**line, "metric": "accuracy"} for line in lines]) or {})["trial"] == 0
    assert best_of(lines[1:2]) is None


def test_bad_requests_and_files_are_refused(options: Options) -> None:
    with pytest.raises(InputError, match="one profile"):
        search.search([replace(KEY, method="linear")], options, BUDGET, 1, lambda line: None)
    with pytest.raises(InputError, match="at least 1"):
        Budget(trials=0)
    path = options.out / "search" / "mine.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"trial": 0\n{}\n')
    with pytest.raises(InputError, match=r"mine\.jsonl: line 1"):
        read_trials(path)


def test_trials_run_in_processes_of_their_own(tmp_path: Path) -> None:
    """The real pool: a profile of the project, nothing written beside ``tmp_path``."""
    key = replace(KEY, profile="tiny", seed=search.SEARCH_SEED)
    options = Options(tmp_path, tmp_path / "cache", overrides=("training.epochs=1",))
    trials = [search._trial(key, number, options, Budget()) for number in (0, 1)]
    found = sorted(search._run(trials, options, 1), key=lambda line: line["trial"])
    assert [line["error"] for line in found] == ["", ""]
    assert json.loads(json.dumps(found)) == found
    assert found[0]["value"] == run_trial(trials[0], options)["value"]
