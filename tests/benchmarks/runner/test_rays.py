"""The ray launcher without Ray: its settings, what it refuses, and, on a stand-in for Ray, what it does with losses."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_engine
import pytest

from benchmarks import cli
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import claims, launch, ray_settings, rays, store
from benchmarks.runner.launch import Crew, Event, Result
from benchmarks.runner.plan import Place
from benchmarks.runner.processes import ROOT, WORKER_ENVIRONMENT
from benchmarks.runner.ray_settings import Settings

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", 0)
NODE = {"Alive": True, "NodeID": "ab", "Resources": {"CPU": 4.0, "GPU": 1.0}}


class RayError(Exception):
    pass


class WorkerCrashedError(RayError):
    pass


class NodeDiedError(RayError):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """Executes a task when it is waited for, in this process. broken: what happens to the first tasks instead."""

    def __init__(self, *broken: Exception | None) -> None:
        self.broken = list(broken)
        self.nodes_found: list[dict[str, Any]] = [NODE]
        self.options: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.exceptions = SimpleNamespace(
            RayError=RayError, RayTaskError=RayTaskError, NodeDiedError=NodeDiedError,
            RuntimeEnvSetupError=type("RuntimeEnvSetupError", (RayError,), {}),
            RayActorError=type("RayActorError", (RayError,), {}), GetTimeoutError=TimeoutError,
        )  # fmt: skip

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return self.nodes_found

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "ab")

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options.append(options)
        return lambda what: Actor(what) if isinstance(what, type) else SimpleNamespace(remote=Task.of(what))

    def wait(self, refs: list[Task], num_returns: int, timeout: float) -> tuple[list[Task], list[Task]]:
        ready = refs[:num_returns]
        for ref in ready:
            self._execute(ref)
        return ready, refs[num_returns:]

    def _execute(self, ref: Task) -> None:
        error = self.broken.pop(0) if self.broken else None
        try:
            ref.found = ref.work() if error is None else error
        except KeyboardInterrupt as interrupt:
            ref.found = RayError()
            raise interrupt

    def get(self, ref: Any, timeout: float = 0) -> Any:
        if isinstance(ref, Task):
            if isinstance(ref.found, Exception):
                raise ref.found
            return ref.found
        return ref

    def cancel(self, ref: Any, force: bool) -> None:
        self.asked.append("kill" if force else "stop")

    def kill(self, actor: Any) -> None:
        self.asked.append("end")


class Task:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work, self.found = work, None

    @staticmethod
    def of(function: Callable[..., Any]) -> Callable[..., Task]:
        return lambda *arguments: Task(lambda: function(*arguments))


class Actor:
    def __init__(self, cls: type[Any]) -> None:
        self._made = cls()

    def remote(self) -> Actor:
        return self

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._made, name))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "cache")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
    for name, module in (
        ("ray", fake),
        ("ray.util", SimpleNamespace()),
        ("ray.util.scheduling_strategies", strategies),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def keys(*methods: str, seeds: int = 1) -> tuple[RunKey, ...]:
    return tuple(replace(KEY, method=method, seed=seed) for method in methods for seed in range(seeds))


def go(
    teams: list[tuple[RunKey, ...]], place: Place, listen: Callable[[Event], None] = lambda event: None
) -> list[str]:
    found: list[Result] = launch.launcher("ray")(teams, place, Crew(engine="fake_engine"), listen)
    return [f"{result.key.method}-{result.key.seed} {result.state}" for result in found]


def settings(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ray.yaml"
    path.write_text(text)
    return path


def test_a_file_says_what_the_class_holds(tmp_path: Path) -> None:
    text = "address: head:6379\ncpus_per_run: 2\ngpus_per_run: 0.5\nmax_concurrent: 3\nenv_vars: {A: b}\nnamespace: n\n"
    found = ray_settings.read(settings(tmp_path, text))
    assert found == Settings("head:6379", "n", 2.0, 0.5, 3, env_vars={"A": "b"})
    assert ray_settings.read(settings(tmp_path, "")) == ray_settings.read(None) == Settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("adress: head:6379", "unknown field 'adress'; did you mean 'address'?"),
        ("cpus_per_run: many", "cpus_per_run = 'many': expected float"),
        ("cpus_per_run: -1", "cpus_per_run = -1.0: must be a number from 0"),
        ("cpus_per_run: .nan", "cpus_per_run = nan: must be a number from 0"),
        ("cpus_per_run: 0", "cpus_per_run = 0: Ray would start all runs at once"),
        ("gpus_per_run: 2", "gpus_per_run = 2: a team of runs computes on one GPU"),
        ("max_concurrent: 1.5", "max_concurrent = 1.5: expected int"),
        ("checkout: here", "checkout = 'here': must be a whole path"),
        ("env_vars: [A]", "env_vars: expected a mapping"),
        ("env_vars: {A B: c}", "env_vars: 'A B' is no name of a variable"),
        ("env_vars: {A: 1}", "env_vars.A = 1: expected a text; put it in quotes"),
        ("env_vars: {OMP_NUM_THREADS: '4'}", "OMP_NUM_THREADS is set by the launcher"),
        ("- a", "expected a mapping"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['touch never']", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        ray_settings.read(settings(tmp_path, text))
    assert told in str(caught.value)
    assert "ray.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        ray_settings.read(tmp_path / "none.yaml")


@pytest.mark.parametrize("wrong", ["local", "ray://head:10001", "head", "head:99999", "http://head:1", "head:6379\n"])
def test_an_address_is_that_of_a_running_cluster(wrong: str) -> None:
    assert ray_settings.address(Settings(), None, "") == "auto"
    assert ray_settings.address(Settings(), "head:1", "") == "head:1"
    assert ray_settings.address(Settings(address="10.0.0.1:6379"), "head:1", "") == "10.0.0.1:6379"
    assert ray_settings.address(Settings(address="[::1]:6379"), None, "") == "[::1]:6379"
    for chosen, told, who in ((Settings(address=wrong), None, "f.yaml: address"), (Settings(), wrong, "RAY_ADDRESS")):
        with pytest.raises(InputError, match=who):
            ray_settings.address(chosen, told, "f.yaml")


def test_without_ray_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    sweep = ["--benchmark", "crema_d", "--data", "twin", "--method", "late_fusion", "--seeds", "0"]
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    assert cli.main(["run", *sweep, "--out", str(tmp_path / "out"), "--launcher", "ray", "--quiet"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == f"clcr: {rays.HINT}\n"
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_cluster_is_never_started_here(place: Place, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("asked without a listener"), raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no Ray cluster at 127.0.0.1:1: .*start one with `ray start --head`"):
        go([keys("quick")], place)

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no running\ninstance")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match="no Ray cluster at auto: no running instance; start one with"):
        go([keys("quick")], place)


def test_ray_is_given_neither_signals_nor_stdout(
    place: Place, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def init(address: str, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        other = threading.Thread(target=print, args=("(raylet) a node is gone",))
        other.start()
        other.join()

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init, raising=False)
    monkeypatch.setattr(ray, "shutdown", lambda: ray.asked.append("shutdown"), raising=False)
    with rays._attached(ray, Settings(), ""):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
        print("(raylet) another node is gone")
    late = threading.Thread(target=print, args=("(raylet) so is the cluster",))
    late.start()
    late.join()
    print("a result")
    assert capsys.readouterr().out == "a result\n"
    assert ray.asked == ["shutdown"]


def test_runs_that_fit_no_node_are_refused(tmp_path: Path, place: Place, ray: FakeRay) -> None:
    crew = Crew(engine="fake_engine", settings=settings(tmp_path, "cpus_per_run: 64"))
    with pytest.raises(InputError, match=r"cpus_per_run = 64, gpus_per_run = 0: no node .* 4 CPUs and 1 GPUs"):
        rays.tasks([keys("quick")], place, crew, lambda event: None)


def test_teams_are_tasks_and_their_records_decide(place: Place, ray: FakeRay) -> None:
    events: list[Event] = []
    team = keys("quick", seeds=3)
    assert go([team, keys("raises"), keys("refused")], place, events.append) == [
        *(f"quick-{seed} done" for seed in range(3)), "raises-0 failed", "refused-0 refused"
    ]  # fmt: skip
    record = store.read_run(store.folder_of(place.out, team[2]))
    assert record is not None
    assert record.provenance["together"] == [0, 1, 2]
    assert record.provenance["device"] == "cpu"
    assert [event.kind for event in events].count("end") == 5
    assert go([team], place) == [f"quick-{seed} kept" for seed in range(3)]
    assert not [path for path in (*place.out.rglob(".*"), *place.cache.rglob(".*")) if path.name != claims.LOCK]


def test_tasks_get_what_local_workers_have(place: Place, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CUDA_GRAPHS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    go([keys("quick")], replace(place, device="cuda:1"))
    task, board = ray.options
    assert (task["num_cpus"], task["num_gpus"], task["max_retries"], board["num_cpus"]) == (1.0, 1.0, 0, 0)
    variables = task["runtime_env"]["env_vars"]
    assert variables.items() >= {**WORKER_ENVIRONMENT, "CLCR_CUDA_GRAPHS": "1"}.items()
    assert variables["PYTHONPATH"].startswith(f"{ROOT}{os.pathsep}")
    record = store.read_run(store.folder_of(place.out, KEY))
    assert record is not None
    assert record.provenance["device"] == "cuda:0"


def test_a_team_whose_worker_dies_twice_goes_on_in_halves(place: Place, ray: FakeRay) -> None:
    team = keys("quick", seeds=3)
    gone = WorkerCrashedError("gone. See logs.")
    ray.broken = [gone, gone, gone, None, gone]  # the team twice, then its first run twice, the others in between
    events: list[Event] = []
    assert go([team], place, events.append) == ["quick-1 done", "quick-2 done", "quick-0 failed"]
    record = store.read_run(store.folder_of(place.out, team[0]))
    assert record is not None
    assert record.error == "the worker died: WorkerCrashedError: gone"
    assert any("in two halves" in event.note for event in events)


def test_a_lost_node_is_not_the_fault_of_its_runs_until_it_happens_often(place: Place, ray: FakeRay) -> None:
    ray.broken = [NodeDiedError("gone")] * rays.NODES
    assert go([keys("quick")], place) == ["quick-0 done"]
    ray.broken = [NodeDiedError("gone")] * (rays.NODES + launch.ATTEMPTS)
    assert go([keys("slow")], place) == ["slow-0 failed"]


def test_a_task_that_cannot_begin_ends_the_sweep(place: Place, ray: FakeRay) -> None:
    ray.broken = [RayTaskError("ray::execute()\n  File x\nModuleNotFoundError: No module named 'benchmarks'\n")]
    with pytest.raises(
        InputError, match=r"a worker cannot start on a node: ModuleNotFoundError: No module named 'benchmarks'"
    ):
        go([keys("quick")], place)


def test_what_another_process_has_is_waited_for(place: Place, ray: FakeRay) -> None:
    folder = store.folder_of(place.out, KEY)
    claims.acquire(folder)
    path = claims.claim_of(folder)
    other = {**json.loads(path.read_text()), "machine": "another", "token": "0" * 16}
    path.write_text(json.dumps(other))
    seen: list[str] = []

    def listen(event: Event) -> None:
        seen.append(event.kind)
        if event.kind == "wait":
            claims.expire(folder, "1" * 16)
            assert claims.held(folder)
            claims.expire(folder, "0" * 16)
            assert not claims.held(folder)

    assert go([keys("quick")], place, listen) == ["quick-0 done"]
    assert "wait" in seen


@pytest.mark.parametrize("lacks", ["out", "cache"])
def test_a_node_that_does_not_see_the_folders_is_named(
    place: Place, ray: FakeRay, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rays._Asked.request

    def elsewhere(self: Any, *arguments: Any) -> dict[str, Any]:
        request = real(self, *arguments)
        return {**request, "place": {**request["place"], lacks: "/nowhere"}}

    monkeypatch.setattr(rays._Asked, "request", elsewhere)
    with pytest.raises(InputError, match=r"node .* \(ab\): does not see /nowhere .* folder that all nodes share"):
        go([keys("quick")], place)
    assert not store.folder_of(place.out, KEY).exists()


def test_a_node_with_other_code_is_named(tmp_path: Path, place: Place, ray: FakeRay) -> None:
    crew = Crew(engine="fake_engine", settings=settings(tmp_path, f"checkout: {tmp_path}"))
    with pytest.raises(InputError, match=rf"loads its code from {ROOT}, not from {tmp_path}"):
        rays.tasks([keys("quick")], place, crew, lambda event: None)


def test_a_record_that_is_not_seen_here_is_not_believed(
    place: Place, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rays, "SEEN_S", 0.0)
    monkeypatch.setattr(rays, "_recorded", lambda folder: False)
    with pytest.raises(InputError, match="a node has written a record, and here is none"):
        go([keys("quick")], place)


def test_a_sweep_does_not_wait_where_ray_would_wait_for_ever(
    place: Place, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rays, "LOOK_S", 0.0)
    monkeypatch.setattr(ray, "wait", lambda refs, num_returns, timeout: ([], refs))
    notes: list[str] = []

    def listen(event: Event) -> None:
        notes.extend([event.note] if event.kind == "note" else [])
        if event.kind == "tick":  # all nodes are lost but this machine's, then that one
            ray.nodes_found = [{"Alive": not notes, "NodeID": "ab", "Resources": {"memory": 1.0}}]

    with pytest.raises(InputError, match="the cluster has lost the node of this machine"):
        go([keys("quick")], place, listen)
    assert notes == ["no node of the cluster is left that a run fits on; waiting for one"]


def test_an_interruption_asks_tasks_to_stop_before_they_are_killed(place: Place, ray: FakeRay) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "end" and not ray.asked:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go([keys("quick"), keys("slow"), keys("slower")], place, interrupt)
    assert ray.asked == ["stop", "stop", "end"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_stops_where_it_can_be_gone_on_from(place: Place, number: int) -> None:
    key = replace(KEY, method="stoppable")
    before = signal.getsignal(number)
    with rays._marked(place) as mark:
        request = rays._Asked(place, Crew(engine="fake_engine"), mark).request((key,), Settings())
        told: list[str] = []

        def tell(message: dict[str, Any]) -> None:
            told.append(message["event"])
            if message["event"] == "start":
                threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

        ended = rays.serve_here(request, "ab", tell)
        assert [run["state"] for run in ended] == ["stopped"]
        assert told[:2] == ["begin", "start"]
        assert not claims.held(store.folder_of(place.out, key))
        assert [run["state"] for run in rays.serve_here(request, "ab", lambda message: None)] == ["done"]
    assert signal.getsignal(number) == before
    assert len(fake_engine.executed(place.cache)) == 2
