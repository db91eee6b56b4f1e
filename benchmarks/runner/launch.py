"""Launchers: what executes a list of runs. The local one is a pool of one-thread worker processes.

A launcher is a function (teams, place, crew, listen) -> results; a team are the runs that train together, often one.
Whatever it says, the record in a run's folder alone decides what is done. A worker that dies takes its team with it
once: it is tried again in a new worker, then in halves; a run that ends two workers of its own is recorded as failed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import re
import selectors
import shutil
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self
from weakref import WeakSet

from benchmarks.errors import InputError, halted_by, unknown
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import claims, processes, store
from benchmarks.runner.plan import ENGINE, Place, Planned, Team
from benchmarks.runner.processes import Starter, last_words

ATTEMPTS = 2
POLL_S = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Crew:
    """How many workers there are and where each computes: worker i on devices[i % len(devices)]. starter: what starts
    them, where that has begun already (``ahead``). retry_before: failures from before that time (claims.now) are tried
    again. grace_s: how long workers that are asked to stop may take to write checkpoints. settings: a launcher's file.
    """

    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    engine: str = ENGINE
    starter: Starter | None = None
    retry_before: float = 0.0
    grace_s: float = 30.0
    settings: Path | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended: "done" or "failed" (see its record), "kept" (another runner did it), "refused" (bad input),
    "stopped" (it can be gone on from where it was)."""

    key: RunKey
    state: str
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Event:
    """What listeners are told. kind: "start", "progress", "end", "retry", "wait" (others execute what is left), "stop"
    (workers are asked to), "note" (good to know) or "tick" (nothing, POLL_S passed). share: how far the run is, 0..1;
    together: how many train as one with it. result: of an "end"."""

    kind: str
    key: RunKey | None = None
    share: float = 0.0
    note: str = ""
    result: Result | None = None
    together: int = 1


Listener = Callable[[Event], None]


class Launcher(Protocol):
    """What each entry of LAUNCHERS is."""

    def __call__(self, teams: Sequence[Team], place: Place, crew: Crew, listen: Listener) -> list[Result]:
        """Execute the runs and tell the listener how it goes."""


LAUNCHERS: Mapping[str, str] = {
    "local": "benchmarks.runner.launch:local",
    "slurm": "benchmarks.runner.slurm:array",
    "ray": "benchmarks.runner.rays:tasks",
}
POOLS: WeakSet[_Pool] = WeakSet()


def launcher(name: str) -> Launcher:
    """The launcher of that name, or InputError."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS, "--launcher")
    module, _, function = LAUNCHERS[name].partition(":")
    found: Launcher = getattr(importlib.import_module(module), function)
    return found


def dry_run(name: str, teams: Sequence[Team], place: Place, crew: Crew) -> str:
    """What a launcher would submit. InputError for one that submits nothing."""
    module = importlib.import_module(launcher(name).__module__)
    if not hasattr(module, "script"):
        raise InputError(f"--dry-run: the launcher {name} submits nothing; `clcr plan` tells what would be executed")
    return str(module.script(teams, place, crew))


def devices(wanted: str) -> tuple[str, ...]:
    """What --device means here: "auto" is every GPU there is, else the CPU. InputError where it cannot be used.
    torch is asked only where there is a GPU to ask about."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise InputError(f"--device {wanted}: not a device; write auto, cpu or cuda:0")
    if wanted == "cpu" or (wanted == "auto" and not list(Path("/dev").glob("nvidia[0-9]*"))):
        return ("cpu",)
    count = importlib.import_module("torch").cuda.device_count()
    if wanted == "auto":
        return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    if int(wanted.partition(":")[2] or 0) >= count:
        raise InputError(f"--device {wanted}: torch sees {count} GPUs here; use --device cpu or auto")
    return (wanted if ":" in wanted else "cuda:0",)


def default_workers(found: Sequence[str]) -> int:
    """One worker for each GPU, else one for each core that this process may use."""
    if tuple(found) != ("cpu",):
        return len(found)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def longest_first(teams: Sequence[Team], planned: Iterable[Planned]) -> list[Team]:
    """Teams in the order of their predicted time, so that no long one is left for a single worker at the end; those of
    unknown time, which may be long, before all others. Equals stay in their order."""
    predicted = {run.key: run.predicted_s for run in planned}

    def negative(team: Team) -> float:
        times = [predicted.get(key) for key in team]
        return -sum(math.inf if time is None else time for time in times)

    return sorted(teams, key=negative)


@contextlib.contextmanager
def ahead(crew: Crew) -> Iterator[Crew]:
    """The crew with what its workers come from being started, while the caller plans what they will do."""
    starter = processes.starter(crew.engine)
    try:
        starter.begin()
        yield replace(crew, starter=starter)
    finally:
        starter.end()


def local(teams: Sequence[Team], place: Place, crew: Crew, listen: Listener) -> list[Result]:
    """Execute runs on this machine. Returns when every run has ended, here or in another runner on this folder."""
    with _Pool(teams, place, crew, listen) as pool:
        return pool.run()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until it is over: their handlers find nothing half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_all(grace_s: float) -> None:
    """Stop the workers of this process as an interruption does; may be called by a signal's handler."""
    for pool in list(POOLS):
        pool.stop(grace_s)


class _Worker:
    """One worker process and the team it has. pid: None until it is ready. leaves: it was asked to stop and ends."""

    def __init__(self, starter: Starter, place: Place, engine: str) -> None:
        self.team: Team = ()
        self.what: Sequence[Mapping[str, Any]] = ()
        self.pid: int | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._rest = b""
        self.leaves = False
        self._asked = False
        stdin, requests = os.pipe()
        self.pipe, stdout = os.pipe()  # where its messages come from
        self._requests: IO[bytes] = os.fdopen(requests, "wb")
        try:
            self._code = starter.start(stdin, stdout, self._errors.fileno())
        finally:
            os.close(stdin)
            os.close(stdout)
        paths = {"out": str(place.out.resolve()), "cache": str(place.cache.resolve())}
        self._send({"engine": engine, "place": {**asdict(place), **paths}})

    def give(self, team: Team, retry_before: float) -> None:
        """Hand it a team."""
        self.team, self.what = team, ()
        self._send({"keys": [asdict(key) for key in team], "retry_before": retry_before})

    def stop(self) -> None:
        """Ask it to stop its team; once it is ready, and once."""
        if self.pid is not None and self.team and not self._asked:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: the end of its pipe tells
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def receive(self) -> list[dict[str, Any]] | None:
        """Its complete messages; None when it has ended."""
        chunk = os.read(self.pipe, 1 << 16)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.pid = next((message["pid"] for message in messages if message["event"] == "ready"), self.pid)
        return messages if chunk else None

    def last_words(self) -> tuple[str, bool]:
        """How it died, in one line, and whether it died by itself: not with its server."""
        code = self._code()
        if code is None:
            return "the server of the workers died", False
        return last_words("the worker", code, self._errors), True

    def close(self) -> None:
        """Let go of it, when it has ended or was killed: what it still said names its process."""
        while self.receive() is not None:
            pass
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        os.close(self.pipe)
        self._errors.close()


class Sweep:
    """The books of a launcher: teams that wait, teams that others have, what came of the rest, and what to do with a
    team whose worker died. The caller executes."""

    def __init__(self, teams: Sequence[Team], place: Place, listen: Listener) -> None:
        self.waiting = deque(teams)
        self.elsewhere: list[Team] = []
        self.results: dict[RunKey, Result] = {}
        self.place, self.listen = place, listen
        self.stopping = False
        self._attempts: Counter[Team] = Counter()

    def tell(self, kind: str, team: Team, share: float = 0.0, note: str = "") -> None:
        """Tell the listener of every run of a team."""
        for key in team:
            self.listen(Event(kind, key, share, note, together=len(team)))

    def progress(self, team: Team, message: Mapping[str, Any]) -> None:
        """Tell the listener how far a team is, from a message of its worker."""
        done = (message["fold"] - 1) * message["epochs"] + message["epoch"]
        self.tell("progress", team, share=done / (message["folds"] * message["epochs"]))

    def ended(self, team: Team, runs: Sequence[Mapping[str, Any]]) -> None:
        """Take what a worker said of its runs (see benchmarks.runner.serve)."""
        if any(run["state"] == "busy" for run in runs):
            self.elsewhere.append(team)
            self.tell("wait", team, note="another process has it")
            return
        if any(run["state"] == "stopped" for run in runs) and not self.stopping:
            self.waiting.appendleft(team)
            self.tell("retry", team, note="somebody else asked the worker to stop")
            return
        halted = next((run["error"] for run in runs if run["state"] == "halted"), None)
        if halted is not None and not self.stopping:
            raise InputError(halted)
        for key, run in zip(team, runs, strict=True):
            self._conclude(Result(key, run["state"], run["seconds"], run["error"]))

    def lost(self, team: Team, words: str, what: Sequence[Mapping[str, Any]], alone: bool) -> None:
        """The worker of a team has died, by itself or not. A team is tried once more, then in halves; a run alone then
        fails, and its record says so (what: the run in it, where that is known)."""
        self._attempts[team] += alone
        if self._attempts[team] < ATTEMPTS:
            self.waiting.appendleft(team)
            self.tell("retry", team, note=words)
        elif len(team) > 1:
            half = len(team) // 2
            self.waiting.extendleft((team[half:], team[:half]))
            self.tell("retry", team, note=f"{words}; in two halves")
        else:
            self._fail(team[0], words, what)

    def look_elsewhere(self) -> None:
        """Runs that another process had and has no more are looked at again: they are done, or need doing."""
        if self.waiting:
            return
        out = self.place.out
        free = [team for team in self.elsewhere if not any(claims.held(store.folder_of(out, key)) for key in team)]
        self.elsewhere = [team for team in self.elsewhere if team not in free]
        self.waiting.extend(free)

    def _conclude(self, result: Result) -> None:
        self.results[result.key] = result
        self.listen(Event("end", result.key, 1.0, result=result))

    def _fail(self, key: RunKey, words: str, what: Sequence[Mapping[str, Any]]) -> None:
        folder = store.folder_of(self.place.out, key)
        result = Result(key, "failed", error=words)
        try:
            if claims.acquire(folder):
                own = claims.attempt(folder)
                record = RunRecord(key, what[0] if what else {}, "failed", error=words)
                # Nothing said what the run is: then nothing says that what stands there is another one's.
                if what or not store.is_done(folder):
                    store.write_record(own, record)
                    result = result if store.publish(own, folder) else Result(key, "kept")
                shutil.rmtree(own, ignore_errors=True)
                claims.release(folder)
        except OSError as error:
            raise InputError(halted_by(error, self.place.out)) from None
        self._conclude(result)


class _Pool(Sweep):
    """The slot pool: gives teams to idle workers, replaces workers that die, waits for runs that others have."""

    def __init__(self, teams: Sequence[Team], place: Place, crew: Crew, listen: Listener) -> None:
        super().__init__(teams, place, listen)
        self._crew = crew
        self._unborn = 0
        self._workers: list[_Worker | None] = [None] * max(1, min(crew.workers, len(teams)))
        self._pipes = selectors.DefaultSelector()
        self._starter = crew.starter or processes.starter(crew.engine)

    def __enter__(self) -> Self:
        POOLS.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        POOLS.discard(self)
        try:
            if kind is not None:
                self.stop(self._crew.grace_s)
        finally:  # also where the next signal ends the wait
            self._close()

    def _close(self) -> None:
        self._pipes.close()
        self._starter.end()
        for worker in filter(None, self._workers):
            worker.close()
            for key in worker.team if worker.pid is not None else ():
                with contextlib.suppress(OSError):  # the next one takes it over
                    claims.release(store.folder_of(self.place.out, key), worker.pid)

    def run(self) -> list[Result]:
        """Execute everything; results in the order in which runs ended."""
        while self._busy() or (not self.stopping and (self.waiting or self.elsewhere)):
            with _undisturbed():
                self.look_elsewhere()
                self._hand_out()
            if not self._hear_some(POLL_S):
                self.listen(Event("tick"))
        return list(self.results.values())

    def _hear_some(self, wait_s: float) -> bool:
        """Take what workers say within some time; whether one said something. Signals come while it waits alone."""
        ready = self._pipes.select(wait_s)
        with _undisturbed():
            for chosen, _ in ready:
                self._hear(chosen.data)
        return bool(ready)

    def stop(self, grace_s: float) -> None:
        """Hand out nothing more, and let the workers write what their teams can be gone on from."""
        self.stopping = True
        self.listen(Event("stop"))
        deadline = time.monotonic() + grace_s
        while self._busy() and time.monotonic() < deadline:
            for worker in filter(None, self._workers):
                worker.stop()
            self._hear_some(min(POLL_S, max(0.0, deadline - time.monotonic())))

    def _busy(self) -> bool:
        return any(worker is not None and worker.team for worker in self._workers)

    def _hand_out(self) -> None:
        for slot, worker in enumerate(self._workers):
            if not self.waiting or self.stopping:
                return
            if worker is None:
                worker = self._start(slot)
            if not worker.team and not worker.leaves:
                worker.give(self.waiting.popleft(), self._crew.retry_before)

    def _start(self, slot: int) -> _Worker:
        device = self._crew.devices[slot % len(self._crew.devices)]
        worker = _Worker(self._starter, replace(self.place, device=device), self._crew.engine)
        self._workers[slot] = worker
        self._pipes.register(worker.pipe, selectors.EVENT_READ, slot)
        return worker

    def _hear(self, slot: int) -> None:
        worker = self._workers[slot]
        assert worker is not None
        messages = worker.receive()
        for message in messages or []:
            self._take(worker, message)
        if messages is None:
            self._workers[slot] = None
            self._pipes.unregister(worker.pipe)
            self._bury(worker)

    def _take(self, worker: _Worker, message: Mapping[str, Any]) -> None:
        match message["event"]:
            case "start":
                worker.what = message["what"]
                self.tell("start", worker.team)
            case "progress":
                self.progress(worker.team, message)
            case "end":
                team, worker.team = worker.team, ()
                worker.leaves = any(run["state"] == "stopped" for run in message["runs"])
                self.ended(team, message["runs"])

    def _bury(self, worker: _Worker) -> None:
        """A worker has died. What was taken along by the server of the workers is tried as often as there is another
        server."""
        team = worker.team
        try:
            words, alone = worker.last_words()
        finally:
            worker.close()
        unborn = worker.pid is None and alone  # its team has no part in it
        self._unborn = self._unborn + 1 if unborn else 0
        if self._unborn >= ATTEMPTS:
            raise InputError(f"a worker cannot start: {words}; {processes.REMEDY}")
        if not team:
            return
        self.lost(team, words, worker.what, alone and not unborn)
