"""``clcr check``: what is committed under results/ against what today's code, data and definitions give.

records: metrics from predictions, digests, what went stale. published: reproduced numbers stay reproduced. tables:
generated files, byte by byte. golden: committed runs, trained again.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks import catalog, report
from benchmarks.archive import predictions_of, read_npz
from benchmarks.console import Console, Watch, duration
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey, RunRecord
from benchmarks.report import accepted, agreement, generated, published, recount
from benchmarks.report.collect import collect
from benchmarks.report.findings import Finding, Part
from benchmarks.report.layout import count
from benchmarks.report.statistics import VERDICTS
from benchmarks.runner import golden, judge
from benchmarks.runner.plan import Place, Planned

FAILED = 1
WORKERS = 2
SHOWN = 25  # failures of a part that people see; --json has them all


@dataclass(frozen=True)
class Check:
    """What every part is told: the results, the prepared data, where to print, whether to accept."""

    out: Path
    cache: Path
    console: Console
    accept: bool = False

    @property
    def place(self) -> Place:
        """Where the committed runs lie."""
        return Place(self.out, self.cache)

    @cached_property
    def recounted(self) -> recount.Recount:
        """The committed records, read and counted once."""
        return recount.recount(self.out)

    @cached_property
    def judged(self) -> Mapping[int, list[judge.Change] | str]:
        """By place in the newest records: what makes a record stale, or why that cannot be told here."""
        found: dict[int, list[judge.Change] | str] = {}
        for number, record in enumerate(self.recounted.newest):
            try:
                found[number] = judge.changes(record, self.place) if record.status == "done" else []
            except InputError as error:
                found[number] = str(error)
        return found

    @property
    def sound(self) -> list[RunRecord]:
        """The newest records that are known not to be stale."""
        return [record for number, record in enumerate(self.recounted.newest) if self.judged[number] == []]


def records(check: Check) -> Part:
    """Metrics, digests and predictions of every line; whether the newest line of each run is stale."""
    failures, unknowns, data_away = list(check.recounted.failures), [], []
    for number, record in enumerate(check.recounted.newest):
        found = check.judged[number]
        if isinstance(found, str):
            unknowns.append(f"{record.key}: not judged: {found}")
        elif found:
            failures.append(stale(record, found))
        if not judge.judges_data(record, check.place):
            data_away.append(record.key.benchmark)
    notes = unknowns[:SHOWN]
    if data_away:
        names = ", ".join(dict.fromkeys(data_away))
        notes.append(
            f"{count(len(data_away), 'record')} on {names}: judged without their data, which is not prepared here"
        )
    return Part(count(len(check.recounted.records), "record"), tuple(failures), tuple(notes))


def stale(record: RunRecord, changes: Sequence[judge.Change]) -> Finding:
    """A record that is not what its run would be today."""
    first, more = changes[0], len(changes) - 1
    entries = f"{first.entry}{f' and {more} more' if more else ''}"
    then = f"{entries} {_short(first.then)}"
    return Finding(f"{record.key}: stale", then, _short(first.now), f"rerun: {recount.AGAIN}, or undo the change")


def _short(text: str) -> str:
    return text.strip('"')[:24]


def published_numbers(check: Check) -> Part:
    """Every published cell by its verdict; those that were accepted as reproduced must be so still."""
    numbers = report.read_published(check.out)
    rows = published.beside(numbers, collect(check.out / "records"))
    verdicts = accepted.cells(rows, numbers)
    path = check.out / accepted.ACCEPTED
    before = accepted.load(path)
    fresh, notes = accepted.new(before, verdicts), []
    if check.accept:
        dropped = accepted.left(before, numbers)
        notes += [f"dropped, as it left the published numbers: {cell}" for cell in dropped]
        notes += [f"accepted: {cell}" for cell in fresh]
        before = tuple(cell for cell in before if cell not in dropped) + tuple(fresh)
        accepted.save(path, before)
    else:
        notes += [f"newly reproduced: {cell}; keep it with `clcr check --accept`" for cell in fresh]
    tally = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    notes.append(", ".join(f"{n} {verdict}" for verdict, n in tally.items()))
    told = tuple({**asdict(row.number), "verdict": row.verdict, "n": len(row.values)} for row in rows)
    failures = tuple(accepted.regressions(before, verdicts, numbers))
    return Part(count(len(rows), "published cell"), failures, tuple(notes), told)


def tables(check: Check) -> Part:
    """The generated files."""
    return generated.compare(check.out)


def golden_runs(check: Check) -> Part:
    """Committed runs, trained again and compared prediction by prediction."""
    sound = check.sound
    chosen = golden.twins(sound)
    here = [record for record in sound if record.key.data == "real" and judge.judges_data(record, check.place)]
    chosen += golden.real(here)
    committed = [record for team in chosen for record in team.records]
    lost = len(check.recounted.newest) - len(sound)
    notes = [f"{count(lost, 'run')} stale or not judged: not among the golden ones"] if lost else []
    if not here:
        notes.append("real data: not prepared here, so no real run is trained again")
    if not chosen:
        failure = Finding("golden", "runs whose records are not stale", "none", recount.AGAIN)
        return Part("no runs", (failure,), tuple(notes))
    planned = [Planned(record.key, "missing", record.time_s) for record in committed]
    with tempfile.TemporaryDirectory() as scratch, Watch(check.console, planned, WORKERS) as watch:
        again = golden.retrain(chosen, replace(check.place, out=Path(scratch)), WORKERS, watch)
    failures = [
        Finding(f"golden {key}", "a finished run", found.error, "see its error; `clcr run` repeats it")
        for key, found in again.items()
        if found.record is None
    ]
    failures += agreement.compare(list(_pairs(check.out, committed, again)))
    real = sum(record.key.data == "real" for record in committed)
    looked_at = f"{count(len(committed), 'run')} in {count(len(chosen), 'team')}, {real} of them on real data"
    return Part(looked_at, tuple(failures), tuple(notes))


def _pairs(out: Path, committed: Sequence[RunRecord], again: Mapping[RunKey, golden.Again]) -> Iterator[agreement.Pair]:
    """Each golden run beside the committed one."""
    archives: dict[str, dict[str, np.ndarray]] = {}
    for record in committed:
        found, name = again[record.key], record.key.benchmark
        if name not in archives:
            archives[name] = read_npz(out / "predictions" / f"{name}.npz")
        if found.record is not None:
            then = predictions_of(archives[name], record.key, record.predictions)
            yield agreement.Pair(record, then, found.record, found.arrays, catalog.spec(name).main_metric)


PARTS: Mapping[str, Callable[[Check], Part]] = {
    "records": records,
    "published": published_numbers,
    "tables": tables,
    "golden": golden_runs,
}


def run(out: Path, cache: Path, only: Sequence[str], accept: bool, console: Console) -> int:
    """Check the parts named in ``only`` (all where it is empty) and tell; 1 where something does not hold."""
    for name in only:
        if name not in PARTS:
            raise unknown("part", name, PARTS, "--only")
    wanted = [name for name in PARTS if not only or name in only]
    if accept and "published" not in wanted:
        raise InputError("--accept: keeps published cells, which --only leaves out; add published to it")
    if not out.is_dir():
        raise InputError(f"--out {out}: no such folder; make results with `clcr run` or name another one")
    importlib.import_module("benchmarks.runner.execute")  # torch: loaded here, where no part is timed
    check = Check(out, cache, console, accept)
    done: dict[str, tuple[Part, float]] = {}
    for name in wanted:
        began = time.perf_counter()
        part = _guarded(name, check)
        done[name] = part, time.perf_counter() - began
        _tell(name, part, console)
    return _conclude(done, console)


def _guarded(name: str, check: Check) -> Part:
    """A part that cannot be looked at, because a committed file is broken, does not hold."""
    try:
        return PARTS[name](check)
    except InputError as error:
        return Part("nothing", (Finding(name, "files that can be read", str(error), recount.RESTORE),))


def _tell(name: str, part: Part, console: Console) -> None:
    console.notes([f"{name}: {note}" for note in part.notes])
    for failure in part.failures[:SHOWN]:
        console.error(f"{name}: {failure}")
    if len(part.failures) > SHOWN:
        console.error(f"{name}: and {len(part.failures) - SHOWN} more; `clcr check --only {name} --json` lists all")


def _conclude(done: Mapping[str, tuple[Part, float]], console: Console) -> int:
    failed = sum(len(part.failures) for part, _ in done.values())
    total = sum(seconds for _, seconds in done.values())
    parts = {name: {**asdict(part), "seconds": round(seconds, 2)} for name, (part, seconds) in done.items()}
    console.data({"holds": not failed, "seconds": round(total, 2), "parts": parts})
    rows = [
        (name, part.looked_at, "holds" if not part.failures else f"{len(part.failures)} failed", duration(seconds))
        for name, (part, seconds) in done.items()
    ]
    console.table("check", ("part", "looked at", "result", "time"), rows)
    told = f"{count(failed, 'thing')} {'does' if failed == 1 else 'do'} not hold" if failed else "all holds"
    console.say(f"{told}, in {duration(total)}")
    return FAILED if failed else 0
