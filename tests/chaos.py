"""Kills sweeps, again and again, and looks whether anything is lost: ``python tests/chaos.py --kills 200 --seed 0``.

Tiny sweeps of the real engine over a synthetic twin: teams of two seeds, single runs, a method that is fitted, a
checkpoint after every epoch, up to three runners at once on one folder. Signals come at random times and at chosen
moments (tests/chaos_hook.py): in the middle of writing a file, between the two renames of a publication, between
publication and release, during a takeover, in the middle of a merge. Whatever was killed is started again; at the end
every run must have been published once, every file be whole, nothing be left over, and the tables, predictions and
curves be byte for byte those of an undisturbed sweep. Exit code 1, and the folder is kept, where that does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import cli, curves  # noqa: E402
from benchmarks.errors import InputError  # noqa: E402
from benchmarks.runner import environment, store  # noqa: E402

METHODS = ["--benchmark", "crema_d", "--data", "twin", "--method", "late_fusion,linear"]
SETTINGS = ["--set", "training.epochs=3"]
OTHER = ["--set", "training.epochs=1"]  # of what is stale when a sweep begins
SUPERSEDED = re.compile(rb"^.*\d+ older records? superseded by newer ones?, not shown.*\n", re.MULTILINE)
LIMIT_S = 150.0
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1")
ENDS = {0, 1, cli.BAD_INPUT, cli.INTERRUPTED, *(-getattr(signal, name) for name in SIGNALS)}
LEFT = ("*.tmp", ".seed-*", ".probe*", "seed-*/checkpoint*")
CLAIM, ATTEMPT = r"/\.seed-\d+\.claim", r"/\.seed-\d+\.[0-9a-f]{16}"


@dataclass(frozen=True)
class Moment:
    """A call of the operating system. path: a regular expression that finds the file, or where it goes to; late: after
    the call, else before it; torn: half of the file is lost first; role: in a worker, a runner or a report."""

    name: str
    call: str
    path: str
    late: bool = False
    torn: bool = False
    role: str = "worker"


MOMENTS = (
    Moment("checkpoint half written", "fsync", r"/\.checkpoint\.pt\.\w+\.tmp$", torn=True),
    Moment("checkpoint moved to previous", "replace", r"/checkpoint\.previous\.pt$", late=True),
    Moment("checkpoint written", "replace", r"/checkpoint\.pt$", late=True),
    Moment("predictions half written", "fsync", r"/\.predictions\.npz\.\w+\.tmp$", torn=True),
    Moment("curves half written", "fsync", r"/\.curves\.jsonl\.\w+\.tmp$", torn=True),
    Moment("record half written", "fsync", r"/\.record\.json\.\w+\.tmp$", torn=True),
    Moment("record written, not published", "replace", r"/record\.json$", late=True),
    Moment("between the renames of a publication", "rename", r"\.old$", late=True),
    Moment("just before the publication", "rename", r"/seed-\d+$"),
    Moment("published, claim not released", "rename", r"/seed-\d+$", late=True),
    Moment("checkpoint of a finished run being removed", "unlink", r"/seed-\d+(\.[0-9a-f]{16})?/checkpoint\.pt$"),
    Moment("claim created, still empty", "open", rf"{CLAIM}$", late=True),
    Moment("claim put aside", "rename", rf"{CLAIM}\.[0-9a-f]{{16}}$", late=True),
    Moment("attempt not yet inherited", "rename", rf"{ATTEMPT}$"),
    Moment("attempt inherited", "rename", rf"{ATTEMPT}$", late=True),
    Moment("runner: folder being probed", "fsync", r"/\.\.probe\.\w+\.tmp$", torn=True, role="run"),
    Moment("runner: tidying", "rename", rf"{CLAIM}\.[0-9a-f]{{16}}$", late=True, role="run"),
    Moment("runner: record of a failure half written", "fsync", r"/\.record\.json\.\w+\.tmp$", True, True, "run"),
    Moment("merge: predictions half written", "fsync", r"/predictions/\.\S+\.tmp$", torn=True, role="report"),
    Moment("merge: predictions written", "replace", r"/predictions/[^/]+\.npz$", late=True, role="report"),
    Moment("merge: records half written", "fsync", r"/records/\.\S+\.tmp$", torn=True, role="report"),
    Moment("merge: curves half written", "fsync", r"/curves/\.\S+\.tmp$", torn=True, role="report"),
    Moment("tables half written", "fsync", r"/tables/\.\S+\.tmp$", torn=True, role="report"),
)


@dataclass
class Counts:
    """What was done and seen. kills: by signal and target, with the moment; ends: exit codes of runners."""

    kills: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    runs: int = 0
    starts: int = 0
    takeovers: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())

    def moments(self) -> Counter[str]:
        """Kills by moment."""
        found: Counter[str] = Counter()
        for (_, _, moment), count in self.kills.items():
            found[moment] += count
        return found


class Sweep:
    """One sweep and everybody who works on it."""

    def __init__(self, folder: Path, counts: Counts, dice: random.Random, seeds: str = "0-2") -> None:
        self.folder, self.counts, self.dice = folder, counts, dice
        self.out, self.seeds = folder / "out", ["--seeds", seeds]
        self._number = 0
        self._pending: dict[str, tuple[str, str, str]] = {}
        self._stood: dict[str, tuple[int, int]] = {}
        (folder / "fired").mkdir(parents=True)
        hook = folder / "hook"
        hook.mkdir()
        shutil.copy(Path(__file__).with_name("chaos_hook.py"), hook / "sitecustomize.py")
        self.arm([])
        path = os.pathsep.join([str(hook), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._environment = {**os.environ, "CHAOS_FOLDER": str(folder), "PYTHONPATH": path}

    def arm(self, moments: Sequence[tuple[Moment, str, str]]) -> None:
        """Let signals come at moments, in processes that start from now on: (moment, signal, whom)."""
        self.settle()
        waiting = []
        for moment, name, whom in moments:
            self._number += 1
            number = str(self._number)
            nth = self.dice.choice((1, 1, 2)) if "checkpoint" in moment.name else 1
            waiting.append({**asdict(moment), "id": number, "signal": getattr(signal, name), "whom": whom, "nth": nth})
            who = {
                "self": "runner" if moment.role == "run" else moment.role,
                "parent": "server",
                "grandparent": "runner",
            }
            self._pending[number] = name, who.get(whom, "all"), moment.name
        (self.folder / "armed.json").write_text(json.dumps(waiting))

    def settle(self) -> None:
        """Count what has come of the armed moments."""
        for path in (self.folder / "fired").iterdir():
            self.counts.kills[self._pending[path.name]] += 1
            path.unlink()
        self._pending = {}

    def start(self, *command: str, settings: Sequence[str] = SETTINGS) -> subprocess.Popen[bytes]:
        """``clcr`` on this sweep."""
        self.counts.starts += 1
        line = [sys.executable, "-m", "benchmarks.cli", *command, *settings, "--out", str(self.out)]
        errors = (self.folder / f"stderr-{self.counts.starts}").open("wb")
        with errors:
            return subprocess.Popen(
                line, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )

    def run(self, workers: int = 1, settings: Sequence[str] = SETTINGS) -> subprocess.Popen[bytes]:
        """A runner."""
        flags = ["--seeds-together", "2", "--checkpoint-epochs", "1", "--retry-failed", "--quiet"]
        return self.start("run", *METHODS, *self.seeds, *flags, "--workers", str(workers), settings=settings)

    def report(self) -> subprocess.Popen[bytes]:
        """Somebody who merges and makes tables, whatever is there."""
        return self.start("report", "--only", "tables", "--partial", "--quiet")

    def wait(self, started: Sequence[subprocess.Popen[bytes]], kills: Sequence[tuple[float, str, str]] = ()) -> None:
        """Until all have ended; meanwhile kills come: (after seconds, signal, whom)."""
        began = time.monotonic()
        left = sorted(kills)
        while any(process.poll() is None for process in started):
            passed = time.monotonic() - began
            while left and left[0][0] <= passed:
                self._kill(self.dice.choice(list(started)), *left.pop(0)[1:])
            if passed > LIMIT_S:
                self.wrong(f"{sum(p.poll() is None for p in started)} processes hang")
                for process in started:
                    process.kill()
            time.sleep(0.01)
        for process in started:
            self._ended(process)
        self.settle()
        self._look()

    def _kill(self, process: subprocess.Popen[bytes], name: str, whom: str) -> None:
        if process.poll() is not None:
            return
        servers = children(process.pid)
        workers = [worker for server in servers for worker in children(server)]
        targets = {"runner": [process.pid], "server": servers[:1], "worker": workers}[whom] if whom != "all" else []
        if whom == "worker":
            if not workers:
                return
            targets = [self.dice.choice(workers)]
        sent = [hit(pid, getattr(signal, name)) for pid in targets or ([process.pid, *servers, *workers])]
        if any(sent):
            self.counts.kills[name, whom if targets else "all", "at a random time"] += 1

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        self.counts.ends[process.returncode] += 1
        if process.returncode not in ENDS:
            said = "".join(path.read_text() for path in self.folder.glob("stderr-*"))
            importing = "KeyboardInterrupt" in said and "_find_and_load" in said  # torch's libraries abort then
            if process.returncode != -signal.SIGABRT or not importing:
                self.wrong(f"exit code {process.returncode}: {process.args}")

    def _look(self) -> None:
        """What was done stays as it is; nobody ends with a traceback, other than where an import was interrupted."""
        for path in self.folder.glob("stderr-*"):
            said = path.read_text()
            if "Traceback" in said and not re.search(r"^KeyboardInterrupt$", said, re.MULTILINE):
                self.wrong(f"{path.name}: {said.strip().splitlines()[-1]}")
            elif said.startswith("clcr: ") and "interrupted" not in said:
                self.counts.told[re.sub(r"/\S+", "...", said.strip().splitlines()[-1])[:200]] += 1
            path.rename(path.with_name(f"old-{path.name}"))
        for name, stood in self._stood.items():
            if done(self.out).get(name) != stood:
                self.wrong(f"{name} was done and is not, or was done again")
        self._stood = done(self.out)

    def wrong(self, what: str) -> None:
        """Evidence."""
        self.counts.wrong.append(f"{self.folder.name}: {what}")

    def finish(self, reference: Sweep) -> None:
        """Run to the end, undisturbed, and hold what came of it against an undisturbed sweep."""
        self.arm([])
        last = self.run(2)
        self.wait([last])
        if last.returncode != 0:
            self.wrong(f"the last run ends with {last.returncode}")
        found, wanted = results(self.out), results(reference.out)
        different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        for name in different:
            self.wrong(f"{name} is not that of an undisturbed sweep")
        for pattern in LEFT:
            for path in self.out.rglob(pattern):
                self.wrong(f"{path.relative_to(self.out)} is left")
        self._count()

    def _count(self) -> None:
        self.counts.sweeps += 1
        events = (self.folder / "events").read_text().splitlines() if (self.folder / "events").exists() else []
        published = Counter(line for line in events if line.startswith("published done"))
        for line in published:
            if published[line] > 1:
                self.wrong(f"{line}: {published[line]} times")
        self.counts.takeovers += sum(line.startswith("inherited") for line in events)
        for folder, record in store.records(self.out):
            self.counts.runs += 1
            self.counts.resumed += len(record.provenance.get("resumed", ()))
            try:
                store.read_predictions(folder, record)
                if record.status != "done":
                    self.wrong(f"{record.key} {record.status}")
                if record.selection.get("epoch"):
                    curves.of_run(folder, record)
            except InputError as error:
                self.wrong(str(error))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    with contextlib.suppress(OSError):
        text = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
        return [int(word) for word in text.split()]
    return []


def hit(pid: int, number: int) -> bool:
    """Send a signal; whether somebody was there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def done(out: Path) -> dict[str, tuple[int, int]]:
    """What was finished with these settings: the record's inode and time."""
    found = {}
    for folder in out.glob("runs/*/*/*/seed-*"):
        with contextlib.suppress(FileNotFoundError):
            state = (folder / store.RECORD).stat()
            record = json.loads((folder / store.RECORD).read_text())
            if record["status"] == "done" and settled(record):
                found[str(folder.relative_to(out))] = state.st_ino, state.st_mtime_ns
    return found


def settled(record: dict[str, Any]) -> bool:
    """Whether a run is of these settings; those of a fitted method say nothing of epochs."""
    return bool(record["what"]["config"].get("training", {}).get("epochs") != 1)


def results(out: Path, settings: Sequence[str] = SETTINGS) -> dict[str, bytes]:
    """Everything that must not depend on how a sweep went: predictions, curves, tables without costs. A failure that a
    report has merged stays in the records, and the tables count it as superseded: these lines are left out."""
    assert cli.main(["report", "--only", "tables", "--quiet", *settings, "--out", str(out)]) == 0
    files = (
        "runs/*/*/*/seed-*/predictions.npz",
        "runs/*/*/*/seed-*/curves.jsonl",
        "predictions/*",
        "curves/*",
        "tables/*",
    )
    paths = [path for pattern in files for path in out.glob(pattern) if not path.name.startswith("cost.")]
    return {str(path.relative_to(out)): SUPERSEDED.sub(b"", path.read_bytes()) for path in paths}


class Chaos:
    """Sweeps that are killed."""

    def __init__(self, folder: Path, seed: int, seeds: str = "0-2", tell: Callable[[str], None] = print) -> None:
        self.folder, self.counts, self.dice, self._tell = folder, Counts(), random.Random(seed), tell
        self._seeds = seeds
        self.stale = self.sweep("stale")
        self.stale.wait([self.stale.run(2, OTHER)])
        self.calm = self.sweep("calm")
        self.calm.wait([self.calm.run(2)])
        self._runs = len(done(self.calm.out))
        self.counts.__init__()  # type: ignore[misc]

    def sweep(self, name: str, begins_stale: bool = False) -> Sweep:
        """A new sweep; with results of other settings where runs will lie."""
        sweep = Sweep(self.folder / name, self.counts, self.dice, self._seeds)
        if begins_stale:
            shutil.copytree(self.stale.out / "runs", sweep.out / "runs", ignore=shutil.ignore_patterns("linear"))
        return sweep

    def go(self, kills: int, each: int = 24) -> None:
        """Kill so often, at most some more, about ``each`` times a sweep."""
        while self.counts.total < kills:
            before, began = self.counts.total, time.monotonic()
            number = self.counts.sweeps
            stale = self.dice.random() < 0.4
            sweep = self.sweep(f"sweep-{number:03d}", stale)
            for _ in range(8):
                if self.counts.total - before < min(each, kills - before) and len(done(sweep.out)) < self._runs:
                    self.disturb(sweep, stale)
            sweep.finish(self.calm)
            wrong = len(self.counts.wrong)
            took = time.monotonic() - began
            self._tell(f"sweep {number}: {self.counts.total} of {kills} kills, {wrong} wrong, {took:.0f} s")
            if not any(line.startswith(sweep.folder.name) for line in self.counts.wrong):
                shutil.rmtree(sweep.folder)

    def disturb(self, sweep: Sweep, stale: bool) -> None:
        """Start runners, sometimes a report, and kill. No report where stale results lie: it would keep them."""
        runners = self.dice.choice((1, 1, 1, 2, 2, 3))
        reports = not stale and bool(done(sweep.out)) and self.dice.random() < 0.6
        roles = ["worker"] * 9 + ["run"] * (self.dice.random() < 0.3) + ["report"] * reports
        sweep.arm([self._moment(role, stale) for role in roles])
        started = [sweep.run(self.dice.choice((1, 2))) for _ in range(runners)]
        started += [sweep.report() for _ in range(reports)]
        last = self.dice.choice(("runner", "all", "server"))
        kills = [(self.dice.uniform(3, 14), self.dice.choice(SIGNALS), "worker") for _ in range(4)]
        sweep.wait(started, [*kills, (self.dice.uniform(1, 25), self.dice.choice(SIGNALS), last)])

    def _moment(self, role: str, stale: bool) -> tuple[Moment, str, str]:
        """One of the moments of a role, rather those that were there least often, with whom to kill."""
        seen = self.counts.moments()
        known = [m for m in MOMENTS if m.role == role and (stale or "between the renames" not in m.name)]
        moment = self.dice.choices(known, [1 / (1 + seen[m.name]) for m in known])[0]
        whom = self.dice.choice((*["self"] * 10, "parent", "grandparent", "all"))
        name = self.dice.choice(("SIGKILL", "SIGKILL", "SIGKILL", *SIGNALS))
        return moment, name, whom if moment.role == "worker" else "self"


def told(counts: Counts, seed: int, seconds: float, load: Sequence[float]) -> dict[str, Any]:
    """What was measured, as JSON."""
    kinds: Counter[str] = Counter()
    for (name, whom, _), count in counts.kills.items():
        kinds[f"{name} to {whom}"] += count
    return {
        "kills": counts.total,
        "seed": seed,
        "by_kind": dict(sorted(kinds.items())),
        "by_moment": dict(sorted(counts.moments().items())),
        "sweeps": counts.sweeps,
        "runs": counts.runs,
        "starts": counts.starts,
        "exit_codes": {str(code): count for code, count in sorted(counts.ends.items())},
        "said": dict(counts.told),
        "takeovers": counts.takeovers,
        "resumed_from_checkpoints": counts.resumed,
        "wrong": counts.wrong,
        "seconds": round(seconds, 1),
        "load_average": [round(value, 1) for value in load],
        "machine": {"cpus": os.cpu_count(), "cpu_kind": environment.cpu_kind()},
    }


@contextlib.contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Prepared data and measurements of their own."""
    before = os.environ.get("CLCR_CACHE")
    os.environ["CLCR_CACHE"] = str(folder / "cache")
    yield
    if before is None:
        del os.environ["CLCR_CACHE"]
    else:
        os.environ["CLCR_CACHE"] = before


def main() -> int:
    """The command line; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write what was measured, as JSON")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began, before = time.monotonic(), os.getloadavg()
    with cache_in(folder):
        chaos = Chaos(folder, args.seed, "0-4", tell=lambda line: print(line, flush=True))
        chaos.go(args.kills)
    found = told(chaos.counts, args.seed, time.monotonic() - began, before)
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)
    if chaos.counts.wrong:
        print(f"kept: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
