"""The launcher "slurm": one job array, submitted through submitit (optional), watched through the files it leaves.

Each element of the array is a whole local launcher over all teams, in an order of its own; claims keep the elements
apart, so that any of them can be killed, preempted, requeued or left out. Before its time is up and when it is
preempted an element lets its workers write checkpoints and is requeued; it ends when every run has ended. What the
array needs is one file in <out>/launch/<array's name>/, where submitit also keeps its pickles and logs: what lies there
is executed, so the folder is its owner's alone.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks import archive
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import claims, launch, plan, slurm_settings, store
from benchmarks.runner.launch import Crew, Event, Listener, Result
from benchmarks.runner.plan import Place, Team
from benchmarks.runner.processes import ROOT
from benchmarks.runner.slurm_settings import Settings

JOB = "job.json"
HINT = "the slurm launcher needs submitit, which is not installed: pip install 'clcr-bench[slurm]'"
COMMAND_S = 60.0
GRACE_SHARE = 0.8  # of the time between the signal and the end; the rest is for the requeue
ENDED_LOOKS = 2


def array(teams: Sequence[Team], place: Place, crew: Crew, listen: Listener) -> list[Result]:
    """Execute runs in a job array. Runs that an array which still lives was submitted for are waited for instead.

    InputError where SLURM or submitit is missing, sbatch refuses, or all elements have ended and runs are missing.
    """
    chosen = slurm_settings.read(crew.settings)
    parent = _parent(place)
    with claims.locked(parent):  # of two equal commands at one time, one submits
        arrays = _living(parent, place, {key for team in teams for key in team}, crew.retry_before > 0)
        known = set().union(*(found.keys for found in arrays))
        rest = [team for team in teams if not known.issuperset(team)]
        for found in arrays:
            listen(Event("note", note=f"{found.name}, submitted before, lives and has {len(found.keys)} runs"))
        if rest:
            arrays.append(_submit(rest, place, crew, chosen, parent))
            listen(Event("note", note=f"submitted {arrays[-1].name}; its logs: {arrays[-1].folder}"))
    watch = _Watch(teams, place, crew, arrays, listen)
    if not chosen.wait:
        return watch.look()
    try:
        return watch.run(chosen.poll_s)
    except KeyboardInterrupt:
        names = ",".join(found.name for found in arrays)
        listen(Event("note", note=f"the array goes on; `scancel --name={names}` ends it"))
        raise


def script(teams: Sequence[Team], place: Place, crew: Crew) -> str:
    """What ``array`` would give to sbatch. Needs submitit, and no SLURM."""
    chosen = slurm_settings.read(crew.settings)
    _check_path(place.out)
    folder = place.out.resolve() / "launch" / "clcr-DATE"
    module = _submitit("submitit.slurm.slurm")
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = chosen.tasks if chosen.tasks > 1 else None
    made = module._make_sbatch_string(
        command=command, folder=folder, map_count=count, **_parameters(chosen, folder.name)
    )
    return f"{made}# {sum(map(len, teams))} runs in {len(teams)} teams"


class Task:
    """An element of the array, as submitit pickles it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stopping = False

    def __call__(self, index: int) -> None:
        """Execute what is not done and not another element's, until every run has ended."""
        job = _Job.read(self.folder)
        signal.signal(signal.SIGTERM, lambda *_: self._terminated(job))
        log = _submitit("submitit.core.logger").get_logger().info
        devices = launch.devices(job.device)
        crew = Crew(
            workers=job.workers or launch.default_workers(devices),
            devices=devices,
            engine=job.engine,
            retry_before=job.retry_before,
            grace_s=job.grace_s,
        )
        teams = dealt(job.teams, index, job.tasks)
        log(f"{len(teams)} teams, {crew.workers} workers on {', '.join(devices)}")
        try:
            results = launch.local(teams, replace(job.place, device=devices[0]), crew, _Teller(log))
        except InputError as error:
            _tell_refused(self.folder, index, [("", str(error))])
            raise
        _tell_refused(self.folder, index, [(str(r.key), r.error) for r in results if r.state == "refused"])

    def checkpoint(self, index: int) -> Any:
        """What submitit calls before the time is up, and then requeues: workers stop and leave their checkpoints."""
        self.stopping = True
        _stop(_Job.read(self.folder).grace_s)
        environment = _submitit("submitit").JobEnvironment()
        pickle = environment.paths.submitted_pickle
        pickle.with_suffix(f"{pickle.suffix}.save_tmp").unlink(missing_ok=True)  # one left by a kill would be refused
        return _submitit("submitit.core.utils").DelayedSubmission(Task(self.folder), index)

    def _terminated(self, job: _Job) -> None:
        """Preempted, cancelled, or the node goes down: SIGKILL follows. SLURM requeues what it preempts itself, except
        where a grace time lets it end before: such a job still runs when it is asked."""
        if self.stopping:
            return
        self.stopping = True
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # some clusters send it as well
        _stop(job.grace_s)
        number = os.environ.get("SLURM_JOB_ID", "")
        if _told(["squeue", "--noheader", "--jobs", number, "--format", "%T"]) == "RUNNING":
            _told(["scontrol", "requeue", number])
        sys.exit(128 + signal.SIGTERM)


def _stop(grace_s: float) -> None:
    """Stop the workers. SLURM signals all processes of a task: one that had not yet begun has died of it."""
    with contextlib.suppress(InputError):
        launch.stop_all(grace_s)


def dealt(teams: Sequence[Team], index: int, tasks: int) -> list[Team]:
    """All teams in the order of an element: like cards, its own first, then those of the next elements."""
    return [team for shift in range(tasks) for team in teams[(index + shift) % tasks :: tasks]]


@dataclass(frozen=True)
class _Job:
    """What the elements are told. asked_at: when, by the clock of the results' file system; retry_before: see Crew."""

    teams: tuple[Team, ...]
    place: Place
    engine: str
    device: str
    workers: int
    tasks: int
    grace_s: float
    retry_before: float
    asked_at: float

    def write(self, folder: Path) -> None:
        paths = {"out": str(self.place.out), "cache": str(self.place.cache)}
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        teams = [[asdict(key) for key in team] for team in self.teams]
        text = json.dumps({**said, "teams": teams, "place": {**asdict(self.place), **paths}})
        archive.write_bytes(folder / JOB, text.encode())

    @classmethod
    def read(cls, folder: Path) -> _Job:
        said = json.loads((folder / JOB).read_text(encoding="utf-8"))
        place = said["place"]
        paths = {"out": Path(place["out"]), "cache": Path(place["cache"]), "overrides": tuple(place["overrides"])}
        teams = tuple(tuple(RunKey(**key) for key in team) for team in said["teams"])
        return cls(**{**said, "teams": teams, "place": Place(**{**place, **paths})})


@dataclass(frozen=True)
class _Array:
    """An array that was submitted: its folder and what its elements were told."""

    folder: Path
    job: _Job
    keys: frozenset[RunKey]

    @property
    def name(self) -> str:
        return self.folder.name


def _parent(place: Place) -> Path:
    """<out>/launch, made if missing. InputError where somebody else could put something there."""
    parent = place.out.resolve() / "launch"
    _check_path(parent)
    parent.mkdir(mode=0o700, exist_ok=True)
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(
            f"{parent}: others can write there, and jobs execute what it holds; chmod 700, or another --out"
        )
    return parent


def _check_path(path: Path) -> None:
    if "%" in str(path) or not str(path).isprintable():
        raise InputError(f"--out {path}: SLURM does not take this name for its logs; choose one without '%'")


def _submit(teams: Sequence[Team], place: Place, crew: Crew, chosen: Settings, parent: Path) -> _Array:
    submitit = _submitit("submitit")
    folder = parent / f"clcr-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(mode=0o700)
    job = _Job(
        teams=tuple(teams),
        place=replace(place, out=place.out.resolve(), cache=place.cache.resolve()),
        engine=crew.engine,
        device=chosen.device,
        workers=chosen.workers,
        tasks=chosen.tasks,
        grace_s=GRACE_SHARE * chosen.signal_s,
        retry_before=crew.retry_before,
        asked_at=claims.now(folder),
    )
    said = io.StringIO()
    try:
        job.write(folder)
        with contextlib.redirect_stderr(said):  # what sbatch says becomes part of the error
            executor = submitit.SlurmExecutor(folder, max_num_timeout=chosen.requeues)
            executor.update_parameters(**_parameters(chosen, folder.name))
            executor.map_array(Task(folder), range(chosen.tasks))
    except (RuntimeError, OSError) as error:  # submitit's own are of the first kind
        shutil.rmtree(folder)
        told = " ".join((said.getvalue() or str(error)).split())
        raise InputError(
            f"SLURM does not take the job: {told}; correct {crew.settings or 'with --launcher-config'}"
        ) from error
    return _Array(folder, job, frozenset(key for team in teams for key in team))


def _parameters(chosen: Settings, name: str) -> dict[str, Any]:
    """What submitit is told; it quotes each value."""
    setup = [f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"']
    setup += [
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"
    ]  # since 22.05 srun does not take over what sbatch was told
    extra = {"requeue": True, **chosen.sbatch}
    asked = {
        "partition": chosen.partition,
        "account": chosen.account,
        "qos": chosen.qos,
        "gres": chosen.gres,
        "mem": chosen.memory,
        "gpus_per_task": chosen.gpus_per_task,
    }
    return {
        "job_name": name,
        "time": chosen.time,
        "cpus_per_task": chosen.cpus_per_task,
        "signal_delay_s": chosen.signal_s,
        "array_parallelism": chosen.at_once or chosen.tasks,
        "setup": [*setup, *chosen.setup],
        "additional_parameters": extra,
        **{field: value for field, value in asked.items() if value},
    }


def _submitit(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(HINT) from error


def _living(parent: Path, place: Place, keys: set[RunKey], retry: bool) -> list[_Array]:
    """The arrays in the queue that were submitted for some of these runs, told the same; retry: and whose failures."""
    found = []
    for folder in sorted(parent.glob("clcr-*")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a folder whose writer was killed
            job = _Job.read(folder)
            theirs = frozenset(key for team in job.teams for key in team)
            if theirs & keys and job.place.overrides == place.overrides and (job.retry_before > 0 or not retry):
                found.append(_Array(folder, job, theirs))
    names = _queued() if found else set()
    if names is None:
        raise InputError("squeue does not answer: whether earlier arrays still run cannot be told; try again later")
    return [each for each in found if each.name in names]


def _queued() -> set[str] | None:
    """The names of this user's jobs that wait or run; None where SLURM does not answer."""
    told = _told(["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%j"])
    return None if told is None else set(told.split())


def _told(command: Sequence[str]) -> str | None:
    """What a command of SLURM prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _tell_refused(folder: Path, index: int, refused: Sequence[tuple[str, str]]) -> None:
    """Leave beside the logs which runs (or "", all) were refused: of these there are no records."""
    archive.write_bytes(folder / f"refused-{index}.json", json.dumps(refused).encode())


class _Teller:
    """Tells the log of an element how its runs go."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def __call__(self, event: Event) -> None:
        if event.result:
            error = f": {event.result.error}" if event.result.error else ""
            self._log(f"{event.result.state} {event.key} {event.result.seconds:.1f} s{error}")
        elif event.kind in ("start", "retry", "wait", "stop"):
            self._log(" ".join(filter(None, (event.kind, str(event.key or ""), event.note))))


class _Watch:
    """Tells a listener how runs go that others execute, from claims and records alone."""

    def __init__(
        self, teams: Sequence[Team], place: Place, crew: Crew, arrays: Sequence[_Array], listen: Listener
    ) -> None:
        self._place, self._crew, self._arrays, self._listen = place, crew, arrays, listen
        self._together = {key: len(team) for team in teams for key in team}
        self._jobs = {key: found.job for found in arrays for key in found.keys}
        self._open = dict.fromkeys(self._together)
        self._running: set[RunKey] = set()
        self._digests: dict[RunKey, str] = {}
        self._results: list[Result] = []

    def run(self, poll_s: float) -> list[Result]:
        """Until every run has ended, or the queue is empty: results in the order in which runs ended."""
        gone = 0
        self.look()
        while self._open and gone < ENDED_LOOKS:
            queued = _queued()  # asked before the last look at the files: who is gone has written all that it will
            alive = queued is None or any(found.name in queued for found in self._arrays)
            gone = 0 if alive else gone + 1
            self._pause(poll_s)
            self.look()
        self._give_up()
        self._clear()
        return self._results

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._listen(Event("tick"))
            time.sleep(min(launch.POLL_S, seconds))

    def look(self) -> list[Result]:
        """Look at every open run once; the results so far."""
        for key in list(self._open):
            held = claims.held(store.folder_of(self._place.out, key))  # asked first: records come before releases
            result = self._result(key)
            if result:
                self._end(result)
            elif held and key not in self._running:
                self._running.add(key)
                self._listen(Event("start", key, together=self._together[key]))
            elif not held and key in self._running:
                self._running.discard(key)
                self._listen(Event("retry", key, note="its task was stopped"))
        return self._results

    def _end(self, result: Result) -> None:
        del self._open[result.key]
        self._results.append(result)
        self._listen(Event("end", result.key, 1.0, result=result))

    def _result(self, key: RunKey) -> Result | None:
        """How a run ended since it was asked for; None while it has not."""
        folder = store.folder_of(self._place.out, key)
        try:
            record = store.read_run(folder)
        except InputError:  # an element will put it aside
            return None
        written_at, job = store.written_at(folder), self._jobs[key]
        fresh = written_at > job.asked_at
        if record is None or not (fresh or record.digest == self._digest(key)):
            return None
        if record.status == "done":
            return Result(key, "done" if fresh else "kept", record.time_s)
        return Result(key, "failed", record.time_s, record.error) if written_at >= job.retry_before else None

    def _digest(self, key: RunKey) -> str:
        if key not in self._digests:
            with contextlib.suppress(InputError):  # an element refuses it, and says why
                self._digests[key] = plan.digest_now(key, self._place, self._crew.engine)
        return self._digests.get(key, "")

    def _clear(self) -> None:
        """Elements that have not begun have nothing left to do."""
        ended = {result.key for result in self._results}
        for found in self._arrays:
            if found.keys <= ended:
                _told(["scancel", "--state=PENDING", f"--name={found.name}"])

    def _give_up(self) -> None:
        """All elements have ended, runs are missing: say why as far as it is known."""
        told = _refusals(self._arrays)
        logs = " ".join(str(found.folder / "*_log.err") for found in self._arrays)
        because = f" ({told['']})" if "" in told else ""
        missing = f"all tasks have ended and {len(self._open)} runs are not done{because}"
        for key in list(self._open):
            why = told.get(str(key)) or f"{missing}; see {logs}; the same command goes on"
            self._end(Result(key, "refused", error=why))


def _refusals(arrays: Iterable[_Array]) -> Mapping[str, str]:
    """Why runs were refused, by their names; what kept a whole element from working as ""."""
    found: dict[str, str] = {}
    for each in arrays:
        for path in sorted(each.folder.glob("refused-*.json")):
            with contextlib.suppress(OSError, ValueError):
                found |= {str(key): str(error) for key, error in json.loads(path.read_text(encoding="utf-8"))}
    return found
