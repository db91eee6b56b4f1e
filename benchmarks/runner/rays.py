"""The launcher "ray": each team of runs is a task of a Ray cluster that runs already. Ray is optional; see HINT.

A task is executed under claims, as a local worker does it, on folders that all nodes see. Ray says where tasks run and
when one is lost; what is done, the record in a run's folder alone decides. A team whose worker dies is tried again as
by the local launcher; one whose node is lost is tried again, NODES times at most. The claims of a process that Ray
calls dead are let expire, so that nobody waits for them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import claims, ray_settings, store
from benchmarks.runner.launch import POLL_S, Crew, Event, Listener, Result, Sweep
from benchmarks.runner.plan import Place, Team
from benchmarks.runner.processes import ROOT, WORKER_ENVIRONMENT
from benchmarks.runner.ray_settings import Settings
from benchmarks.runner.serve import Job, Message, serve

HINT = "the ray launcher needs Ray, which is not installed: pip install 'clcr-bench[ray]'"
START = "start one with `ray start --head`, further nodes with `ray start --address=HEAD:6379`"
IN_FLIGHT = 1000
NODES = 5
CONNECT_S = 5.0
LOOK_S = 10.0
KILL_S = 5.0
SEEN_S = 60.0

Tell = Callable[[Message], None]


def tasks(teams: Sequence[Team], place: Place, crew: Crew, listen: Listener) -> list[Result]:
    """Execute runs as tasks of a Ray cluster. InputError without Ray or cluster, or where a node sees other folders."""
    chosen = ray_settings.read(crew.settings)
    if chosen.gpus_per_run is None:
        chosen = replace(chosen, gpus_per_run=float(place.device.startswith("cuda")))
    where = str(crew.settings or "--launcher ray")
    with _attached(_ray(), chosen, where) as ray, _marked(place) as mark:
        _check_room(ray, chosen, where)
        with _Cluster(ray, chosen, _Asked(place, crew, mark), listen, teams) as cluster:
            return cluster.run()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        if error.name != "ray":
            raise InputError(f"Ray is installed and cannot be loaded: {error}; install it anew") from error
        raise InputError(HINT) from None


@contextlib.contextmanager
def _attached(ray: Any, chosen: Settings, where: str) -> Iterator[Any]:
    """Connected to the cluster, by the caller or here. Ray takes signals, given back, and stdout (see _Quiet)."""
    with _quiet():
        if ray.is_initialized():
            yield ray
            return
        address = ray_settings.address(chosen, os.environ.get("RAY_ADDRESS"), where)
        _check_listens(address)
        try:
            with _handlers_kept():
                ray.init(address, namespace=chosen.namespace, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address}: {' '.join(str(error).split())}; {START}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_listens(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    if host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at {address}: {error.strerror or error}; {START}") from None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread, where Ray takes none
            for number, handler in before.items():
                signal.signal(number, handler)


class _Quiet(io.TextIOBase):
    """stdout of a process that has met Ray: silent while attached, which is when Ray tells of nodes; later, too, for
    its threads, which may outlive that."""

    def __init__(self, stream: Any) -> None:
        self.attached, self._stream, self._thread = True, stream, threading.get_ident()

    def write(self, text: str) -> int:
        passes = threading.get_ident() == self._thread and not self.attached
        return int(self._stream.write(text)) if passes else len(text)

    def flush(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    sys.stdout = quiet = _Quiet(sys.stdout)
    try:
        yield
    finally:
        quiet.attached = False


@contextlib.contextmanager
def _marked(place: Place) -> Iterator[str]:
    """The name of a file that lies in both folders while it lasts: a node that does not find it sees other folders."""
    name = f".ray-{secrets.token_hex(8)}"
    paths = [folder / name for folder in (store.runs_folder(place.out), place.cache)]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        yield name
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _sizes(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """CPUs and GPUs of the nodes that live."""
    return [(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0)) for n in nodes if n["Alive"]]


def _fits(chosen: Settings, sizes: Sequence[tuple[float, float]]) -> bool:
    return any(cpus >= chosen.cpus_per_run and gpus >= (chosen.gpus_per_run or 0) for cpus, gpus in sizes)


def _check_room(ray: Any, chosen: Settings, where: str) -> None:
    sizes = _sizes(ray.nodes())
    if not _fits(chosen, sizes):
        have = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(sizes), reverse=True)[:3])
        asked = f"cpus_per_run = {chosen.cpus_per_run:g}, gpus_per_run = {chosen.gpus_per_run:g}"
        raise InputError(f"{where}: {asked}: no node of the cluster has so much (they have {have}); ask for less")


@dataclass(frozen=True)
class _Asked:
    """What is asked of every task. mark: see ``_marked``."""

    place: Place
    crew: Crew
    mark: str

    def request(self, team: Team, chosen: Settings) -> dict[str, Any]:
        """What a task is told, as plain data."""
        paths = {"out": str(self.place.out.resolve()), "cache": str(self.place.cache.resolve())}
        return {
            "keys": [asdict(key) for key in team],
            "place": {**asdict(self.place), **paths, "device": "cuda:0" if chosen.gpus_per_run else "cpu"},
            "engine": self.crew.engine,
            "retry_before": self.crew.retry_before,
            "checkout": chosen.checkout,
            "mark": self.mark,
        }


@dataclass
class _Task:
    """A team that Ray has. token: that of the process which executes it; "" until it begins."""

    team: Team
    number: int
    token: str = ""
    node: str = ""
    what: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


class _Cluster(Sweep):
    """Gives teams to Ray, hears of them, and gives again what was lost."""

    def __init__(self, ray: Any, chosen: Settings, asked: _Asked, listen: Listener, teams: Sequence[Team]) -> None:
        super().__init__(teams, asked.place, listen)
        self._ray, self._chosen, self._asked = ray, chosen, asked
        self._tasks: dict[Any, _Task] = {}
        self._nodes_lost: Counter[Team] = Counter()
        self._count = 0
        environment = {"runtime_env": {"env_vars": _environment(chosen)}}
        needs = {"num_cpus": chosen.cpus_per_run, "num_gpus": chosen.gpus_per_run, "max_retries": 0}
        self._execute = ray.remote(**needs, **environment)(execute)
        self._home = ray.get_runtime_context().get_node_id()
        self._looked_at, self._told_full = time.monotonic(), False
        here = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
            self._home, soft=True
        )
        self._board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here, **environment)(Board).remote()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is not None and self._tasks:
                self._stop(self._asked.crew.grace_s)
        finally:
            self._ray.kill(self._board)

    def run(self) -> list[Result]:
        """Execute everything; results in the order in which runs ended."""
        while self._tasks or self.waiting or self.elsewhere:
            self.look_elsewhere()
            self._submit()
            if not self._hear(POLL_S):
                self._look_at_nodes()
                self.listen(Event("tick"))
        return list(self.results.values())

    def _submit(self) -> None:
        while self.waiting and len(self._tasks) < (self._chosen.max_concurrent or IN_FLIGHT):
            team = self.waiting.popleft()
            self._count += 1
            request = self._asked.request(team, self._chosen)
            self._tasks[self._execute.remote(request, self._count, self._board)] = _Task(team, self._count)

    def _hear(self, wait_s: float) -> bool:
        """Take what tasks say within some time; whether one said something."""
        ready: list[Any] = []
        if self._tasks:
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=wait_s)
        else:
            time.sleep(wait_s)
        told = self._read_board()
        for ref in ready:
            self._end(ref, self._tasks.pop(ref))
        return bool(ready) or told

    def _look_at_nodes(self) -> None:
        """Where Ray waits for ever and tells nobody: without a node here it hears of nothing any more, and without any
        that has room nothing begins, until there is one."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        nodes = self._ray.nodes()
        if not any(node["Alive"] for node in nodes if node["NodeID"] == self._home):
            raise InputError("the cluster has lost the node of this machine; start it again: the same command goes on")
        full = not _fits(self._chosen, _sizes(nodes))
        if full and not self._told_full:
            self.listen(Event("note", note="no node of the cluster is left that a run fits on; waiting for one"))
        self._told_full = full

    def _read_board(self) -> bool:
        """What tasks have told since it was read last. Nothing depends on it but bars, and a restart loses some."""
        told: list[tuple[int, Message]] = []
        with contextlib.suppress(self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
            told = self._ray.get(self._board.take.remote(), timeout=CONNECT_S)
        by_number = {task.number: task for task in self._tasks.values()}
        for number, message in told:
            if number in by_number:
                self._take(by_number[number], message)
        return bool(told)

    def _take(self, task: _Task, message: Message) -> None:
        match message["event"]:
            case "begin":
                task.token, task.node = message["token"], message["node"]
            case "start":
                task.what = message["what"]
                self.tell("start", task.team)
            case "progress":
                self.progress(task.team, message)

    def _end(self, ref: Any, task: _Task) -> None:
        """A task has ended, in whatever way."""
        errors = self._ray.exceptions
        try:
            runs = self._ray.get(ref)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            remedy = "every node needs this checkout and its packages"
            raise InputError(f"a worker cannot start on a node: {_last_line(error)}; {remedy}") from error
        except errors.NodeDiedError:
            self._nodes_lost[task.team] += 1
            self._bury(task, "the node of the worker was lost", self._nodes_lost[task.team] > NODES)
        except errors.RayError as error:
            self._bury(task, _last_words(error), True)
        else:
            self._took(task, runs)

    def _took(self, task: _Task, runs: Sequence[Message]) -> None:
        unseen = next((run["error"] for run in runs if run["state"] == "unseen"), None)
        died = next((run["error"] for run in runs if run["state"] == "died"), None)
        if unseen is not None:
            raise InputError(unseen)
        if died is not None:
            self._bury(task, died, True)
        elif any(run["state"] == "stopped" for run in runs):  # its node goes down, or somebody asked the worker
            self.waiting.append(task.team)
            self.tell("retry", task.team, note="the worker was asked to stop")
        else:
            for key, run in zip(task.team, runs, strict=True):
                if run["state"] in ("done", "kept", "failed"):
                    self._see(key)
            self.ended(task.team, runs)

    def _see(self, key: RunKey) -> None:
        """Wait until this machine, too, sees the record of a run: network file systems take their time."""
        folder = store.folder_of(self.place.out, key)
        deadline = time.monotonic() + SEEN_S
        while not _recorded(folder):
            if time.monotonic() > deadline:
                raise InputError(f"{folder}: a node has written a record, and here is none; share one --out among all")
            time.sleep(POLL_S)

    def _bury(self, task: _Task, words: str, alone: bool) -> None:
        self._expire(task)
        self.lost(task.team, words, task.what, alone)

    def _stop(self, grace_s: float) -> None:
        """Let the tasks write what their teams can be gone on from; what takes longer is killed."""
        self.stopping = True
        self.listen(Event("stop"))
        for ref in self._tasks:
            self._ray.cancel(ref, force=False)
        ended, rest = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=grace_s)
        self._read_board()
        for ref in ended:
            with contextlib.suppress(self._ray.exceptions.RayError):  # it had not begun
                self.ended(self._tasks[ref].team, self._ray.get(ref))
        for ref in rest:
            self._ray.cancel(ref, force=True)
        for ref in self._ray.wait(rest, num_returns=len(rest), timeout=KILL_S)[0] if rest else ():
            self._expire(self._tasks[ref])

    def _expire(self, task: _Task) -> None:
        """What executed a team is dead, says Ray: nobody needs to wait for its claims."""
        for key in task.team:
            claims.expire(store.folder_of(self.place.out, key), task.token)


def _recorded(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        os.listdir(folder.parent)  # makes NFS ask for what others have changed
    with contextlib.suppress(InputError):
        return store.read_run(folder) is not None
    return False


def _environment(chosen: Settings) -> dict[str, str]:
    """What workers run in: as local ones, with this process's CLCR_ variables and paths; then the node's own paths."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("CLCR_")}
    own = dict(chosen.env_vars)
    paths = [chosen.checkout, own.pop("PYTHONPATH", os.environ.get("PYTHONPATH", "")), "${PYTHONPATH}"]
    return {**passed, **own, **WORKER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _last_line(error: BaseException) -> str:
    """What Ray says last of an error of a task: the error itself, below where it was raised."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def _last_words(error: BaseException) -> str:
    """Ray's first sentence; those after it say where Ray's own logs lie."""
    return f"the worker died: {type(error).__name__}: {' '.join(str(error).split()).partition('. ')[0]}"


class Board:
    """An actor beside the launcher, where tasks leave messages."""

    def __init__(self) -> None:
        self._told: list[tuple[int, Message]] = []

    def tell(self, number: int, message: Message) -> None:
        """Leave a message of a task."""
        self._told.append((number, message))

    def take(self) -> list[tuple[int, Message]]:
        """All messages since the last time."""
        told, self._told = self._told, []
        return told


def execute(request: Mapping[str, Any], number: int, board: Any) -> list[Message]:
    """The task, in a worker process of Ray: serve one team. The messages of ``serve``, or for all runs "unseen" (this
    node has other folders) or "died" (an error outside of the runs)."""
    node = importlib.import_module("ray").get_runtime_context().get_node_id()
    return serve_here(request, node, lambda message: board.tell.remote(number, message))


def serve_here(request: Mapping[str, Any], node: str, tell: Tell) -> list[Message]:
    """``execute`` without Ray: in the calling process, on a node of that name."""
    keys = tuple(RunKey(**key) for key in request["keys"])
    place = request["place"]
    folders = {name: Path(place[name]) for name in ("out", "cache")}
    problem = _unseen(request, folders)
    if problem:
        return [_end("unseen", f"node {socket.gethostname()} ({node[:8]}): {problem}")] * len(keys)
    with _asked_to_stop() as stop:
        tell({"event": "begin", "token": claims.mine().token, "node": node})
        engine = importlib.import_module(request["engine"])
        engine.warm_up()
        options = engine.Options(**{**place, **folders, "overrides": tuple(place["overrides"])})
        try:
            return serve(Job(keys, request["retry_before"]), engine, options, tell, stop)
        except Exception as error:
            return [_end("died", " ".join(f"the worker ended: {type(error).__name__}: {error}".split()))] * len(keys)


def _unseen(request: Mapping[str, Any], folders: Mapping[str, Path]) -> str:
    """What this node does not see as the launcher does, in words; "" where it sees all."""
    if str(ROOT) != str(Path(request["checkout"]).resolve()):
        return f"loads its code from {ROOT}, not from {request['checkout']}; share that folder, or set 'checkout'"
    for name, marked in (("out", store.runs_folder(folders["out"])), ("cache", folders["cache"])):
        if not (marked / request["mark"]).exists():
            remedy = "--out" if name == "out" else "$CLCR_CACHE"
            return f"does not see {folders[name]} as the launcher does; put {remedy} on a folder that all nodes share"
    return ""


def _end(state: str, error: str) -> Message:
    return {"state": state, "seconds": 0.0, "error": error}


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ray (`ray.cancel` comes as SIGINT) or the system has asked this process to stop since it began."""
    asked = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in numbers}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
