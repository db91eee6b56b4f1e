"""``clcr analyse``: what is found out about trained weights, from runs that kept them to lines of results/analyses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import analysed
from benchmarks.analyses import ANALYSES
from benchmarks.console import Console, Watch
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import plan, store
from benchmarks.runner.plan import Place, Planned

DONE, FAILED, INTERRUPTED = 0, 1, 130
COLUMNS = ("analysis", "current", "to do", "without weights", "stale", "what it is")


def run(name: str | None, place: Place, matches: Callable[[RunKey], bool], dry_run: bool, console: Console) -> int:
    """List the analyses and what each lacks, or make one of them of all runs that match; the exit code. InputError for
    an unknown name and for a folder without runs."""
    if name is not None and name not in ANALYSES:
        raise unknown("analysis", name, ANALYSES, "analyse")
    if not place.out.is_dir():
        raise InputError(f"--out {place.out}: no such folder; make runs with `clcr run ... --keep best`")
    records = [record for _, record in store.records(place.out)]
    if name is None:
        return _list(records, place, matches, console)
    return _analyse(name, records, place, matches, dry_run, console)


def _list(records: Sequence[RunRecord], place: Place, matches: Callable[[RunKey], bool], console: Console) -> int:
    from benchmarks.analyses import engine

    works = [engine.plan(name, records, plan.options(place), matches) for name in ANALYSES]
    counts = [(len(w.current), len(w.to_do), len(w.bare), len(w.stale)) for w in works]
    rows = [(w.analysis.name, *count, w.analysis.title) for w, count in zip(works, counts, strict=True)]
    console.data({"analyses": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    console.table("analyses", COLUMNS, rows)
    return DONE


def _analyse(
    name: str,
    records: Sequence[RunRecord],
    place: Place,
    matches: Callable[[RunKey], bool],
    dry_run: bool,
    console: Console,
) -> int:
    from benchmarks.analyses import engine

    work = engine.plan(name, records, plan.options(place), matches)
    path = analysed.path_of(place.out, name)
    told: dict[str, Any] = {"analysis": name, "current": len(work.current), "bare": list(map(str, work.bare))}
    told |= {"stale": {str(key): why for key, why in work.stale.items()}, "file": str(path)}
    console.note(f"{name}: {len(work.to_do)} runs to do, {len(work.current)} done before")
    if work.bare:
        console.note(
            f"{len(work.bare)} runs keep no weights, {work.bare[0]} first; `{work.remedy}` trains it with them"
        )
    for key, why in list(work.stale.items())[:1]:
        console.note(f"{len(work.stale)} runs are stale, {key} first: {why}")
    if dry_run:
        console.data({**told, "to_do": list(map(str, work.to_do))})
        for team in work.teams:
            console.say(", ".join(str(record.key) for record in team))
        return DONE
    with Watch(console, [Planned(key, "missing") for key in work.to_do], 1) as watch:
        try:
            results = engine.execute_all(work, plan.options(place), watch)
        except KeyboardInterrupt:
            count = watch.ended["done"] + len(work.current)
            console.fault(f"interrupted with {count} of {len(work.to_do) + len(work.current)} runs analysed; "
                          "the same command goes on")  # fmt: skip
            return INTERRUPTED
    failed = [result for result in results if result.state == "failed"]
    console.data({**told, "done": len(results) - len(failed), "failed": [asdict(result) for result in failed]})
    if failed:
        console.table("not analysed", ("run", "why"), [(result.key, result.error) for result in failed])
    lines = len(analysed.read(path))
    console.say(f"{name}: {len(results) - len(failed)} runs analysed, {len(work.current)} before; {lines} in {path}")
    return FAILED if failed else DONE
