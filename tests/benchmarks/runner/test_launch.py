from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fake_engine
import pytest

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import claims, launch, plan, processes, store
from benchmarks.runner.launch import Crew, Event, Result
from benchmarks.runner.plan import Place

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", 0)
HERE = str(Path(__file__).parent)
RUNNER = """
import sys
from pathlib import Path
from benchmarks.record import RunKey
from benchmarks.runner.launch import Crew, local
from benchmarks.runner.plan import Place
folder, workers, methods = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
keys = [RunKey("cmu_mosi", "aligned", "twin", "tiny", m, "full", s) for m in methods for s in range(int(sys.argv[4]))]
def told(event):
    if event.kind in ("start", "end"):
        print(event.kind, event.key, event.result.state if event.result else "", flush=True)
local([(key,) for key in keys], Place(folder, folder / "cache"), Crew(workers, engine="fake_engine", grace_s=0.5), told)
"""


@pytest.fixture(autouse=True)
def _engine_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "cache")


def keys(*methods: str, seeds: int = 1) -> list[RunKey]:
    return [replace(KEY, method=method, seed=seed) for method in methods for seed in range(seeds)]


def go(
    runs: list[RunKey], place: Place, workers: int = 1, listen: Callable[[Event], None] = lambda event: None
) -> dict[str, Result]:
    crew = Crew(workers, engine="fake_engine")
    return {f"{r.key.method}-{r.key.seed}": r for r in launch.local([(run,) for run in runs], place, crew, listen)}


def runner(folder: Path, workers: int, methods: str, seeds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUNNER, str(folder), str(workers), methods, str(seeds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def until(holds: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_runs_are_executed_once_and_their_records_written_last(place: Place) -> None:
    events: list[Event] = []
    results = go(keys("quick", seeds=4), place, workers=2, listen=events.append)
    assert [r.state for r in results.values()] == ["done"] * 4
    assert len(fake_engine.executed(place.cache)) == 4
    for key in keys("quick", seeds=4):
        folder = store.folder_of(place.out, key)
        record = store.read_record(folder)
        assert record is not None
        assert store.read_predictions(folder, record)
        assert not claims.claim_of(folder).exists()
    kinds = [event.kind for event in events if event.kind != "tick"]
    assert (kinds.count("start"), kinds.count("end")) == (4, 4)
    assert all(event.share == 0.5 for event in events if event.kind == "progress")


def test_the_longest_teams_go_first_and_the_unknown_before_them() -> None:
    short, long, unknown, twin = keys("a", "b", "c", "d")
    times = {short: 1.0, long: 5.0, unknown: None, twin: 1.0}
    planned = [plan.Planned(key, "missing", seconds) for key, seconds in times.items()]
    teams = [(short,), (twin,), (long,), (unknown, short)]
    assert launch.longest_first(teams, planned) == [(unknown, short), (long,), (short,), (twin,)]
    pair = replace(short, seed=1), replace(short, seed=2)
    planned += [plan.Planned(key, "missing", 3.0) for key in pair]
    assert launch.longest_first([(long,), pair], planned) == [pair, (long,)]


def test_what_is_done_already_is_kept(place: Place) -> None:
    go(keys("quick"), place)
    assert go(keys("quick"), place)["quick-0"].state == "kept"
    other = replace(place, overrides=("training.lr=1",))
    assert go(keys("quick"), other)["quick-0"].state == "done"
    assert len(fake_engine.executed(place.cache)) == 2


def test_what_is_done_but_has_lost_its_predictions_is_done_again(place: Place) -> None:
    go(keys("quick"), place)
    path = store.folder_of(place.out, keys("quick")[0]) / store.PREDICTIONS
    path.write_bytes(path.read_bytes()[:-1])
    assert go(keys("quick"), place)["quick-0"].state == "done"
    assert go(keys("quick"), place)["quick-0"].state == "kept"


def test_a_failure_is_final_until_it_is_to_be_tried_again(place: Place) -> None:
    assert go(keys("raises"), place)["raises-0"].state == "failed"
    assert go(keys("raises"), place)["raises-0"].error == "RuntimeError: the method broke"
    assert len(fake_engine.executed(place.cache)) == 1
    crew = Crew(1, engine="fake_engine", retry_before=claims.now(place.out) + 0.01)
    (again,) = launch.local([(key,) for key in keys("raises")], place, crew, lambda event: None)
    assert again.state == "failed"
    assert len(fake_engine.executed(place.cache)) == 2


def test_a_failure_of_another_configuration_is_tried_again(place: Place) -> None:
    go(keys("raises"), place)
    go(keys("raises"), replace(place, overrides=("training.lr=1",)))
    assert len(fake_engine.executed(place.cache)) == 2


def test_a_full_disk_halts_the_sweep_in_one_line_and_leaves_nothing_half_written(place: Place) -> None:
    done = store.folder_of(place.out, keys("quick")[0])
    with pytest.raises(InputError, match=r"No space left on device.*goes on") as caught:
        go(keys("quick", "full_disk", "quick", seeds=2), place)
    assert "\n" not in str(caught.value)
    assert store.read_run(done) is not None
    assert not store.folder_of(place.out, keys("full_disk")[0]).exists()
    assert not list(place.out.rglob(".seed-*"))


def test_failures_become_records_and_do_not_stop_the_others(place: Place) -> None:
    results = go(keys("raises", "not_finite", "refused", "quick"), place)
    assert {name: r.state for name, r in results.items()} == {
        "raises-0": "failed",
        "not_finite-0": "failed",
        "refused-0": "refused",
        "quick-0": "done",
    }
    assert results["raises-0"].error == "RuntimeError: the method broke"
    record = store.read_record(store.folder_of(place.out, keys("raises")[0]))
    assert record is not None
    assert (record.status, record.error) == ("failed", "RuntimeError: the method broke")
    assert record.what == {"config": [], "engine": "fake"}
    assert not store.folder_of(place.out, keys("refused")[0]).exists()
    assert results["refused-0"].error == "fake.yaml: field 'x' is wrong; mend it"


def test_a_run_whose_worker_dies_is_tried_once_more(place: Place) -> None:
    events: list[Event] = []
    results = go(keys("dies_once", "dies", "quick"), place, listen=events.append)
    assert [results[name].state for name in ("dies_once-0", "dies-0", "quick-0")] == ["done", "failed", "done"]
    assert fake_engine.executed(place.cache).count(str(keys("dies")[0])) == launch.ATTEMPTS
    record = store.read_record(store.folder_of(place.out, keys("dies")[0]))
    assert record is not None
    assert "killed by SIGKILL" in record.error
    assert record.what["engine"] == "fake"
    assert [event.kind for event in events].count("retry") == 2
    assert not list(place.out.rglob(".seed-*"))


def test_what_a_worker_said_last_is_the_error_of_its_run(place: Place) -> None:
    assert go(keys("exits"), place)["exits-0"].error == "the worker ended with code 3: cannot go on"


@pytest.mark.parametrize("kind", ["forks", "spawns"])
def test_a_worker_that_cannot_start_says_why_in_one_line(
    place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "spawns":
        monkeypatch.setattr(processes, "starter", lambda engine: processes.Spawns())
    with pytest.raises(InputError, match="No module named 'no_engine'") as caught:
        launch.local([(KEY,)], place, Crew(1, engine="no_engine"), lambda event: None)
    assert "\n" not in str(caught.value)


def test_a_team_ends_together_and_runs_that_are_done_stay_as_they_are(place: Place) -> None:
    team = tuple(keys("quick", seeds=3))
    go([team[1]], place)
    before = (store.folder_of(place.out, team[1]) / "record.json").stat().st_mtime_ns
    events: list[Event] = []
    results = launch.local([team], place, Crew(1, engine="fake_engine"), events.append)
    assert [result.state for result in results] == ["done", "kept", "done"]
    assert (store.folder_of(place.out, team[1]) / "record.json").stat().st_mtime_ns == before
    assert [event.together for event in events if event.kind == "start"] == [3, 3, 3]
    record = store.read_record(store.folder_of(place.out, team[2]))
    assert record is not None
    assert record.provenance["together"] == [0, 1, 2]
    assert not list(place.out.rglob(".seed-*"))


def test_a_team_whose_worker_dies_twice_goes_on_in_halves(place: Place) -> None:
    team = (*keys("quick", seeds=2), *keys("dies"))
    results = {r.key: r.state for r in launch.local([team], place, Crew(1, engine="fake_engine"), lambda event: None)}
    assert [results[key] for key in team] == ["done", "done", "failed"]
    assert not list(place.out.rglob(".seed-*"))


def test_a_team_waits_as_a_whole_for_a_run_that_another_process_has(place: Place) -> None:
    team = tuple(keys("quick", seeds=2))
    other = runner(place.out, 1, "slow,quick", 1)
    until(lambda: len(fake_engine.executed(place.cache)) > 0, "the other runner starts")
    results = launch.local([team, *((key,) for key in keys("slow"))], place, Crew(2, engine="fake_engine"), print)
    other.communicate(timeout=20)
    assert {result.state for result in results} <= {"done", "kept"}
    assert len(results) == 3


def test_eight_runners_on_one_folder_execute_nothing_twice(place: Place) -> None:
    runners = [runner(place.out, 1, "slow,raises", 4) for _ in range(8)]
    told = [process.communicate(timeout=60)[0] for process in runners]
    assert [process.returncode for process in runners] == [0] * 8
    executed = fake_engine.executed(place.cache)
    assert sorted(executed) == sorted(map(str, keys("slow", "raises", seeds=4)))
    for lines in told:
        assert lines.count("end ") == 8
        assert lines.count(" failed") == 4
    assert "".join(told).count("start ") == 8


def test_workers_die_with_their_runner_and_the_next_one_takes_over(place: Place) -> None:
    process = runner(place.out, 2, "endless", 2)
    assert process.stdout is not None
    folders = [store.folder_of(place.out, key) for key in keys("endless", seeds=2)]
    until(lambda: len(fake_engine.executed(place.cache)) == 2, "both runs start")
    owners = [claims.owner(folder) for folder in folders]
    process.kill()
    process.communicate()
    until(lambda: not any(claims.held(folder) for folder in folders), "the workers die", 5)
    assert all(owner and claims.started(owner.pid) != owner.started for owner in owners)
    assert claims.acquire(folders[0])


def test_who_is_asked_to_stop_keeps_what_the_next_runner_goes_on_from(place: Place) -> None:
    process = runner(place.out, 2, "stoppable,slow", 1)
    until(lambda: len(fake_engine.executed(place.cache)) == 2, "both runs start")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)
    folder = store.folder_of(place.out, keys("stoppable")[0])
    assert [path.name for left in claims.attempts(folder) for path in left.iterdir()] == ["checkpoint.pt"]
    assert not claims.held(folder)
    again = {name: result.state for name, result in go(keys("stoppable", "slow"), place).items()}
    assert again["stoppable-0"] == "done"
    assert again["slow-0"] in ("done", "kept")  # it did not heed, and may have ended before the grace did
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.npz", "record.json"]
    assert not list(place.out.rglob(".seed-*"))


def test_a_worker_that_somebody_else_asks_to_stop_is_replaced(place: Place) -> None:
    asked: list[int] = []

    def interfere(event: Event) -> None:
        started = event.kind == "tick" and fake_engine.executed(place.cache)
        if started and not asked and (owner := claims.owner(store.folder_of(place.out, keys("stoppable")[0]))):
            asked.append(owner.pid)
            os.kill(owner.pid, signal.SIGTERM)

    found = go(keys("stoppable", "quick"), place, 1, interfere)
    assert asked
    assert {name: result.state for name, result in found.items()} == {"stoppable-0": "done", "quick-0": "done"}


def test_workers_that_die_without_a_word_do_not_cost_a_finished_run(place: Place) -> None:
    (key,) = keys("quick")
    go([key], place)
    path = store.folder_of(place.out, key) / store.RECORD
    before = path.read_bytes()
    with launch._Pool([(key,)], place, Crew(1, engine="fake_engine"), lambda event: None) as pool:
        pool._fail(key, "the worker was killed by SIGKILL", ())
        pool._fail(
            key, "the worker was killed by SIGKILL", [fake_engine.describe(key, plan.options(place, "fake_engine"))]
        )
    assert path.read_bytes() == before
    assert [result.state for result in pool.results.values()] == ["kept"]
    assert not list(place.out.rglob(".seed-*"))


def test_ctrl_c_ends_the_workers_and_gives_their_claims_back(place: Place) -> None:
    process = runner(place.out, 1, "quick,endless", 1)
    until(lambda: len(fake_engine.executed(place.cache)) == 2, "the endless run starts")
    while process.poll() is None:  # as people do: a signal that meets a finaliser is lost
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    process.communicate()
    assert not list(place.out.rglob(".seed-*"))
    assert store.read_record(store.folder_of(place.out, keys("quick")[0])) is not None


def test_workers_compute_with_one_thread_each_on_its_device(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = processes.environment()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    crew = Crew(2, ("cpu", "cuda:0"), "fake_engine")
    launch.local([(key,) for key in keys("slow", seeds=2)], place, crew, lambda event: None)
    records = [store.read_record(store.folder_of(place.out, key)) for key in keys("slow", seeds=2)]
    assert {record.provenance["device"] for record in records if record} == {"cpu", "cuda:0"}


def test_a_device_is_every_gpu_there_is_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.devices("cpu") == ("cpu",)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path("/dev/nvidia0")])
    for count, auto in ((0, ("cpu",)), (2, ("cuda:0", "cuda:1"))):
        fake = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda count=count: count))
        monkeypatch.setitem(sys.modules, "torch", fake)
        assert launch.devices("auto") == auto
    assert (launch.devices("cuda"), launch.devices("cuda:1")) == (("cuda:0",), ("cuda:1",))
    assert launch.default_workers(("cuda:0", "cuda:1")) == 2
    assert launch.default_workers(("cpu",)) >= 1
    for wrong in ("cuda:2", "gpu", "cuda:-1", ""):
        with pytest.raises(InputError, match="--device"):
            launch.devices(wrong)


def test_launchers_resolve_and_a_wrong_name_is_refused() -> None:
    for name in launch.LAUNCHERS:
        assert callable(launch.launcher(name))
    with pytest.raises(InputError, match="did you mean 'local'"):
        launch.launcher("lokal")


def test_state_of_a_run_that_is_being_executed_is_running(place: Place) -> None:
    folder = store.folder_of(place.out, KEY)
    assert claims.acquire(folder)
    (planned,) = plan.plan([KEY], place, "fake_engine")
    assert planned.state == "running"
    assert json.loads(claims.claim_of(folder).read_text())["pid"] == os.getpid()
