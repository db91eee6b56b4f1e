"""``clcr analyse``: one section of the findings, from runs that kept their weights to its tables; ``clcr report`` makes
the whole report of the same files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import analysed, report, studies
from benchmarks.analyses import ANALYSES
from benchmarks.console import Console, Watch
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey, RunRecord
from benchmarks.report import sections
from benchmarks.report.sections import SECTIONS
from benchmarks.report.sections.data import keys_of_study
from benchmarks.runner import plan, store
from benchmarks.runner.plan import Place, Planned

DONE, FAILED, INTERRUPTED = 0, 1, 130
COLUMNS = ("section", "study runs", "analysed", "to do", "without weights", "stale", "what it is")


def run(name: str | None, place: Place, matches: Callable[[RunKey], bool], dry_run: bool, console: Console) -> int:
    """List the sections of the report and what each lacks; or of one of them ("all": of each) analyse the weights of
    the runs that match, merge what its study has run, and print its tables; the exit code. InputError for an unknown
    name and for a folder without results."""
    if name not in (None, "all", *SECTIONS):
        raise unknown("section", str(name), (*SECTIONS, "all"), "analyse")
    if not place.out.is_dir():
        raise InputError(f"--out {place.out}: no such folder; make runs with `clcr run ... --keep best`")
    records = [record for _, record in store.records(place.out)]
    if name is None:
        return _list(records, place, matches, console)
    code, told = DONE, []
    for each in SECTIONS if name == "all" else (name,):
        worse, found = _analyse(each, records, place, matches, dry_run, console) if each in ANALYSES else (DONE, {})
        code = max(code, worse)
        told.append({"section": each, **found})
        if code == INTERRUPTED:
            return code
    console.data({"sections": told} if name == "all" else told[0])
    if not dry_run:
        _show(name, place.out, console)
    return code


def _list(records: Sequence[RunRecord], place: Place, matches: Callable[[RunKey], bool], console: Console) -> int:
    from benchmarks.analyses import engine

    ran, rows = _studied(place.out), []
    for name in SECTIONS:
        counts: tuple[object, ...] = ("",) * 4
        if name in ANALYSES:
            work = engine.plan(name, records, plan.options(place), matches)
            counts = (len(work.current), len(work.to_do), len(work.bare), len(work.stale))
        rows.append((name, ran.get(name, ""), *counts, sections.load(name).title))
    console.data({"sections": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    console.table("sections", COLUMNS, rows)
    return DONE


def _studied(out: Path) -> dict[str, str]:
    """Of each study how many of its runs are recorded, "12 of 160"."""
    data = report.gathered(out)
    counted = {name: keys_of_study(study) for name, study in data.studies.items()}
    return {name: f"{sum(key in data.records for key in keys)} of {len(keys)}" for name, keys in counted.items()}


def _show(name: str, out: Path, console: Console) -> None:
    """Merge what has been run and print the tables of a section, or tell where all of them will be."""
    for folder in (out, out / studies.FOLDER):
        if store.runs_folder(folder).is_dir():
            store.merge(folder)
    if name == "all":
        console.say("`clcr report` makes REPORT.md of it")
        return
    made = report.section(out, name)
    console.sections(made.tables)
    for sentence in made.sentences:
        console.say(sentence.text)


def _analyse(
    name: str,
    records: Sequence[RunRecord],
    place: Place,
    matches: Callable[[RunKey], bool],
    dry_run: bool,
    console: Console,
) -> tuple[int, dict[str, Any]]:
    """Analyse the weights of the runs that match: the exit code, and what to tell programs."""
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
        for team in work.teams:
            console.say(", ".join(str(record.key) for record in team))
        return DONE, told | {"to_do": list(map(str, work.to_do))}
    with Watch(console, [Planned(key, "missing") for key in work.to_do], 1) as watch:
        try:
            results = engine.execute_all(work, plan.options(place), watch)
        except KeyboardInterrupt:
            count = watch.ended["done"] + len(work.current)
            console.fault(f"interrupted with {count} of {len(work.to_do) + len(work.current)} runs analysed; "
                          "the same command goes on")  # fmt: skip
            return INTERRUPTED, told
    failed = [result for result in results if result.state == "failed"]
    told |= {"done": len(results) - len(failed), "failed": [asdict(result) for result in failed]}
    if failed:
        console.table("not analysed", ("run", "why"), [(result.key, result.error) for result in failed])
    lines = len(analysed.read(path))
    console.say(f"{name}: {len(results) - len(failed)} runs analysed, {len(work.current)} before; {lines} in {path}")
    return FAILED if failed else DONE, told
