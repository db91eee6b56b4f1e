"""Workers that are forked from a server: what killing it costs, and that they are what a process of its own is."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_engine
import pytest

from benchmarks import catalog
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import claims, launch, processes, store
from benchmarks.runner.launch import Crew, Event, Result
from benchmarks.runner.plan import ENGINE, Place

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", 0)
KINDS = ("forks", "spawns") if sys.platform == "linux" else ("spawns",)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


@pytest.fixture(autouse=True)
def _engine_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "cache")


def started_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "starter", lambda engine: processes.Spawns())


def keys(*methods: str, seeds: int = 1) -> list[RunKey]:
    return [replace(KEY, method=method, seed=seed) for method in methods for seed in range(seeds)]


def go(
    runs: list[RunKey],
    place: Place,
    workers: int = 1,
    listen: Callable[[Event], None] = lambda event: None,
    engine: str = "fake_engine",
) -> list[Result]:
    return launch.local([(run,) for run in runs], place, Crew(workers, engine=engine, grace_s=0.5), listen)


def record(place: Place, key: RunKey) -> RunRecord:
    found = store.read_record(store.folder_of(place.out, key))
    assert found is not None
    return found


def status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def lives(pid: int, patience_s: float = 2.0) -> bool:
    """Whether a process goes on; one that is just being killed may take its time."""
    deadline = time.monotonic() + patience_s
    while claims.started(pid) is not None:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False


def ready(starter: processes.Starter, place: Place, engine: str) -> tuple[launch._Worker, float]:
    """A worker that can work, and the seconds it took."""
    began = time.perf_counter()
    worker = launch._Worker(starter, place, engine)
    while worker.pid is None:
        assert worker.receive() is not None
    return worker, time.perf_counter() - began


def test_workers_of_a_sweep_are_forked_from_one_server_also_after_one_died(place: Place) -> None:
    runs = keys("slow", seeds=2) + keys("dies_once", "quick")
    assert {result.state for result in go(runs, place, workers=2)} == {"done"}
    told = [record(place, key).provenance for key in runs]
    assert len({each["parent"] for each in told}) == 1
    assert len({each["pid"] for each in told}) == 3
    assert not any(lives(each[name]) for each in told for name in ("pid", "parent"))


def test_killing_the_server_loses_no_run_and_blames_none(place: Place) -> None:
    runs = keys("kills_server", "quick", "slow", seeds=4)
    told: list[Event] = []
    results = go(runs, place, workers=2, listen=told.append)
    assert sorted(result.key for result in results) == sorted(runs)
    assert {result.state for result in results} <= {"done", "kept"}  # kept: it was killed between record and message
    assert {record(place, key).status for key in runs} == {"done"}
    assert {event.note for event in told if event.kind == "retry"} == {"the server of the workers died"}
    assert not list(place.out.rglob(".seed-*"))


def test_nothing_that_was_done_is_done_again_when_the_server_is_killed(place: Place) -> None:
    """Here from outside, while the worker stands still: it must not go on beside the one that takes its run."""
    runs = keys("quick", "endless")
    workers: list[int] = []

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.key == runs[1]:
            owner = claims.owner(store.folder_of(place.out, runs[1]))
            assert owner is not None
            workers.append(owner.pid)
            if len(workers) == 2:
                raise KeyboardInterrupt
            os.kill(owner.pid, signal.SIGSTOP)
            os.kill(status(owner.pid, "PPid"), signal.SIGKILL)

    with pytest.raises(KeyboardInterrupt):
        go(runs, place, listen=listen)
    executed = fake_engine.executed(place.cache)
    assert [executed.count(str(key)) for key in runs] == [1, 2]
    assert not any(map(lives, workers))
    assert not list(place.out.rglob(".seed-*"))


def test_a_server_that_is_killed_again_and_again_ends_the_sweep_in_one_line(place: Place) -> None:
    with pytest.raises(InputError, match=r"was killed by SIGKILL, the last of 6; .* it goes on"):
        go(keys("quick", "kills_servers"), place)
    assert fake_engine.executed(place.cache).count(str(keys("kills_servers")[0])) == 1 + processes.SERVERS
    assert record(place, keys("quick")[0]).status == "done"


def test_a_server_that_was_started_ahead_is_the_sweeps_and_ends_with_it(place: Place) -> None:
    with launch.ahead(Crew(2, engine="fake_engine")) as crew:
        assert isinstance(crew.starter, processes.Forks)
        server = crew.starter._servers[0]._process.pid
        results = launch.local([(key,) for key in keys("quick", seeds=3)], place, crew, lambda event: None)
        assert {result.state for result in results} == {"done"}
        assert {record(place, key).provenance["parent"] for key in keys("quick", seeds=3)} == {server}
    assert not lives(server)
    with launch.ahead(Crew(engine="fake_engine")) as unused:
        assert isinstance(unused.starter, processes.Forks)
        server = unused.starter._servers[0]._process.pid
    assert not lives(server)


def test_the_server_has_the_environment_of_workers_one_thread_and_no_gpu(place: Place) -> None:
    starter = processes.starter(ENGINE)
    try:
        worker, _ = ready(starter, place, ENGINE)
        following = sorted(ready(starter, place, ENGINE)[1] for _ in range(5))
        assert worker.pid is not None
        server = status(worker.pid, "PPid")
        assert status(server, "Threads") == 1
        given = Path(f"/proc/{server}/environ").read_text().split("\0")
        assert {"OMP_NUM_THREADS=1", "MALLOC_MMAP_MAX_=0", "PYTHONHASHSEED=0"} <= set(given)
        assert not [line for line in Path(f"/proc/{server}/maps").read_text().splitlines() if "/dev/nvidia" in line]
        assert following[2] < 1.0
    finally:
        starter.end()
    assert worker.receive() is None


def test_a_forked_worker_gives_what_a_process_of_its_own_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same predictions and curves to the last bit, and about the same peak of memory."""
    monkeypatch.setenv("PYTHONPATH", "")
    protocol = catalog.spec("ave").twin_protocol or ""
    runs = [RunKey("ave", protocol, "twin", "tiny", method, "full", 0) for method in ("late_fusion", "linear")]
    overrides = ("training.epochs=1",)
    places = {kind: Place(tmp_path / kind, tmp_path / "cache", overrides=overrides) for kind in KINDS}
    peaks = {}
    for kind, place in places.items():
        if kind == "spawns":
            started_one_by_one(monkeypatch)
        assert {result.state for result in go(runs, place, engine=ENGINE)} == {"done"}
        peaks[kind] = [record(place, key).peak_memory_bytes for key in runs]
    for key in runs:
        for name in ("predictions.npz", "curves.jsonl"):
            assert len({(store.folder_of(place.out, key) / name).read_bytes() for place in places.values()}) == 1
    assert peaks["forks"] == pytest.approx(peaks["spawns"], rel=0.08)


def test_workers_that_are_started_one_by_one_do_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started_one_by_one(monkeypatch)
    results = go(keys("quick", "dies_once", "dies", "exits"), place, workers=2)
    assert {r.key.method: r.state for r in results} == {
        "quick": "done",
        "dies_once": "done",
        "dies": "failed",
        "exits": "failed",
    }
    assert record(place, keys("dies")[0]).error.startswith("the worker was killed by SIGKILL")
    assert record(place, keys("exits")[0]).error == "the worker ended with code 3: cannot go on"
    assert record(place, keys("quick")[0]).provenance["parent"] == os.getpid()
    assert not list(place.out.rglob(".seed-*"))
